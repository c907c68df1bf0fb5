"""Raw log into curated days: write, audit, publish.

Every row of a raw source ends in exactly one place: accepted in the curated day of its event time, quarantined whole with its
reason, or dropped and counted as an exact duplicate. A curated day keeps what each source contributed to it, so that reading
any of them again replaces that contribution and nothing else.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ibis.expr.types import Table

from mfn_core.errors import ConfigError, PartitionNotReadyError, RejectionError, SchemaError, TransientError
from mfn_core.schema import EVENT_TIME, PARTITION, SEQ_NO, LogSchema
from tasks import curated, engine, log_rows, publication, quarantine, raw, reading, receipt, storage, turns
from tasks.day_parts import Part
from tasks.log_rows import Count
from tasks.raw import Footer, Source
from tasks.settings import Settings

_ROWS_PER_CHUNK = 5_000_000
_DAYS_NAMED = 5

_log = logging.getLogger(__name__)


def plan_ingest(
    settings: Settings, log: LogSchema, first_day: date | None, last_day: date | None, days_per_chunk: int, *, now: datetime | None = None
) -> list[dict[str, str]]:
    """Split the days that are new or changed into chunks.

    Daily folders go by ``days_per_chunk``. A first load goes by it too, unless the days hold fewer than 5M rows: the whole
    range of a small file is one chunk.

    Args:
        settings: of the installation.
        log: which log.
        first_day: first day to read; None: the first there is.
        last_day: last day to read; None: the last there is.
        days_per_chunk: days that one chunk holds.
        now: rows later than this are in the future; None: the clock.

    Returns:
        ``{"first_day": …, "last_day": …}`` of every chunk, ISO dates; empty where nothing is to do.

    Raises:
        ConfigError: the view is not deployed, a column mapping is misspelt, or the range is empty.
        PartitionNotReadyError: the one day asked for has not arrived.
        SchemaError: days in the range are missing, or a file breaks the contract.
    """
    _check_request(settings, log, first_day, last_day)
    published = set(curated.days(settings, log))
    loaded, finished = _first_load_days(settings, log, first_day, last_day, published, now or datetime.now(UTC))
    folders = {day: raw.daily(settings, log, day) for day in raw.days(settings, log) if _within(day, first_day, last_day)}
    for day in folders:
        raw.check_flat(settings, log, day)
    arrived = {day: source for day, source in folders.items() if source is not None}
    _check_arrived(settings, log, first_day, last_day, set(arrived), set(loaded))
    wanted = sorted(day for day in arrived.keys() | loaded.keys() if _within(day, first_day, last_day))
    changed_folders = {day for day, source in arrived.items() if not _is_current(settings, log, source, published)}
    work = [day for day in wanted if day in changed_folders or (day in loaded and not finished.holds(day, day))]
    if not work:
        _log.info("%s: nothing to do, all %d days are ingested and their raw files unchanged", log.dataset, len(wanted))
        return []
    chunks = _chunks(work, days_per_chunk, None if arrived.keys() & set(work) else loaded)
    _log.info("%s: %d of %d days are new or changed, in %d chunks", log.dataset, len(work), len(wanted), len(chunks))
    return [{"first_day": str(first), "last_day": str(last)} for first, last in chunks]


def plan_partition(settings: Settings, log: LogSchema, earliest_day: date, day: date) -> list[dict[str, str]]:
    """The chunks of a run that was made for one day: of the days shortly before it those that are new or changed, then the day itself.

    The day is a chunk though it be unchanged: ``ingest_chunk`` then finds nothing to do, and the day is announced, which a run that
    failed may have left undone. And though it have not arrived: its chunk waits, and holds up no other. Each day is a chunk of its own:
    none that is bad holds up another.

    Args:
        settings: of the installation.
        log: which log.
        earliest_day: first day that is looked at; ``day`` itself: no other.
        day: that the run was made for.

    Returns:
        As ``plan_ingest``; never empty.

    Raises:
        ConfigError: the view is not deployed, or a column mapping is misspelt.
    """
    _check_request(settings, log, day, day)
    changed = _changed_folders(settings, log, earliest_day, day - timedelta(days=1))
    _log.info("%s %s: %d days since %s are new or changed", log.dataset, day, len(changed), earliest_day)
    days = [str(source.day) for source in changed] + [str(day)]
    return [{"first_day": each, "last_day": each} for each in days]


def ingest_planned(settings: Settings, log: LogSchema, chunk: Mapping[str, str], *, now: datetime | None = None) -> dict[str, Any]:
    """``ingest_chunk`` for a chunk of a plan.

    Returns:
        ``days`` that are published; ``late``, those of them whose raw folder nobody had read before; ``changed``, how many changed.

    Raises:
        PartitionNotReadyError: the only day of the chunk has not arrived.
        MFNError: as ``ingest_chunk``.
    """
    first_day, last_day = date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"])
    if first_day == last_day:
        plan_ingest(settings, log, first_day, last_day, 1, now=now)  # the day of a run is planned before it has arrived
    unread = {str(day) for day in _unread_days(settings, log, first_day, last_day)}
    published = ingest_chunk(settings, log, first_day, last_day, now=now)
    days = [each[PARTITION] for each in published]
    return {"days": days, "late": [day for day in days if day in unread], "changed": sum(each["changed"] for each in published)}


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
        SchemaError: a file breaks the contract or cannot be read.
        RejectionError: too many rows of a source are rejected or duplicated; they are in quarantine, nothing is published.
        AuditError: the rows fail the suite; nothing is published.
        TransientError: a file is not finished, or was replaced while it was read; nothing is published.
    """
    _check_request(settings, log, first_day, last_day)
    with turns.taken(settings, f"ingest-{log.dataset}"):  # two chunks may touch one curated day, by late rows
        sources = _changed_sources(settings, log, first_day, last_day)
        if not sources:
            _log.info("%s %s to %s: nothing to do, the raw files are unchanged", log.dataset, first_day, last_day)
            return publication.summaries(settings, log, curated.days(settings, log, first_day, last_day))
        return _ingest(settings, log, sources, (first_day, last_day), now or datetime.now(UTC))


