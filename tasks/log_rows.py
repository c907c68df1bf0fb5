"""The Ibis expressions of ingest: raw files into typed rows, each with its day or the reason to reject it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

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
ROW_HASH = "_row_hash"
HASH_SUM = "decimal(38, 0)"
_INSTANT = "timestamp('UTC', 6)"


@dataclass(frozen=True)
class RawRows:
    """The rows of files of one schema: whole, and typed by the contract."""

    whole: Table
    typed: Table  # with their file
    traced: Table  # with their source and its day too, which take a join
    columns: frozenset[str]  # contract columns that the files have
    sources: tuple[str, ...]  # of every file, by its number


def raw_rows(
    connection: Backend, log: LogSchema, mapping: Mapping[str, str], sources: Sequence[Source], footers: Sequence[Footer]
) -> list[RawRows]:
    """The rows of the sources, one table for every schema that their files have."""
    source_of = {uri: source for source in sources for uri in source.uris}
    found: list[RawRows] = []
    for group in group_by_schema(footers):
        uris = [footer.uri for footer in group]
        whole = engine.read_parquet(connection, uris, with_origin=True)
        typed = _typed(whole, log, mapping)
        traced = typed.join(_origins([(uri, source_of[uri].name, source_of[uri].day) for uri in uris]), engine.FILE)
        columns = frozenset(name for name in curated.schema(log).names if mapping.get(name, name) in group[0].schema.names)
        names = tuple(source_of[uri].name for uri in uris)
        found.append(RawRows(whole, typed, traced, columns, names))
    return found


def with_verdict(rows: Table, log: LogSchema, now: datetime, earliest_day: date, late_rows: str) -> Table:
    """Add to typed rows the day they belong to (null without a usable time) and the reason to reject them (null: accepted)."""
    is_early = rows[EVENT_TIME] < ibis.literal(datetime.combine(earliest_day, time(), UTC)).cast(_INSTANT)
    is_future = rows[EVENT_TIME] > ibis.literal(now).cast(_INSTANT)
    usable = ~(is_early | is_future)
    day = ibis.ifelse(usable.fill_null(False), engine.utc_day(rows[EVENT_TIME]), ibis.null("date"))
    rules: list[tuple[BooleanValue, StringValue]] = []
    for name in (USER_ID, log.id, log.category):
        rules += [(rows[name].isnull(), ibis.literal(f"{name} is null")), (rows[name] == "", ibis.literal(f"{name} is empty"))]
    rules.append((rows[EVENT_TIME].isnull(), ibis.literal(f"{EVENT_TIME} is null")))
    rules.append((is_early, ibis.literal(f"{EVENT_TIME} is before {earliest_day}")))
    rules.append((is_future, ibis.literal(f"{EVENT_TIME} is in the future")))
    if late_rows == "quarantine":
        rules.append((day != rows[SOURCE_DAY], ibis.literal(f"{EVENT_TIME} is on another day than its folder")))
    return rows.mutate(**{DAY: day, REASON: ibis.cases(*rules)})


@dataclass(frozen=True)
class Count:
    """Rows of one source, day and verdict."""

    source: str
    day: date | None
    reason: str | None
    rows: int


def count(rows: Sequence[Table]) -> list[Count]:
    """Count rows by source, day and verdict."""
    keys = {"source": SOURCE, "day": DAY, "reason": REASON}
    either = ibis.union(*(table.select(**keys) for table in rows))
    grouped = either.group_by(list(keys)).agg(rows=either.count())
    return [Count(**row) for row in grouped.to_pyarrow().to_pylist()]


def rows_by_day(rows: Sequence[Table]) -> dict[date, int]:
    """Rows of every day; those without a usable time count to the first day. Empty where no row has a usable time."""
    counted: Counter[date | None] = Counter()
    for each in count(rows):
        counted[each.day] += each.rows
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


def accepted(rows: Sequence[Table], log: LogSchema, columns: Collection[str]) -> Table:
    """The accepted rows with their hash, sorted by source, day and the order of the log: equal rows lie side by side.

    Only ``columns`` are carried through the sort: those that no file has are constants.
    """
    tables = [_hashed(table.filter(table[REASON].isnull()), log, [SOURCE, DAY], columns) for table in rows]
    return ibis.union(*tables).order_by(sort_keys(log, columns))


def judged(rows: Table, log: LogSchema, columns: Collection[str]) -> Table:
    """All rows in any order, each with its file, day, reason, ``columns`` and hash."""
    return _hashed(rows, log, [engine.FILE, DAY, REASON], columns)


def sort_keys(log: LogSchema, columns: Collection[str]) -> list[str]:
    """What the rows of several sources and days are sorted by."""
    return [SOURCE, DAY, *total_order(log, columns)]


def _hashed(rows: Table, log: LogSchema, marks: Sequence[str], columns: Collection[str]) -> Table:
    names = curated.schema(log).names
    return rows.select(*marks, *(name for name in names if name in columns), **{ROW_HASH: engine.row_hash(rows, names)})


def total_order(log: LogSchema, names: Collection[str]) -> list[str]:
    """What rows are sorted by: the order of the log, then whatever else tells rows apart."""
    rest = [name for name in curated.schema(log).names if name not in log.order]
    return [name for name in (*log.order, *rest) if name in names]


def curated_rows(connection: Backend, log: LogSchema, origins: Sequence[tuple[str, str, date]]) -> Table:
    """The rows of curated files, given as (URI, source, day), with their hash."""
    rows = engine.read_parquet(connection, [uri for uri, _, _ in origins], with_origin=True)
    rows = rows.join(_origins(origins), engine.FILE).rename({DAY: SOURCE_DAY})
    names = curated.schema(log).names
    return rows.select(SOURCE, DAY, *names, **{ROW_HASH: engine.row_hash(rows, names)})


def _origins(files: Sequence[tuple[str, str, date | None]]) -> Table:
    columns = {engine.FILE: "int64", engine.PATH: "string", SOURCE: "string", SOURCE_DAY: "date"}
    rows = [dict(zip(columns, (number, *origin), strict=True)) for number, origin in enumerate(files)]
    return ibis.memtable(rows, schema=ibis.schema(columns))


def _typed(whole: Table, log: LogSchema, mapping: Mapping[str, str]) -> Table:
    kinds = {USER_ID: "string", log.id: "string", log.category: "string", EVENT_TIME: _INSTANT}
    kinds |= {SEQ_NO: "int64", EVENT_TYPE: "string", log.duration: "float64"}
    columns = {}
    for name, kind in kinds.items():
        source = mapping.get(name, name)
        columns[name] = whole[source].cast(kind) if source in whole.columns else ibis.null(kind)
    columns[SEQ_NO] = columns[SEQ_NO].fill_null(0)
    return whole.select(engine.FILE, engine.ROW_NUMBER, **columns)
