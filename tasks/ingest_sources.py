"""The raw sources of a log that are to be read, and the checks before one of their rows is."""

from dataclasses import dataclass
from datetime import date, timedelta

from mfn_core.errors import ConfigError, SchemaError
from mfn_core.schema import LogSchema
from tasks import curated, quarantine, raw, receipt
from tasks.raw import Footer, Source
from tasks.settings import Settings


@dataclass(frozen=True)
class Finished:
    """Ranges of days of a first load that are read, or that it does not reach."""

    ranges: tuple[tuple[date, date], ...]

    def holds(self, first_day: date, last_day: date) -> bool:
        """Whether one of the ranges holds all these days."""
        return any(first <= first_day and last_day <= last for first, last in self.ranges)


def check_request(settings: Settings, log: LogSchema, first_day: date | None, last_day: date | None) -> None:
    """Hold what is asked for against what the deployment has.

    Raises:
        ConfigError: the view is not deployed, a column mapping is misspelt, or the range is empty.
    """
    if log.view not in settings.views:
        raise ConfigError(
            f"{log.dataset} is the log of view {log.view}, which this deployment does not have: "
            f"MFN_VIEWS is {list(settings.views)}; add {log.view} to it, or leave {log.dataset} out"
        )
    raw.check_mapping(receipt.column_mapping(settings, log), (*log.required, *log.optional), _mapping_setting(log))
    if first_day is not None and last_day is not None and first_day > last_day:
        raise ConfigError(f"first_day={first_day} is after last_day={last_day}; exchange them")


def changed_sources(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[Source]:
    """The daily folders of these days that are new or changed, and a first load that is not finished with them."""
    found = changed_folders(settings, log, first_day, last_day)
    first_load = raw.first_load(settings, log)
    if first_load is not None:
        finished = finished_ranges(settings, log, first_load, set(curated.days(settings, log)))
        found += [] if finished.holds(first_day, last_day) else [first_load]
    return found


def changed_folders(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[Source]:
    """The daily folders of these days that are new or changed.

    Raises:
        SchemaError: the name of a folder is no day.
    """
    published = set(curated.days(settings, log))
    days = [day for day in raw.days(settings, log) if first_day <= day <= last_day]
    daily = [source for day in days if (source := raw.daily(settings, log, day)) is not None]
    return [source for source in daily if not is_current(settings, log, source, published)]


def finished_ranges(settings: Settings, log: LogSchema, source: Source, published: set[date]) -> Finished:
    """The days that a first load is finished with, as it stands."""
    digest = receipt.digest(settings, log, source)
    ranges: list[tuple[date, date]] = []
    for first, last, known in receipt.read_first_loads(settings, log, source.name):
        if known.digest == digest and published.issuperset(receipt.days(known)):
            start, end = receipt.reach(known)
            ranges += [(first, last), (date.min, start - timedelta(days=1)), (end + timedelta(days=1), date.max)]
    return Finished(tuple(ranges))


def unread_days(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[date]:
    """The days whose raw folder nobody has read before."""
    receipts = {day: receipt.read_daily(settings, log, day) for day in raw.days(settings, log) if first_day <= day <= last_day}
    # A receipt without a digest is of a run that died: see ``receipt.announce_daily``.
    return [day for day, known in receipts.items() if known is None or not known.digest]


def is_current(settings: Settings, log: LogSchema, source: Source, published: set[date]) -> bool:
    """Whether a daily folder was read as it stands, and the days of its rows are published."""
    assert source.day is not None, "of a daily folder"
    known = receipt.read_daily(settings, log, source.day)
    return known is not None and known.digest == receipt.digest(settings, log, source) and published.issuperset(receipt.days(known))


def checked_footers(settings: Settings, log: LogSchema, sources: list[Source]) -> list[Footer]:
    """The footers of all files of the sources, each held against the contract.

    Raises:
        SchemaError: a file breaks the contract, cannot be read, or a source has no rows.
        PartitionNotReadyError: a file is not finished.
    """
    footers = raw.footers([uri for source in sources for uri in source.uris])
    mapping, rules = receipt.column_mapping(settings, log), raw.log_rules(log)
    for footer in footers:
        raw.check_names([(name, footer.uri) for name in footer.schema.names], quarantine.MARKS)
        raw.check_columns(footer, mapping, rules, log.required, _mapping_setting(log))
    rows = {footer.uri: footer.rows for footer in footers}
    for source in sources:
        if not sum(rows[uri] for uri in source.uris):
            unused = ", or, where nobody used it that day, load the days before and after it: mfn_validate announces it with the next"
            raise SchemaError(
                f"{', '.join(source.uris)}: 0 rows, expected at least 1; deliver {log.dataset} {source.name} again with its rows"
                f"{unused if source.day else ''}"
            )
    return footers


def _mapping_setting(log: LogSchema) -> str:
    return "MFN_APP_LOG_COLUMNS" if log.view == "macro" else "MFN_ITEM_LOG_COLUMNS"
