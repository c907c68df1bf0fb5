"""The raw days that are new or changed, in chunks."""

import logging
from datetime import UTC, date, datetime, timedelta

from mfn_core.errors import PartitionNotReadyError, SchemaError
from mfn_core.schema import LogSchema
from tasks import curated, engine, ingest_sources, log_rows, raw, receipt, storage
from tasks.ingest_sources import Finished
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
    ingest_sources.check_request(settings, log, first_day, last_day)
    published = set(curated.days(settings, log))
    loaded, finished = _first_load_days(settings, log, first_day, last_day, published, now or datetime.now(UTC))
    folders = {day: raw.daily(settings, log, day) for day in raw.days(settings, log) if _within(day, first_day, last_day)}
    for day in folders:
        raw.check_flat(settings, log, day)
    arrived = {day: source for day, source in folders.items() if source is not None}
    _check_arrived(settings, log, first_day, last_day, set(arrived), set(loaded))
    wanted = sorted(day for day in arrived.keys() | loaded.keys() if _within(day, first_day, last_day))
    changed_folders = {day for day, source in arrived.items() if not ingest_sources.is_current(settings, log, source, published)}
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
        SchemaError: the name of a raw folder is no day.
    """
    ingest_sources.check_request(settings, log, day, day)
    changed = ingest_sources.changed_folders(settings, log, earliest_day, day - timedelta(days=1))
    _log.info("%s %s: %d days since %s are new or changed", log.dataset, day, len(changed), earliest_day)
    days = [str(source.day) for source in changed] + [str(day)]
    return [{"first_day": each, "last_day": each} for each in days]


def _first_load_days(
    settings: Settings, log: LogSchema, first_day: date | None, last_day: date | None, published: set[date], now: datetime
) -> tuple[dict[date, int], Finished]:
    """Rows of every day of a first load, with what of it is finished; its files are not opened where all the days asked for are."""
    source = raw.first_load(settings, log)
    if source is None:
        return {}, Finished(())
    finished = ingest_sources.finished_ranges(settings, log, source, published)
    former = {day: 0 for _, _, known in receipt.read_first_loads(settings, log, source.name) for day in receipt.days(known)}
    if first_day is not None and last_day is not None and finished.holds(first_day, last_day):
        return former, finished
    footers = ingest_sources.checked_footers(settings, log, [source])
    with engine.connect(settings) as connection, raw.corrupt_files_named(source.uris):
        groups = log_rows.raw_rows(connection, log, receipt.column_mapping(settings, log), [source], footers)
        judged = [log_rows.with_verdict(group.traced, log, now, settings.earliest_day, settings.late_rows) for group in groups]
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
