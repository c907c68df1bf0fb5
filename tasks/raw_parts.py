"""Raw sources, read and judged by the engine in groups that go side by side.

The rows of a group are sorted in memory, by numbers. A source of more rows than a group may have is sorted by the engine, which spills.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from mfn_core.errors import TransientError
from mfn_core.schema import LogSchema
from tasks import coding, curated, day_parts, engine, log_rows, parts, receipt
from tasks.day_parts import Part
from tasks.log_rows import Count, RawRows
from tasks.raw import FIRST_LOAD, Footer, Source
from tasks.settings import Settings

_ROWS_PER_GROUP = 500_000  # what is in memory of a thread, unless one source has more: a source is never split

Days = tuple[date, date]


@dataclass(frozen=True)
class Request:
    """What is read of a log, and how its rows are judged."""

    settings: Settings
    log: LogSchema
    footers: Sequence[Footer]
    span: Days
    now: datetime

    def raw_rows(self, connection: Backend, sources: Sequence[Source]) -> list[RawRows]:
        """The rows of some sources, one table for every schema that their files have."""
        uris = {uri for source in sources for uri in source.uris}
        mapping = receipt.column_mapping(self.settings, self.log)
        return log_rows.raw_rows(connection, self.log, mapping, sources, [each for each in self.footers if each.uri in uris])

    def reach(self, groups: Sequence[RawRows]) -> Days | None:
        """First and last day of a first load; None without one."""
        loads = [self._judged(group) for group in groups if FIRST_LOAD in group.sources]
        return log_rows.reach_of_first_load(loads) if loads else None

    def verdict(self, group: RawRows, reach: Days | None, *, is_traced: bool = True) -> Table:
        """The rows of the request's days, each with its day or the reason to reject it; by ``is_traced`` with its source too."""
        return log_rows.in_range(self._judged(group, is_traced=is_traced or reach is not None), reach, *self.span)

    def _judged(self, group: RawRows, *, is_traced: bool = True) -> Table:
        rows = group.traced if is_traced or self.settings.late_rows == "quarantine" else group.typed
        return log_rows.with_verdict(rows, self.log, self.now, self.settings.earliest_day, self.settings.late_rows)


def write_judged(
    connection: Backend, request: Request, sources: Sequence[Source], reach: Days | None, folder: Path
) -> tuple[list[Part], list[Count]]:
    """Judge the rows of the sources, and write the accepted ones, sorted, into a file for each source and day.

    Args:
        connection: of the engine.
        request: what is read.
        sources: of the request.
        reach: of ``Request.reach`` over all sources.
        folder: where the files are put.

    Returns:
        The files, and how many rows each source has by day and verdict.

    Raises:
        TransientError: a file changed while it was read.
    """
    rows = {footer.uri: footer.rows for footer in request.footers}

    def write(group: Sequence[Source]) -> tuple[list[Part], list[Count]]:
        is_small = sum(rows[uri] for source in group for uri in source.uris) <= _ROWS_PER_GROUP
        with engine.beside(connection) as own:
            return (_by_numbers if is_small else _by_engine)(request, request.raw_rows(own, group), reach, folder)

    with ThreadPoolExecutor(request.settings.duckdb_threads) as pool:
        found = list(pool.map(write, _groups(sources, rows)))
    return [part for parts, _ in found for part in parts], [count for _, counts in found for count in counts]


def _by_numbers(request: Request, raw_rows: Sequence[RawRows], reach: Days | None, folder: Path) -> tuple[list[Part], list[Count]]:
    log, columns = request.log, _columns(request.log, raw_rows)
    names = sorted({name for each in raw_rows for name in each.sources})
    tables: list[pa.Table] = []
    for each in raw_rows:
        rows = log_rows.judged(request.verdict(each, reach, is_traced=False), log, columns).to_pyarrow()
        number_of_file = np.array([names.index(name) for name in each.sources], np.int32)
        source = pa.DictionaryArray.from_arrays(number_of_file[rows[engine.FILE].to_numpy()], pa.array(names))
        tables.append(rows.drop_columns([engine.FILE]).append_column(log_rows.SOURCE, source))
    rows = pa.concat_tables(tables)
    is_accepted = rows[log_rows.REASON].is_null()
    accepted = rows.drop_columns([log_rows.REASON])
    counts: list[Count] = []
    if rows[log_rows.REASON].null_count < len(rows):
        accepted, rejected = accepted.filter(is_accepted), rows.filter(pc.invert(is_accepted))
        counts = _tally(rejected)
    if len(accepted) == 0:
        return [], counts
    ordered = coding.in_order(accepted, log_rows.sort_keys(log, columns))
    parts = list(day_parts.write_sorted([ordered], log, columns, folder))
    return parts, counts + [Count(part.source, part.day, None, part.arrived) for part in parts]


def _by_engine(request: Request, raw_rows: Sequence[RawRows], reach: Days | None, folder: Path) -> tuple[list[Part], list[Count]]:
    log, columns = request.log, _columns(request.log, raw_rows)
    verdicts = [request.verdict(each, reach) for each in raw_rows]
    counts = log_rows.count(verdicts)
    ordered = parts.batches(log_rows.accepted(verdicts, log, columns))
    written = list(day_parts.write_sorted(ordered, log, columns, folder))
    _check_unchanged(log, written, counts)
    return written, counts


def _check_unchanged(log: LogSchema, written: Sequence[Part], counts: Sequence[Count]) -> None:
    """The files were read twice: to judge their rows, and to sort the accepted ones."""
    judged = {(each.source, each.day): each.rows for each in counts if each.reason is None}
    sorted_ = {(part.source, part.day): part.arrived for part in written}
    for key in sorted(judged.keys() | sorted_.keys(), key=str):
        if judged.get(key) != sorted_.get(key):
            raise TransientError(
                f"{log.dataset} {key[0]}: {judged.get(key, 0)} rows of {key[1]} were accepted, {sorted_.get(key, 0)} found when they were "
                "read again; its files changed meanwhile: deliver them whole, the run will be retried"
            )


def _columns(log: LogSchema, raw_rows: Sequence[RawRows]) -> list[str]:
    """The columns of the contract that one of the files has: what none has is no part of any order."""
    return [name for name in curated.schema(log).names if any(name in each.columns for each in raw_rows)]


def _tally(rejected: pa.Table) -> list[Count]:
    keys = [log_rows.SOURCE, log_rows.DAY, log_rows.REASON]
    found = rejected.select(keys).group_by(keys).aggregate([([], "count_all")])
    return [Count(*(row[key] for key in keys), row["count_all"]) for row in found.to_pylist()]


def _groups(sources: Sequence[Source], rows: Mapping[str, int]) -> list[list[Source]]:
    groups: list[list[Source]] = []
    held = 0
    for source in sources:
        more = sum(rows[uri] for uri in source.uris)
        if not groups or held + more > _ROWS_PER_GROUP:
            groups.append([])
            held = 0
        groups[-1].append(source)
        held += more
    return groups
