"""Raw sources, read by the engine: judged all at once, then sorted in groups that go side by side."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from mfn_core.schema import LogSchema
from tasks import day_parts, engine, log_rows, receipt
from tasks.day_parts import Part
from tasks.log_rows import RawRows
from tasks.raw import Footer, Source
from tasks.settings import Settings

_ROWS_PER_GROUP = 500_000  # a sort of few rows is a faster one, and two threads need more than one group; a source is never split

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
        loads = [self._judged(group) for group in groups if group.has_first_load]
        return log_rows.reach_of_first_load(loads) if loads else None

    def verdict(self, group: RawRows, reach: Days | None) -> Table:
        """The rows of the request's days, each with its day or the reason to reject it."""
        return log_rows.in_range(self._judged(group), reach, *self.span)

    def _judged(self, group: RawRows) -> Table:
        return log_rows.with_verdict(group.typed, self.log, self.now, self.settings.late_rows)


def write_parts(connection: Backend, request: Request, sources: Sequence[Source], reach: Days | None, folder: Path) -> list[Part]:
    """Sort the accepted rows of the sources and write a file for each source and day.

    Args:
        connection: of the engine.
        request: what is read.
        sources: of the request.
        reach: of ``Request.reach`` over all sources.
        folder: where the files are put.
    """

    def write(group: Sequence[Source]) -> list[Part]:
        with engine.beside(connection) as own:
            raw_rows = request.raw_rows(own, group)
            columns = frozenset().union(*(each.columns for each in raw_rows))
            rows = log_rows.accepted([request.verdict(each, reach) for each in raw_rows], request.log, columns)
            return list(day_parts.write_parts(rows, request.log, folder))

    with ThreadPoolExecutor(request.settings.duckdb_threads) as pool:
        return [part for found in pool.map(write, _groups(sources, request.footers)) for part in found]


def _groups(sources: Sequence[Source], footers: Sequence[Footer]) -> list[list[Source]]:
    rows = {footer.uri: footer.rows for footer in footers}
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
