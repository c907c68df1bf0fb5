"""The Ibis expressions of ingest: raw files into typed rows, each with its day or the reason to reject it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import BooleanValue, StringValue, Table

from mfn_core.schema import EVENT_TIME, EVENT_TYPE, SEQ_NO, USER_ID, LogSchema
from tasks import curated, engine
from tasks.raw import FIRST_LOAD, Footer, Source, group_by_schema

SOURCE = "_source"
SOURCE_DAY = "_source_day"
DAY = "_day"
REASON = "_reason"
COPIES = "_copies"
ROW_HASH = "_row_hash"
HASH_SUM = "decimal(38, 0)"
_INSTANT = "timestamp('UTC', 6)"


@dataclass(frozen=True)
class RawRows:
    """The rows of files of one schema: whole, and typed by the contract."""

    whole: Table
    typed: Table


def raw_rows(
    connection: Backend, log: LogSchema, mapping: Mapping[str, str], sources: Sequence[Source], footers: Sequence[Footer]
) -> list[RawRows]:
    """The rows of the sources, one table for every schema that their files have."""
    source_of = {uri: source for source in sources for uri in source.uris}
    found: list[RawRows] = []
    for group in group_by_schema(footers):
        uris = [footer.uri for footer in group]
        whole = engine.read_parquet(connection, uris, with_origin=True)
        origins = _origins([(uri, source_of[uri].name, source_of[uri].day) for uri in uris])
        found.append(RawRows(whole, _typed(whole, log, mapping).join(origins, engine.FILE)))
    return found


def with_verdict(rows: Table, log: LogSchema, now: datetime, late_rows: str) -> Table:
    """Add to typed rows the day they belong to (null without a usable time) and the reason to reject them (null: accepted)."""
    usable = rows[EVENT_TIME] <= ibis.literal(now).cast(_INSTANT)
    day = ibis.ifelse(usable.fill_null(False), rows[EVENT_TIME].date(), ibis.null("date"))
    rules: list[tuple[BooleanValue, StringValue]] = []
    for name in (USER_ID, log.id, log.category):
        rules += [(rows[name].isnull(), ibis.literal(f"{name} is null")), (rows[name] == "", ibis.literal(f"{name} is empty"))]
    rules.append((rows[EVENT_TIME].isnull(), ibis.literal(f"{EVENT_TIME} is null")))
    rules.append((~usable, ibis.literal(f"{EVENT_TIME} is in the future")))
    if late_rows == "quarantine":
        rules.append((day != rows[SOURCE_DAY], ibis.literal(f"{EVENT_TIME} is on another day than its folder")))
    return rows.mutate(**{DAY: day, REASON: ibis.cases(*rules)})


def rows_by_day(rows: Sequence[Table]) -> dict[date, int]:
    """Rows of every day; those without a usable time count to the first day. Empty where no row has a usable time."""
    counted = Counter[date | None]()
    for table in rows:
        for row in table.group_by(day=table[DAY]).agg(rows=table.count()).to_pyarrow().to_pylist():
            counted[row["day"]] += row["rows"]
    timeless = counted.pop(None, 0)
    days = {day: number for day, number in counted.items() if day is not None}
    if days:
        days[min(days)] += timeless
    return days


def reach_of_first_load(rows: Sequence[Table]) -> tuple[date, date] | None:
    """First and last day of a first load; None where no row has a usable time."""
    loads = [table.filter(table[SOURCE] == FIRST_LOAD) for table in rows]
    found = [load.agg(first=load[DAY].min(), last=load[DAY].max()).to_pyarrow().to_pylist()[0] for load in loads]
    known = [each for each in found if each["first"] is not None]
    return (min(each["first"] for each in known), max(each["last"] for each in known)) if known else None


def in_range(rows: Table, reach: tuple[date, date] | None, first_day: date, last_day: date) -> Table:
    """The rows of daily folders, and those of a first load within the days.

    A row without a usable time counts to the first day that the first load reaches, so that exactly one range reads it.
    """
    if reach is None:
        return rows
    day = ibis.coalesce(rows[DAY], ibis.literal(reach[0]))
    return rows.filter((rows[SOURCE] != FIRST_LOAD) | day.between(first_day, last_day))


def distinct(rows: Table, log: LogSchema) -> Table:
    """Equal rows of one source as one, with their number and hash."""
    names = curated.schema(log).names
    grouped = rows.group_by([SOURCE, DAY, REASON, *names]).agg(**{COPIES: rows.count()})
    return grouped.mutate(**{ROW_HASH: engine.row_hash(grouped, names)})


@dataclass(frozen=True)
class Count:
    """Rows of one source, day and verdict."""

    source: str
    day: date | None
    reason: str | None
    rows: int
    distinct: int
    hash_sum: int


def count(staged: Table) -> list[Count]:
    """Count distinct rows, and what they stand for, by source, day and verdict."""
    grouped = staged.group_by(source=staged[SOURCE], day=staged[DAY], reason=staged[REASON]).agg(
        rows=staged[COPIES].sum().cast("int64"), distinct=staged.count(), hash_sum=staged[ROW_HASH].cast(HASH_SUM).sum()
    )
    return [Count(**{**row, "hash_sum": int(row["hash_sum"])}) for row in grouped.to_pyarrow().to_pylist()]


def curated_rows(connection: Backend, log: LogSchema, origins: Sequence[tuple[str, str, date]]) -> Table:
    """The rows of curated files, given as (URI, source, day)."""
    rows = engine.read_parquet(connection, [uri for uri, _, _ in origins], with_origin=True)
    rows = rows.join(_origins(origins), engine.FILE).rename({DAY: SOURCE_DAY})
    names = curated.schema(log).names
    return rows.select(SOURCE, DAY, *names).mutate(**{ROW_HASH: engine.row_hash(rows, names)})


def _origins(rows: Sequence[tuple[str, str, date | None]]) -> Table:
    columns = {engine.FILE: "string", SOURCE: "string", SOURCE_DAY: "date"}
    return ibis.memtable([dict(zip(columns, row, strict=True)) for row in rows], schema=ibis.schema(columns))


def _typed(whole: Table, log: LogSchema, mapping: Mapping[str, str]) -> Table:
    kinds = {USER_ID: "string", log.id: "string", log.category: "string", EVENT_TIME: _INSTANT}
    kinds |= {SEQ_NO: "int64", EVENT_TYPE: "string", log.duration: "float64"}
    columns = {}
    for name, kind in kinds.items():
        source = mapping.get(name, name)
        columns[name] = whole[source].cast(kind) if source in whole.columns else ibis.null(kind)
    columns[SEQ_NO] = columns[SEQ_NO].fill_null(0)
    return whole.select(engine.FILE, engine.ROW_NUMBER, **columns)
