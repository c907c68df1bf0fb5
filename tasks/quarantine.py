"""Rejected rows, kept whole with the reason, the file and the position in it."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import date

import ibis
from ibis.expr.types import Table

from mfn_core.schema import EVENT_TIME, PARTITION, USERS, LogSchema
from tasks import engine, log_rows, parts, storage
from tasks.log_rows import Count
from tasks.raw import FIRST_LOAD, Source
from tasks.settings import Settings

ROW_NUMBER = "_row_number"
_HOME, _SOURCE = "/home", "/source"  # tell the files apart and are in none of them: unlike names that a delivery may have
# What stands beside the columns of a raw row, while it is read or where it is kept.
MARKS = (engine.FILE, engine.ROW_NUMBER, engine.PATH, log_rows.REASON, ROW_NUMBER, _HOME, _SOURCE)
Homes = dict[tuple[str, date | None], date]


def log_uri(settings: Settings, log: LogSchema) -> str:
    """Folder of the rejected rows of a log."""
    return storage.join(settings.store, "quarantine", log.dataset)


def users_uri(settings: Settings) -> str:
    """Folder of the rejected rows of the users table."""
    return storage.join(settings.store, "quarantine", USERS)


def homes(counts: Iterable[Count], sources: Sequence[Source], span: tuple[date, date]) -> Homes:
    """The day under which the rejected rows of a source and day are kept and counted.

    For a daily folder that is its own day. For a first load it is the day of the event, or the nearest day before it that
    has accepted rows (else the first that has), so that every row read is counted in the manifest of a curated day.
    """
    counts = list(counts)
    accepted = sorted({each.day for each in counts if each.source == FIRST_LOAD and each.reason is None and each.day is not None})
    own_day = {source.name: source.day for source in sources}
    found: Homes = {}
    for each in counts:
        if each.reason is not None:
            found[each.source, each.day] = own_day[each.source] or _nearest(accepted, each.day, span)
    return found


def write(
    settings: Settings,
    log: LogSchema,
    groups: Sequence[tuple[Table, Table]],
    sources: Sequence[Source],
    homes: Homes,
    span: tuple[date, date],
) -> None:
    """Replace the quarantine of the sources.

    Args:
        settings: of the installation.
        log: which log.
        groups: for every raw schema the whole rows, and the typed rows with their verdict.
        sources: that were read.
        homes: of ``homes``.
        span: the days that were read.
    """
    written: set[str] = set()
    if homes:
        for number, (whole, verdicts) in enumerate(groups):
            rejected = _rejected(whole, verdicts, homes)
            for (home, source), path in parts.write_by_keys(rejected, [_HOME, _SOURCE], None, settings.scratch):
                uri = storage.join(log_uri(settings, log), f"{PARTITION}={home}", f"{_prefix(source)}{number}.parquet")
                storage.upload(path, uri)
                written.add(uri)
    _remove_stale(settings, log, sources, span, written)


def example(verdicts: Iterable[Table], source: str) -> str:
    """Where the first rejected row of a source is, and what it holds."""
    for rows in verdicts:
        rejected = rows.filter((rows[log_rows.SOURCE] == source) & (rows[log_rows.REASON] != ""))
        # As text: milliseconds that were taken for seconds are of the year 58384, which is no time of Python's.
        rejected = rejected.mutate(**{EVENT_TIME: rejected[EVENT_TIME].cast("string")})
        for row in rejected.order_by([engine.PATH, engine.ROW_NUMBER]).limit(1).to_pyarrow().to_pylist():
            origin = (engine.FILE, engine.ROW_NUMBER)
            values = ", ".join(f"{name}={value}" for name, value in row.items() if not name.startswith("_") and name not in origin)
            return f"{row[engine.PATH]} row {row[engine.ROW_NUMBER]}: {row[log_rows.REASON]} ({values})"
    raise AssertionError(f"no row of {source} is rejected")


def _nearest(accepted: list[date], day: date | None, span: tuple[date, date]) -> date:
    if not accepted:
        return day or span[0]
    return accepted[max(bisect_right(accepted, day) - 1, 0)] if day else accepted[0]


def _prefix(source: str) -> str:
    return f"part-{FIRST_LOAD if source == FIRST_LOAD else 'daily'}-"


def _rejected(whole: Table, verdicts: Table, homes: Homes) -> Table:
    rejected = verdicts.filter(verdicts[log_rows.REASON].notnull())
    columns = {log_rows.SOURCE: "string", "_key": "string", _HOME: "date"}
    rows = [{log_rows.SOURCE: source, "_key": str(day or ""), _HOME: home} for (source, day), home in homes.items()]
    keyed = rejected.mutate(_key=rejected[log_rows.DAY].cast("string").fill_null(""))
    placed = keyed.join(ibis.memtable(rows, schema=ibis.schema(columns)), [log_rows.SOURCE, "_key"])
    marks = placed.rename({_SOURCE: log_rows.SOURCE}).select(*(name for name in MARKS if name != ROW_NUMBER))
    joined = whole.join(marks, [engine.FILE, engine.ROW_NUMBER]).drop(engine.FILE).rename({ROW_NUMBER: engine.ROW_NUMBER})
    return joined.order_by([_HOME, _SOURCE, engine.PATH, ROW_NUMBER])


def _remove_stale(settings: Settings, log: LogSchema, sources: Sequence[Source], span: tuple[date, date], written: set[str]) -> None:
    root = log_uri(settings, log)
    prefixes = {source.name: [_prefix(source.name)] for source in sources if source.day is not None}
    if any(source.name == FIRST_LOAD for source in sources):
        for name in storage.list_names(root):
            if span[0] <= date.fromisoformat(name.removeprefix(f"{PARTITION}=")) <= span[1]:
                prefixes.setdefault(name, []).append(_prefix(FIRST_LOAD))
    for name, stale in prefixes.items():
        folder = storage.join(root, name)
        for file in storage.list_names(folder):
            uri = storage.join(folder, file)
            if file.startswith(tuple(stale)) and uri not in written:
                storage.remove(uri)
