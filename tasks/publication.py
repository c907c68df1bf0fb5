"""Curated days from what their sources contribute: merged, audited and published.

A curated day is the distinct union of its contributions: rows of its own daily folder, of a first load, and late rows of other
folders. Each contribution is a Parquet file of its own. The first in precedence is published as it is; what the others add
is published beside it as one more file, so that a late row never rewrites the day it belongs to.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import ibis
import pandas as pd
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from mfn_core.schema import EVENT_TIME, PARTITION, SEQ_NO, USER_ID, LogSchema
from tasks import audit, curated, engine, log_rows, manifest, parts, receipt, storage
from tasks.audit import Verdict
from tasks.log_rows import DAY, HASH_SUM, REASON, ROW_HASH, SOURCE, Count
from tasks.manifest import Manifest
from tasks.quarantine import Homes
from tasks.raw import FIRST_LOAD, Source
from tasks.settings import Settings

_AUDITED = (
    PARTITION,
    "read",
    "accepted",
    "quarantined",
    "duplicates",
    "late",
    "users",
    "entities",
    "categories",
    "null_keys",
    "equal_rows",
    "outside_day",
    "null_seq_no",
    "negative_durations",
)
_CONTRIBUTIONS = "contributions"
_PRIMARY = "_primary"
_LATE = "_late"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contribution:
    """What one source brings to one curated day."""

    file: str
    rows: int
    arrived: int
    quarantined: int
    source_digest: str


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
        return {each["file"] for each in self.old.facts[_CONTRIBUTIONS].values()} | set(self.old.facts[curated.FILES])


def publish(
    connection: Backend,
    settings: Settings,
    log: LogSchema,
    staged: Table,
    counts: Sequence[Count],
    sources: Sequence[Source],
    homes: Homes,
    span: tuple[date, date],
) -> list[dict[str, Any]]:
    """Merge the accepted rows into their curated days, audit these, and publish them.

    Args:
        connection: that holds ``staged``.
        settings: of the installation.
        log: which log.
        staged: of ``log_rows.distinct``.
        counts: of ``log_rows.count``.
        sources: that were read.
        homes: of ``quarantine.homes``.
        span: the days that were read.

    Returns:
        ``{"dt", "digest", "rows", "changed"}`` of every day that the sources contribute to, now or before.

    Raises:
        AuditError: the rows fail the suite; nothing is published.
    """
    days = _affected_days(settings, log, counts, sources, homes, span)
    kept = [day for day in days if day.contributions]
    summaries = [_withdraw(settings, log, day) for day in days if not day.contributions]
    if kept:
        merged = connection.create_table("merged", _merged(settings, log, connection, staged, kept), temp=True)
        metrics = _metrics(merged, log, kept)
        name = f"{log.dataset}-{kept[0].day}-{kept[-1].day}"
        verdict = _audit(settings, log, metrics, name)
        extras = {row[PARTITION]: _part_name(row["extra_rows"], row["extra_hash_sum"]) for row in metrics if row["extra_rows"]}
        _write_contributions(settings, log, staged, kept)
        _write_extras(settings, log, merged, kept, extras)
        for day, row in zip(kept, metrics, strict=True):
            summaries.append(_publish_day(settings, log, day, row, extras.get(row[PARTITION]), verdict))
    return sorted(summaries, key=lambda summary: summary["dt"])


def summaries(settings: Settings, log: LogSchema, days: Iterable[date]) -> list[dict[str, Any]]:
    """What is published for some days, unchanged."""
    found = (curated.partition(settings, log, day) for day in days)
    return [_summary(each.facts[PARTITION], each.digest, each.rows["accepted"], changed=False) for each in found if each is not None]


def _summary(dt: str, digest: str, rows: int, *, changed: bool) -> dict[str, Any]:
    return {"dt": dt, "digest": digest, "rows": rows, "changed": changed}


def _part_name(rows: int, hash_sum: int) -> str:
    return f"part-{manifest.digest_of(rows, str(hash_sum))[:12]}.parquet"


def _affected_days(
    settings: Settings, log: LogSchema, counts: Sequence[Count], sources: Sequence[Source], homes: Homes, span: tuple[date, date]
) -> list[Day]:
    """Every day that the sources contribute to now, or did before, with all its contributions."""
    digests = {source.name: receipt.digest(settings, log, source) for source in sources}
    fresh: dict[date, dict[str, Contribution]] = {}
    quarantined: Counter[tuple[str, date]] = Counter()
    for each in counts:
        if each.reason is not None:
            quarantined[each.source, homes[each.source, each.day]] += each.rows
    for each in counts:
        if each.reason is None:
            assert each.day is not None, "an accepted row has a day"
            name = _part_name(each.distinct, each.hash_sum)
            fresh.setdefault(each.day, {})[each.source] = Contribution(
                name, each.distinct, each.rows, quarantined[each.source, each.day], digests[each.source]
            )
    return [
        _merged_day(settings, log, day, fresh.get(day, {}), set(digests), span)
        for day in sorted(fresh.keys() | _former_days(settings, log, sources, span))
    ]


def _former_days(settings: Settings, log: LogSchema, sources: Sequence[Source], span: tuple[date, date]) -> set[date]:
    """Days that the sources contributed to when they were read last."""
    found: set[date] = set()
    for source in sources:
        if source.day is None:
            found.update(curated.days(settings, log, *span))
        elif (old := receipt.read_daily(settings, log, source.day)) is not None:
            found.update(receipt.days(old))
    return found


def _merged_day(
    settings: Settings, log: LogSchema, day: date, fresh: dict[str, Contribution], read: set[str], span: tuple[date, date]
) -> Day:
    old = curated.partition(settings, log, day)
    kept = {name: Contribution(**fields) for name, fields in old.facts[_CONTRIBUTIONS].items()} if old else {}
    for name in read:
        if name != FIRST_LOAD or span[0] <= day <= span[1]:
            kept.pop(name, None)
    return Day(day, old, kept | fresh, frozenset(fresh))


def _merged(settings: Settings, log: LogSchema, connection: Backend, staged: Table, days: Sequence[Day]) -> Table:
    """The distinct rows of the days, each with whether the primary contribution has it and whether it came late."""
    columns = [DAY, *curated.schema(log).names, ROW_HASH]
    rows = staged.filter(staged[REASON].isnull()).select(SOURCE, *columns)
    origins = [
        (storage.join(curated.partition_uri(settings, log, day.day), each.file), name, day.day)
        for day in days
        for name, each in day.contributions.items()
        if name not in day.fresh
    ]
    if origins:
        rows = rows.union(log_rows.curated_rows(connection, log, origins).select(rows.columns))
    primaries = ibis.memtable(
        [{DAY: day.day, "primary": day.primary, "several": len(day.contributions) > 1} for day in days],
        schema=ibis.schema({DAY: "date", "primary": "string", "several": "boolean"}),
    )
    rows = rows.join(primaries, DAY)
    is_late = (rows[SOURCE] != FIRST_LOAD) & (rows[SOURCE] != ibis.literal(f"{PARTITION}=") + rows[DAY].cast("string"))
    rows = rows.mutate(**{_PRIMARY: rows[SOURCE] == rows["primary"], _LATE: is_late})
    single = rows.filter(~rows["several"]).select(*columns, _PRIMARY, _LATE)
    if not any(len(day.contributions) > 1 for day in days):
        return single
    shared = rows.filter(rows["several"])
    return single.union(shared.group_by(columns).agg(**{_PRIMARY: shared[_PRIMARY].any(), _LATE: shared[_LATE].all()}))


def _metrics(merged: Table, log: LogSchema, days: Sequence[Day]) -> list[dict[str, Any]]:
    """One row per day, in the order of the days: computed by the engine in one pass, joined with what was counted."""
    keys = (USER_ID, log.id, log.category, EVENT_TIME)
    digest = merged[ROW_HASH].cast(HASH_SUM)
    grouped = merged.group_by(dt=merged[DAY]).agg(
        accepted=merged.count(),
        late=merged[_LATE].sum(),
        users=merged[USER_ID].nunique(),
        entities=merged[log.id].nunique(),
        categories=merged[log.category].nunique(),
        null_keys=ibis.or_(*(merged[name].isnull() for name in keys)).sum(),
        equal_rows=merged.count() - merged[ROW_HASH].nunique(),
        outside_day=(merged[EVENT_TIME].date() != merged[DAY]).sum(),
        null_seq_no=merged[SEQ_NO].isnull().sum(),
        negative_durations=(merged[log.duration] < 0).fill_null(False).sum(),
        min_time=merged[EVENT_TIME].min(),
        max_time=merged[EVENT_TIME].max(),
        hash_sum=digest.sum(),
        extra_rows=(~merged[_PRIMARY]).sum(),
        extra_hash_sum=digest.sum(where=~merged[_PRIMARY]),
    )
    by_day = {row["dt"]: row for row in grouped.to_pyarrow().to_pylist()}
    return [by_day[day.day] | _accounts(day, by_day[day.day]["accepted"]) for day in days]


def _accounts(day: Day, accepted: int) -> dict[str, Any]:
    arrived = sum(each.arrived for each in day.contributions.values())
    quarantined = sum(each.quarantined for each in day.contributions.values())
    return {PARTITION: str(day.day), "read": arrived + quarantined, "quarantined": quarantined, "duplicates": arrived - accepted}


def _audit(settings: Settings, log: LogSchema, metrics: Sequence[dict[str, Any]], name: str) -> Verdict:
    from expectations import log_partition

    frame = pd.DataFrame([{column: row[column] for column in _AUDITED} for row in metrics])
    return audit.judge(frame, log_partition.suite(log), name, settings)


def _write_contributions(settings: Settings, log: LogSchema, staged: Table, days: Sequence[Day]) -> None:
    wanted = [
        {DAY: day.day, SOURCE: name, "file": day.contributions[name].file}
        for day in days
        for name in day.fresh
        if day.contributions[name].file not in day.known_files
    ]
    if not wanted:
        return
    selection = ibis.memtable(wanted, schema=ibis.schema({DAY: "date", SOURCE: "string", "file": "string"}))
    rows = staged.filter(staged[REASON].isnull()).join(selection, [DAY, SOURCE])
    _write(settings, log, rows, [DAY, "file"])


def _write_extras(settings: Settings, log: LogSchema, merged: Table, days: Sequence[Day], extras: dict[str, str]) -> None:
    wanted = [
        {DAY: day.day, "file": extras[str(day.day)]}
        for day in days
        if str(day.day) in extras and extras[str(day.day)] not in day.known_files
    ]
    if wanted:
        selection = ibis.memtable(wanted, schema=ibis.schema({DAY: "date", "file": "string"}))
        _write(settings, log, merged.filter(~merged[_PRIMARY]).join(selection, DAY), [DAY, "file"])


def _write(settings: Settings, log: LogSchema, rows: Table, keys: list[str]) -> None:
    """Put files named by their content beside the published ones; no manifest names them yet."""
    schema = curated.schema(log)
    rest = [name for name in schema.names if name not in log.order]
    for (day, name), path in parts.write_parts(rows.order_by([*keys, *log.order, *rest]), keys, schema, settings.scratch):
        storage.upload(path, storage.join(curated.partition_uri(settings, log, day), name))


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
        config={"columns": receipt.column_mapping(settings, log), "late_rows": settings.late_rows},
        created_at=manifest.now(),
        facts={
            "dataset": log.dataset,
            PARTITION: metrics[PARTITION],
            "min_time": metrics["min_time"].isoformat(),
            "max_time": metrics["max_time"].isoformat(),
            "engine": engine.NAME,
            "verdict": verdict.as_fact(),
            curated.FILES: list(dict.fromkeys([day.contributions[day.primary].file, *([extra] if extra else [])])),
            _CONTRIBUTIONS: {name: asdict(each) for name, each in day.contributions.items()},
        },
    )
    manifest.write(published)
    named = {*published.facts[curated.FILES], *(each.file for each in day.contributions.values()), manifest.MANIFEST}
    for name in storage.list_names(published.uri):
        if name not in named:
            storage.remove(storage.join(published.uri, name))
    changed = day.old is None or day.old.digest != published.digest
    return _summary(metrics[PARTITION], published.digest, metrics["accepted"], changed=changed)


def _withdraw(settings: Settings, log: LogSchema, day: Day) -> dict[str, Any]:
    """Unpublish a day that no source contributes to any longer: its manifest goes first."""
    uri = curated.partition_uri(settings, log, day.day)
    logger.warning("%s %s: no source has rows of this day any longer; it is withdrawn", log.dataset, day.day)
    storage.remove(storage.join(uri, manifest.MANIFEST))
    storage.remove(uri)
    return _summary(str(day.day), "", 0, changed=day.old is not None)
