"""Curated days from what their sources contribute: merged, audited and published.

A curated day is the distinct union of its contributions: rows of its own daily folder, of a first load, and late rows of other
folders. Each contribution is a Parquet file of its own. The first in precedence is published as it is; what the others add
is published beside it as one more file, so that a late row never rewrites the day it belongs to.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
from ibis.backends.duckdb import Backend

from mfn_core.schema import PARTITION, LogSchema
from tasks import audit, curated, day_parts, engine, log_rows, manifest, receipt, storage
from tasks.audit import Verdict
from tasks.day_parts import MergedDay, Part
from tasks.log_rows import DAY, SOURCE, Count
from tasks.manifest import Manifest
from tasks.measures import Measures
from tasks.quarantine import Homes
from tasks.raw import FIRST_LOAD, Source
from tasks.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contribution:
    """What one source brings to one curated day."""

    file: str
    rows: int
    arrived: int
    quarantined: int
    source_digest: str


@dataclass(frozen=True)
class Intake:
    """What was read of a log."""

    span: tuple[date, date]  # the days that were asked for
    sources: Sequence[Source]  # that were read
    parts: Sequence[Part]  # the accepted rows, by source and day: of ``raw_parts.write_judged``
    counts: Sequence[Count]  # of all rows: of ``log_rows.count``
    homes: Homes  # the days that rejected rows are counted in: of ``quarantine.homes``


@dataclass(frozen=True)
class Day:
    """One curated day as it will be."""

    day: date
    old: Manifest | None
    contributions: dict[str, Contribution]
    fresh: frozenset[str] = field(default_factory=frozenset)

    @property
    def primary(self) -> str:
        """The source whose file is published as it is."""
        return min(self.contributions, key=lambda name: (name != f"{PARTITION}={self.day}", name != FIRST_LOAD, name))

    @property
    def known_files(self) -> set[str]:
        """Files that the last publication left in the folder."""
        if self.old is None:
            return set()
        return {each["file"] for each in self.old.facts[curated.CONTRIBUTIONS].values()} | set(self.old.facts[curated.FILES])


def publish(connection: Backend, settings: Settings, log: LogSchema, intake: Intake, aside: Path) -> list[dict[str, Any]]:
    """Merge the accepted rows into their curated days, audit these, and publish them.

    Args:
        connection: to merge by.
        settings: of the installation.
        log: which log.
        intake: what was read of it.
        aside: folder of the parts, and of those that merging adds.

    Returns:
        ``{"dt", "digest", "rows", "changed"}`` of every day that is published, sorted; a day that is withdrawn is none.

    Raises:
        AuditError: the rows fail the suite; nothing is published, nothing withdrawn.
    """
    days = _affected_days(settings, log, intake)
    kept = [day for day in days if day.contributions]
    summaries: list[dict[str, Any]] = []
    if kept:
        paths = {(part.source, part.day): part.path for part in intake.parts}
        single = {part.day: MergedDay(part.day, part.measures, _late_rows(part), None) for part in intake.parts}
        several = [day for day in kept if len(day.contributions) > 1 or not day.fresh]
        merged = single | {each.day: each for each in _merged(connection, settings, log, several, paths, aside)}
        metrics = [_metrics(day, merged[day.day]) for day in kept]
        verdict = _audit(settings, log, metrics, f"{log.dataset}-{kept[0].day}-{kept[-1].day}")
        for day, row in zip(kept, metrics, strict=True):
            extra = _upload(settings, log, day, merged[day.day].extra, paths)
            summaries.append(_publish_day(settings, log, day, row, extra, verdict))
    for day in days:
        if not day.contributions:
            _withdraw(settings, log, day)
    return summaries


def summaries(settings: Settings, log: LogSchema, days: Iterable[date]) -> list[dict[str, Any]]:
    """What is published for some days, unchanged."""
    found = (curated.partition(settings, log, day) for day in days)
    return [_summary(each.facts[PARTITION], each.digest, each.rows["accepted"], changed=False) for each in found if each is not None]


def _summary(dt: str, digest: str, rows: int, *, changed: bool) -> dict[str, Any]:
    return {PARTITION: dt, "digest": digest, "rows": rows, "changed": changed}


def _part_name(measures: Measures) -> str:
    return f"part-{manifest.digest_of(measures.rows, str(measures.hash_sum))[:12]}.parquet"


def _affected_days(settings: Settings, log: LogSchema, intake: Intake) -> list[Day]:
    """Every day that the sources contribute to now, or did before, with all its contributions."""
    digests = {source.name: receipt.digest(settings, log, source) for source in intake.sources}
    fresh: dict[date, dict[str, Contribution]] = {}
    quarantined: Counter[tuple[str, date]] = Counter()
    for each in intake.counts:
        if each.reason is not None:
            quarantined[each.source, intake.homes[each.source, each.day]] += each.rows
    for part in intake.parts:
        name = _part_name(part.measures)
        fresh.setdefault(part.day, {})[part.source] = Contribution(
            name, part.measures.rows, part.arrived, quarantined[part.source, part.day], digests[part.source]
        )
    return [
        _merged_day(settings, log, day, fresh.get(day, {}), set(digests), intake.span)
        for day in sorted(fresh.keys() | _former_days(settings, log, intake))
    ]


def _former_days(settings: Settings, log: LogSchema, intake: Intake) -> set[date]:
    """Days that the sources contributed to when they were read last."""
    found: set[date] = set()
    for source in intake.sources:
        if source.day is None:
            found.update(curated.days(settings, log, *intake.span))
        elif (old := receipt.read_daily(settings, log, source.day)) is not None:
            found.update(receipt.days(old))
    return found


def _merged_day(
    settings: Settings, log: LogSchema, day: date, fresh: dict[str, Contribution], read: set[str], span: tuple[date, date]
) -> Day:
    old = curated.partition(settings, log, day)
    kept = {name: Contribution(**fields) for name, fields in old.facts[curated.CONTRIBUTIONS].items()} if old else {}
    for name in read:
        if name != FIRST_LOAD or span[0] <= day <= span[1]:
            kept.pop(name, None)
    return Day(day, old, kept | fresh, frozenset(fresh))


def _merged(
    connection: Backend,
    settings: Settings,
    log: LogSchema,
    days: Sequence[Day],
    paths: Mapping[tuple[str, date], Path],
    aside: Path,
) -> Iterator[MergedDay]:
    """The distinct rows of days of several contributions: read from their files, those of this run from where they lie aside."""
    if not days:
        return
    origins: list[tuple[str, str, date]] = []
    for day in days:
        published = curated.partition_uri(settings, log, day.day)
        for name, each in day.contributions.items():
            uri = str(paths[name, day.day]) if name in day.fresh else storage.join(published, each.file)
            origins.append((uri, name, day.day))
    rows = log_rows.curated_rows(connection, log, origins)
    primary = {(day.day, day.primary) for day in days}
    is_primary = ibis.or_(*((rows[DAY] == day) & (rows[SOURCE] == name) for day, name in primary))
    is_late = (rows[SOURCE] != FIRST_LOAD) & (rows[SOURCE] != ibis.literal(f"{PARTITION}=") + rows[DAY].cast("string"))
    marked = rows.mutate(**{day_parts.PRIMARY: is_primary, day_parts.LATE: is_late})
    yield from day_parts.merge(marked.order_by([DAY, *log_rows.total_order(log, curated.schema(log).names)]), log, aside)


def _late_rows(part: Part) -> int:
    return 0 if part.source in (FIRST_LOAD, f"{PARTITION}={part.day}") else part.measures.rows


def _metrics(day: Day, merged: MergedDay) -> dict[str, Any]:
    return merged.measures.row() | {"late": merged.late} | _accounts(day, merged.measures.rows)


def _accounts(day: Day, accepted: int) -> dict[str, Any]:
    arrived = sum(each.arrived for each in day.contributions.values())
    quarantined = sum(each.quarantined for each in day.contributions.values())
    return {PARTITION: str(day.day), "read": arrived + quarantined, "quarantined": quarantined, "duplicates": arrived - accepted}


def _audit(settings: Settings, log: LogSchema, metrics: Sequence[dict[str, Any]], name: str) -> Verdict:
    from expectations import log_partition

    frame = pd.DataFrame([{column: row[column] for column in log_partition.COLUMNS} for row in metrics])
    return audit.judge(frame, log_partition.suite(log), name, settings)


def _upload(settings: Settings, log: LogSchema, day: Day, extra: Part | None, paths: Mapping[tuple[str, date], Path]) -> str | None:
    """Put files named by their content beside the published ones; no manifest names them yet. Returns the name of the extra one."""
    files = {day.contributions[name].file: paths[name, day.day] for name in day.fresh}
    extra_name = None if extra is None else _part_name(extra.measures)
    if extra is not None and extra_name is not None:
        files[extra_name] = extra.path
    for name in files.keys() - day.known_files:
        storage.upload(files[name], storage.join(curated.partition_uri(settings, log, day.day), name))
    return extra_name


def _publish_day(
    settings: Settings, log: LogSchema, day: Day, metrics: dict[str, Any], extra: str | None, verdict: Verdict
) -> dict[str, Any]:
    """Write the manifest, last of all; then remove what it no longer names."""
    published = Manifest(
        kind="curated",
        uri=curated.partition_uri(settings, log, day.day),
        digest=manifest.digest_of(log.dataset, str(day.day), metrics["accepted"], str(metrics["hash_sum"])),
        rows={name: metrics[name] for name in ("read", "accepted", "quarantined", "duplicates", "late")},
        inputs={name: each.source_digest for name, each in sorted(day.contributions.items())},
        config=receipt.rules(settings, log),
        created_at=manifest.now(),
        facts={
            "dataset": log.dataset,
            PARTITION: metrics[PARTITION],
            "min_time": metrics["min_time"].isoformat(),
            "max_time": metrics["max_time"].isoformat(),
            "engine": engine.NAME,
            "verdict": verdict.as_fact(),
            curated.FILES: list(dict.fromkeys([day.contributions[day.primary].file, *([extra] if extra else [])])),
            curated.CONTRIBUTIONS: {name: asdict(each) for name, each in day.contributions.items()},
        },
    )
    manifest.write(published)
    named = {*published.facts[curated.FILES], *(each.file for each in day.contributions.values()), manifest.MANIFEST}
    for name in storage.list_names(published.uri):
        if name not in named:
            storage.remove(storage.join(published.uri, name))
    changed = day.old is None or day.old.digest != published.digest
    return _summary(metrics[PARTITION], published.digest, metrics["accepted"], changed=changed)


def _withdraw(settings: Settings, log: LogSchema, day: Day) -> None:
    """Unpublish a day that no source contributes to any longer: its manifest goes first."""
    uri = curated.partition_uri(settings, log, day.day)
    _log.warning("%s %s: no source has rows of this day any longer; it is withdrawn", log.dataset, day.day)
    storage.remove(storage.join(uri, manifest.MANIFEST))
    storage.remove(uri)