def _ingest(settings: Settings, log: LogSchema, sources: list[Source], span: tuple[date, date], now: datetime) -> list[dict[str, Any]]:
    footers = _checked_footers(settings, log, sources)
    with (
        engine.connect(settings) as connection,
        storage.temporary_folder(settings.scratch) as aside,
        raw.corrupt_files_named([footer.uri for footer in footers]),
    ):
        request = reading.Request(settings, log, footers, span, now)
        groups = request.raw_rows(connection, sources)
        reach = request.reach(groups)
        parts, counts = reading.write_parts(connection, request, sources, reach, aside)
        verdicts = [request.verdict(group, reach) for group in groups]
        homes = quarantine.homes(counts, sources, span)
        quarantine.write(settings, log, [(group.whole, rows) for group, rows in zip(groups, verdicts, strict=True)], sources, homes, span)
        for source in sources:
            _check_rejected(settings, log, source, [each for each in counts if each.source == source.name], footers, verdicts)
        for source in sources:
            _check_duplicates(settings, log, source, *_of(source, parts, counts), footers)
        for source in sources:
            if source.day is not None:
                receipt.announce_daily(settings, log, source, {part.day for part in parts if part.source == source.name})
        intake = publication.Intake(span, sources, parts, counts, homes)
        summaries = publication.publish(connection, settings, log, intake, aside)
    for source in sources:
        _acknowledge(settings, log, source, *_of(source, parts, counts), span, reach)
    return summaries


def _check_request(settings: Settings, log: LogSchema, first_day: date | None, last_day: date | None) -> None:
    if log.view not in settings.views:
        raise ConfigError(
            f"{log.dataset} is the log of view {log.view}, which this deployment does not have: "
            f"MFN_VIEWS is {list(settings.views)}; add {log.view} to it, or leave {log.dataset} out"
        )
    raw.check_mapping(receipt.column_mapping(settings, log), (*log.required, *log.optional), _mapping_setting(log))
    if first_day is not None and last_day is not None and first_day > last_day:
        raise ConfigError(f"first_day={first_day} is after last_day={last_day}; exchange them")


def _mapping_setting(log: LogSchema) -> str:
    return "MFN_APP_LOG_COLUMNS" if log.view == "macro" else "MFN_ITEM_LOG_COLUMNS"


@dataclass(frozen=True)
class _Finished:
    """Ranges of days of a first load that are read, or that it does not reach."""

    ranges: tuple[tuple[date, date], ...]

    def holds(self, first_day: date, last_day: date) -> bool:
        """Whether one of the ranges holds all these days."""
        return any(first <= first_day and last_day <= last for first, last in self.ranges)


def _finished(settings: Settings, log: LogSchema, source: Source, published: set[date]) -> _Finished:
    digest = receipt.digest(settings, log, source)
    ranges: list[tuple[date, date]] = []
    for first, last, known in receipt.read_first_loads(settings, log, source.name):
        if known.digest == digest and published.issuperset(receipt.days(known)):
            start, end = receipt.reach(known)
            ranges += [(first, last), (date.min, start - timedelta(days=1)), (end + timedelta(days=1), date.max)]
    return _Finished(tuple(ranges))


