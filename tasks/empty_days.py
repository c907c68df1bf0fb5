"""Days that no log has, between days that have one: nobody used the product, as on a holiday, or an export failed."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta

from mfn_core.errors import PartitionNotReadyError, SchemaError
from mfn_core.schema import LOGS
from tasks import curated, ingest_sources, raw
from tasks.raw import Source
from tasks.settings import Settings
from tasks.validated import named

_REACH = timedelta(days=14)  # the days within always hold the complete week before

_log = logging.getLogger(__name__)


def empty_days_before(settings: Settings, days: Sequence[str]) -> list[str]:
    """The days between each of some days and the published day before it: no log has them, and none will by itself.

    Whoever waits for all days of a week would wait for these for ever. Only a later day tells a day without use from one that is
    late: if it comes after all, it is judged and announced as every late day is. A day of whose own folder an ingest has refused the
    rows, or not read them yet, is none: it waits to be mended. Of a first load nobody can tell days without rows from a part not read.

    Args:
        settings: of the installation.
        days: that are announced; ISO.

    Returns:
        At most 13 days before each; ISO, sorted.
    """
    published = {day for view in settings.views for day in curated.days(settings, LOGS[view])}
    gaps: set[date] = set()
    for day in map(date.fromisoformat, days):
        before = max((each for each in published if each < day), default=day)
        gaps.update(days_between(max(before, day - _REACH), day))
    if not gaps:
        return []
    sources = [source for view in settings.views for source in ingest_sources.changed_folders(settings, LOGS[view], min(gaps), max(gaps))]
    empty = sorted(gaps - {source.day for source in sources if source.day in gaps and _may_have_rows(source)})
    if empty:
        _log.warning(
            "%d days that no log has are announced with the day after them: %s; if there are logs, ingest them", len(empty), named(empty)
        )
    return [str(day) for day in empty]


def days_between(before: date, after: date) -> list[date]:
    """The days after one and before another."""
    return [before + timedelta(days=count) for count in range(1, (after - before).days)]


def _may_have_rows(source: Source) -> bool:
    try:
        return any(footer.rows for footer in raw.footers(source.uris))
    except (SchemaError, PartitionNotReadyError):  # nobody can tell yet
        return True
