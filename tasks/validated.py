"""Which curated days are validated as they stand: read from the manifests, with no engine."""

import logging
from collections.abc import Iterable, Sequence
from datetime import date

from mfn_core.errors import ArtifactError, InsufficientDataError
from mfn_core.schema import LOGS, PARTITION, LogSchema, View
from tasks import curated, manifest, receipt, storage
from tasks.dag_configs import ValidateConfig
from tasks.manifest import Manifest
from tasks.settings import Settings

ACCEPTED = "accepted_without"  # of a verdict's facts: the logs that the day lacks, and a person knows it
_NAMED = 5

_log = logging.getLogger(__name__)

Published = dict[View, dict[date, Manifest]]


def days_to_validate(settings: Settings, config: ValidateConfig) -> list[date]:
    """The days of the config's range that are published and not validated as they stand.

    Raises:
        InsufficientDataError: the one day asked for is not published in every log.
    """
    published = published_days(settings, config.first_day, config.last_day)
    days = sorted({day for found in published.values() for day in found})
    if config.first_day is not None and config.first_day == config.last_day:
        days = [config.first_day]
    complete = [day for day in days if not _not_accepted(settings, config, published, day)]
    if len(complete) < len(days):
        left_out = [day for day in days if day not in complete]
        if len(days) == 1:
            check_published(settings, config, published, days)
        _log.warning(
            "%d days lack one of the logs and are left out: %s; where it is lost for good, trigger by hand for the day with "
            "accept_missing_log",
            len(left_out),
            named(left_out),
        )
    open_days = [day for day in complete if not is_validated(settings, published, day)]
    if not open_days:
        _log.info("nothing to do: all %d days that are published in every log are validated as they stand", len(complete))
    return open_days


def validated_uri(settings: Settings, day: date) -> str:
    """Folder of the verdict on a day."""
    return storage.join(settings.store, "validated", f"{PARTITION}={day}")


def is_any_validated(settings: Settings) -> bool:
    """Whether any day was ever validated: a deployment may do without."""
    return bool(storage.list_names(storage.join(settings.store, "validated")))


def refused_uri(settings: Settings, day: date) -> str:
    """Folder of the refusal of a day: apart from the verdicts, so that no reader takes it for a pass."""
    return storage.join(settings.store, "refused", f"{PARTITION}={day}")


def published_days(settings: Settings, first_day: date | None, last_day: date | None) -> Published:
    """The manifests of the curated days of a range, by view."""
    return {
        view: {date.fromisoformat(each.facts[PARTITION]): each for each in curated.partitions(settings, LOGS[view], first_day, last_day)}
        for view in settings.views
    }


def missing_logs(settings: Settings, published: Published, day: date) -> list[LogSchema]:
    """The logs that should have a day and have not, all of a day that none has. Days without rows are normal in a first load."""
    absent = [LOGS[view] for view, found in published.items() if day not in found]
    return absent if len(absent) == len(published) else [log for log in absent if receipt.is_expected(settings, log, day)]


def _not_accepted(settings: Settings, config: ValidateConfig, published: Published, day: date) -> list[LogSchema]:
    """The missing logs that no person has accepted to be missing."""
    missing = missing_logs(settings, published, day)
    return [] if missing and (config.accept_missing_log or _were_accepted(settings, day, missing)) else missing


def _were_accepted(settings: Settings, day: date, missing: Sequence[LogSchema]) -> bool:
    """Whether the day was judged without these logs: neither late rows of the other nor new limits must ask for it again."""
    try:
        accepted = manifest.read(validated_uri(settings, day)).facts.get(ACCEPTED, [])
    except ArtifactError:
        return False
    return {log.dataset for log in missing} <= set(accepted)


def check_published(settings: Settings, config: ValidateConfig, published: Published, days: Iterable[date]) -> None:
    """Refuse a day that a log lacks, unless a person has accepted that.

    Raises:
        InsufficientDataError: a day is not published in every log of the deployment.
    """
    for day in days:
        if missing := _not_accepted(settings, config, published, day):
            names = " and ".join(log.dataset for log in missing)
            raise InsufficientDataError(
                f"{curated.partition_uri(settings, missing[0], day)}: {day} is not published in {names}, expected in every log of "
                f"MFN_VIEWS={list(settings.views)}; ingest it, or take the view out of MFN_VIEWS if this deployment has one view only. "
                "Where the log of the day is lost for good, or nobody used it that day, trigger mfn_validate by hand for it with "
                "accept_missing_log"
            )


def digests(published: Published, day: date) -> dict[str, str]:
    """Digest of each log's day."""
    return {LOGS[view].dataset: found[day].digest for view, found in published.items() if day in found}


def is_validated(settings: Settings, published: Published, day: date) -> bool:
    """Whether the day was judged with these curated logs, under whatever limits: a wider one set by hand stays good."""
    return manifest.find(validated_uri(settings, day), manifest.digest_of(digests(published, day))) is not None


def validated_among(settings: Settings, days: Sequence[str]) -> list[str]:
    """Those of the days, ISO, that are validated as they stand."""
    if not days:
        return []
    published = published_days(settings, date.fromisoformat(min(days)), date.fromisoformat(max(days)))
    return [day for day in days if is_validated(settings, published, date.fromisoformat(day))]


def is_refused(settings: Settings, published: Published, day: date) -> bool:
    """Whether the day was refused with these curated logs, and not validated by wider limits since."""
    refusal = manifest.find(refused_uri(settings, day), manifest.digest_of(digests(published, day)))
    return refusal is not None and not is_validated(settings, published, day)


def named(things: Sequence[object]) -> str:
    """The first few, for a message."""
    return ", ".join(str(each) for each in things[:_NAMED]) + (" …" if len(things) > _NAMED else "")