def _first_load_days(
    settings: Settings, log: LogSchema, first_day: date | None, last_day: date | None, published: set[date], now: datetime
) -> tuple[dict[date, int], _Finished]:
    """Rows of every day of a first load, with what of it is finished; its files are not opened where all the days asked for are."""
    source = raw.first_load(settings, log)
    if source is None:
        return {}, _Finished(())
    finished = _finished(settings, log, source, published)
    former = {day: 0 for _, _, known in receipt.read_first_loads(settings, log, source.name) for day in receipt.days(known)}
    if first_day is not None and last_day is not None and finished.holds(first_day, last_day):
        return former, finished
    footers = _checked_footers(settings, log, [source])
    with engine.connect(settings) as connection, raw.corrupt_files_named(source.uris):
        groups = log_rows.raw_rows(connection, log, receipt.column_mapping(settings, log), [source], footers)
        judged = [log_rows.with_verdict(group.typed, log, now, settings.earliest_day, settings.late_rows) for group in groups]
        days = log_rows.rows_by_day(judged)
    if not days:
        raise SchemaError(
            f"{', '.join(source.uris)}: no row has an event_time that is not null, not before MFN_EARLIEST_DAY={settings.earliest_day} "
            "and not in the future; correct the source"
        )
    return former | days, finished


def _check_arrived(
    settings: Settings, log: LogSchema, first_day: date | None, last_day: date | None, arrived: set[date], loaded: set[date]
) -> None:
    """Daily folders have no gaps; days without rows are normal in a first load."""
    where = storage.join(settings.raw, log.dataset)
    if first_day is not None and first_day == last_day:
        if first_day not in arrived | loaded:
            raise PartitionNotReadyError(f"{where}/dt={first_day} has no Parquet file yet; deliver it, the run will be retried")
        return
    folders = raw.days(settings, log)
    if not folders and not loaded:
        raise SchemaError(
            f"no {log.dataset} under {settings.raw}: neither {log.dataset}/dt=YYYY-MM-DD/*.parquet nor {log.dataset}.parquet; "
            f"deliver them, or take {log.view} out of MFN_VIEWS if this deployment has one view only"
        )
    if not folders:
        return
    start, end = max(first_day or folders[0], max(loaded, default=date.min)), last_day or folders[-1]
    expected = {start + timedelta(days=n) for n in range((end - start).days + 1)}
    missing = sorted(expected - arrived - loaded)
    if missing:
        named = ", ".join(f"dt={day}" for day in missing[:_DAYS_NAMED])
        raise SchemaError(
            f"{where}: {len(missing)} of {len(expected)} daily folders between {start} and {end} are missing or empty, first {named}; "
            "deliver them, or choose first_day and last_day so that no day is missing"
        )


def _within(day: date, first_day: date | None, last_day: date | None) -> bool:
    return (first_day is None or first_day <= day) and (last_day is None or day <= last_day)


