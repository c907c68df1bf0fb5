"""Raw log into curated days: write, audit, publish.

Every row of a raw source ends in exactly one place: accepted in the curated day of its event time, quarantined whole with its
reason, or dropped and counted as an exact duplicate. A curated day keeps what each source contributed to it, so that reading
any of them again replaces that contribution and nothing else.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from mfn_core.schema import PARTITION, LogSchema
from tasks import curated, engine, ingest_limits, ingest_sources, locks, publication, quarantine, raw, raw_parts, receipt, storage
from tasks.day_parts import Part
from tasks.ingest_plan import plan_ingest
from tasks.log_rows import Count
from tasks.raw import Source
from tasks.settings import Settings

_log = logging.getLogger(__name__)


def ingest_planned(settings: Settings, log: LogSchema, chunk: Mapping[str, str], *, now: datetime | None = None) -> dict[str, Any]:
    """``ingest_chunk`` for a chunk of a plan.

    Returns:
        ``days`` that are published; ``late``, those of them whose raw folder nobody had read before.

    Raises:
        PartitionNotReadyError: the only day of the chunk has not arrived.
        MFNError: as ``ingest_chunk``.
    """
    first_day, last_day = date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"])
    if first_day == last_day:
        plan_ingest(settings, log, first_day, last_day, 1, now=now)  # the day of a run is planned before it has arrived
    unread = {str(day) for day in ingest_sources.unread_days(settings, log, first_day, last_day)}
    published = ingest_chunk(settings, log, first_day, last_day, now=now)
    days = [each[PARTITION] for each in published]
    return {"days": days, "late": [day for day in days if day in unread]}


def ingest_chunk(
    settings: Settings, log: LogSchema, first_day: date, last_day: date, *, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Read the raw rows of some days and publish the curated days they belong to.

    Args:
        settings: of the installation.
        log: which log.
        first_day: first day to read.
        last_day: last day to read.
        now: rows later than this are in the future; None: the clock.

    Returns:
        ``{"dt", "digest", "rows", "changed"}`` of every curated day that is published, late rows' days included, withdrawn ones not.

    Raises:
        ConfigError: the view is not deployed, a column mapping is misspelt, or the range is empty.
        SchemaError: a file breaks the contract or cannot be read.
        RejectionError: too many rows of a source are rejected or duplicated; they are in quarantine, nothing is published.
        AuditError: the rows fail the suite; nothing is published.
        TransientError: a file is not finished, or was replaced while it was read; nothing is published.
    """
    ingest_sources.check_request(settings, log, first_day, last_day)
    with locks.taken(settings, f"ingest-{log.dataset}"):  # two chunks may touch one curated day, by late rows
        sources = ingest_sources.changed_sources(settings, log, first_day, last_day)
        if not sources:
            _log.info("%s %s to %s: nothing to do, the raw files are unchanged", log.dataset, first_day, last_day)
            return publication.summaries(settings, log, curated.days(settings, log, first_day, last_day))
        return _ingest(settings, log, sources, (first_day, last_day), now or datetime.now(UTC))


def _ingest(settings: Settings, log: LogSchema, sources: list[Source], span: tuple[date, date], now: datetime) -> list[dict[str, Any]]:
    footers = ingest_sources.checked_footers(settings, log, sources)
    with (
        engine.connect(settings) as connection,
        storage.temporary_folder(settings.scratch) as aside,
        raw.corrupt_files_named([footer.uri for footer in footers]),
    ):
        request = raw_parts.Request(settings, log, footers, span, now)
        groups = request.raw_rows(connection, sources)
        reach = request.reach(groups)
        parts, counts = raw_parts.write_judged(connection, request, sources, reach, aside)
        verdicts = [request.verdict(group, reach) for group in groups]
        homes = quarantine.homes(counts, sources, span)
        quarantine.write(settings, log, [(group.whole, rows) for group, rows in zip(groups, verdicts, strict=True)], sources, homes, span)
        for source in sources:
            ingest_limits.check_rejected(settings, log, source, [each for each in counts if each.source == source.name], footers, verdicts)
        for source in sources:
            ingest_limits.check_duplicates(settings, log, source, *_of(source, parts, counts), footers)
        for source in sources:
            if source.day is not None:
                receipt.announce_daily(settings, log, source, {part.day for part in parts if part.source == source.name})
        intake = publication.Intake(span, sources, parts, counts, homes)
        summaries = publication.publish(connection, settings, log, intake, aside)
    for source in sources:
        _acknowledge(settings, log, source, *_of(source, parts, counts), span, reach)
    return summaries


def _of(source: Source, parts: list[Part], counts: list[Count]) -> tuple[list[Part], list[Count]]:
    return [part for part in parts if part.source == source.name], [each for each in counts if each.source == source.name]


def _acknowledge(
    settings: Settings,
    log: LogSchema,
    source: Source,
    parts: list[Part],
    counts: list[Count],
    span: tuple[date, date],
    reach: tuple[date, date] | None,
) -> None:
    rows = {
        "read": sum(each.rows for each in counts),
        "quarantined": sum(each.rows for each in counts if each.reason is not None),
        "duplicates": ingest_limits.num_duplicates(parts),
    }
    landed = {part.day for part in parts}
    if source.day is None:
        receipt.write_first_load(settings, log, source, rows, landed, span=span, reach=reach or span)
    else:
        receipt.write_daily(settings, log, source, rows, landed)
    late = sum(part.measures.rows for part in parts if source.day is not None and part.day != source.day)
    _log.info("%s %s: %s rows read, %s quarantined, %s duplicates, %s late", log.dataset, source.name, *rows.values(), late)