def _changed_sources(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[Source]:
    found = _changed_folders(settings, log, first_day, last_day)
    first_load = raw.first_load(settings, log)
    if first_load is not None:
        finished = _finished(settings, log, first_load, set(curated.days(settings, log)))
        found += [] if finished.holds(first_day, last_day) else [first_load]
    return found


def _changed_folders(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[Source]:
    published = set(curated.days(settings, log))
    days = [day for day in raw.days(settings, log) if first_day <= day <= last_day]
    daily = [source for day in days if (source := raw.daily(settings, log, day)) is not None]
    return [source for source in daily if not _is_current(settings, log, source, published)]


def _unread_days(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[date]:
    receipts = {day: receipt.read_daily(settings, log, day) for day in raw.days(settings, log) if first_day <= day <= last_day}
    # A receipt without a digest is of a run that died: see ``receipt.announce_daily``.
    return [day for day, known in receipts.items() if known is None or not known.digest]


def _is_current(settings: Settings, log: LogSchema, source: Source, published: set[date]) -> bool:
    assert source.day is not None, "of a daily folder"
    known = receipt.read_daily(settings, log, source.day)
    return known is not None and known.digest == receipt.digest(settings, log, source) and published.issuperset(receipt.days(known))


def _chunks(days: list[date], days_per_chunk: int, rows: dict[date, int] | None) -> list[tuple[date, date]]:
    """Consecutive ranges of at most ``days_per_chunk`` days, or of more where ``rows`` says that they hold few."""
    chunks: list[tuple[date, date]] = []
    held = 0
    for day in days:
        held += rows[day] if rows else 0
        if chunks and ((day - chunks[-1][0]).days < days_per_chunk or (rows and held <= _ROWS_PER_CHUNK)):
            chunks[-1] = (chunks[-1][0], day)
        else:
            chunks.append((day, day))
            held = rows[day] if rows else 0
    return chunks


def _checked_footers(settings: Settings, log: LogSchema, sources: list[Source]) -> list[Footer]:
    footers = raw.footers([uri for source in sources for uri in source.uris])
    mapping, rules = receipt.column_mapping(settings, log), raw.log_rules(log)
    for footer in footers:
        raw.check_names([(name, footer.uri) for name in footer.schema.names], quarantine.MARKS)
        raw.check_columns(footer, mapping, rules, log.required, _mapping_setting(log))
    rows = {footer.uri: footer.rows for footer in footers}
    for source in sources:
        if not sum(rows[uri] for uri in source.uris):
            raise SchemaError(
                f"{', '.join(source.uris)}: 0 rows, expected at least 1; deliver {log.dataset} {source.name} again with its rows"
            )
    return footers


def _check_rejected(
    settings: Settings, log: LogSchema, source: Source, counts: list[Count], footers: list[Footer], verdicts: list[Table]
) -> None:
    """Hold what became of the rows of a source against the limits."""
    read = sum(each.rows for each in counts)
    if source.day is not None:
        delivered = sum(footer.rows for footer in footers if footer.uri in source.signatures)
        if read != delivered:
            raise _changed_meanwhile(settings, log, source, delivered, read)
    rejected = sum(each.rows for each in counts if each.reason is not None)
    if read and rejected / read > settings.max_rejected_share:
        raise RejectionError(
            f"{_what(log, source)}: {rejected} of {read} rows ({rejected / read:.1%}) are rejected, more than "
            f"max_rejected_share={settings.max_rejected_share:g}: {_reasons(counts)}. First: {quarantine.example(verdicts, source.name)}. "
            f"Nothing is published; each row is under {quarantine.log_uri(settings, log)} with its file and row number: "
            "correct the source, or raise MFN_MAX_REJECTED_SHARE"
        )
    if source.day is not None and not any(each.reason is None and each.day == source.day for each in counts):
        others = ", ".join(sorted({str(each.day) for each in counts if each.day is not None})[:_DAYS_NAMED])
        raise SchemaError(
            f"{_what(log, source)}: none of {read} rows has an event_time on {source.day} (UTC), the day of its folder, but on {others}; "
            "put the rows into the folder of their day, or write event_time in UTC"
        )


def _check_duplicates(
    settings: Settings, log: LogSchema, source: Source, parts: list[Part], counts: list[Count], footers: list[Footer]
) -> None:
    read, duplicates = sum(each.rows for each in counts), _duplicates(parts)
    if read and duplicates / read > settings.max_duplicate_share:
        raise RejectionError(
            f"{_what(log, source)}: {duplicates} of {read} rows ({duplicates / read:.1%}) are exact duplicates, more than "
            f"max_duplicate_share={settings.max_duplicate_share:g}. Nothing is published: remove the file that was delivered twice, "
            f"{_numbering(settings, log, source, footers)}or raise MFN_MAX_DUPLICATE_SHARE"
        )


def _changed_meanwhile(settings: Settings, log: LogSchema, source: Source, delivered: int, read: int) -> TransientError:
    assert source.day is not None, "of a daily folder"
    now = raw.daily(settings, log, source.day)
    changed = [uri for uri, signature in source.signatures.items() if now is None or now.signatures.get(uri) != signature]
    return TransientError(
        f"{log.dataset} {source.name}: {delivered} rows by the footers of its files, {read} when they were read: "
        f"{', '.join(sorted(changed)) or 'one of them'} was replaced meanwhile. Nothing is published, the run will be retried; "
        "deliver a file under a name that begins with _ and rename it, so that it changes at once"
    )


def _numbering(settings: Settings, log: LogSchema, source: Source, footers: list[Footer]) -> str:
    """What else makes rows equal: without a number, an event that is repeated within one instant cannot be told from a copy."""
    column = receipt.column_mapping(settings, log).get(SEQ_NO, SEQ_NO)
    if all(column in footer.schema.names for footer in footers if footer.uri in source.signatures):
        return ""
    return (
        f"or, where a user repeats an event within one {EVENT_TIME} (as where times are whole days), bring a {column} that numbers the "
        "events of a user, or times of a finer grain, "
    )


def _what(log: LogSchema, source: Source) -> str:
    return f"{log.dataset} {source.name} ({', '.join(source.uris)})"


def _duplicates(parts: list[Part]) -> int:
    return sum(part.arrived - part.measures.rows for part in parts)


def _reasons(counts: list[Count]) -> str:
    rows = Counter[str]()
    for each in counts:
        if each.reason is not None:
            rows[each.reason] += each.rows
    return ", ".join(f"{reason} ({number} rows)" for reason, number in rows.most_common())


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
        "duplicates": _duplicates(parts),
    }
    landed = {part.day for part in parts}
    if source.day is None:
        receipt.write_first_load(settings, log, source, rows, landed, span=span, reach=reach or span)
    else:
        receipt.write_daily(settings, log, source, rows, landed)
    late = sum(part.measures.rows for part in parts if source.day is not None and part.day != source.day)
    _log.info("%s %s: %s rows read, %s quarantined, %s duplicates, %s late", log.dataset, source.name, *rows.values(), late)
