"""What a run is to do, computed from the manifests that are there: what woke the run only says when to look."""

import logging
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from mfn_core.errors import ConfigError, InsufficientDataError
from tasks import curated, manifest, storage
from tasks.dag_configs import TrainConfig, ValidateConfig
from tasks.empty_days import days_between
from tasks.settings import Settings
from tasks.tracking import registry
from tasks.validated import Published, days_to_validate, is_any_validated, is_refused, is_validated, named, published_days, validated_uri

# What names the run, not the model: the days come in by their partitions.
_NOT_FINGERPRINTED = {"force", "first_day", "last_day"}

_log = logging.getLogger(__name__)


def plan_validation(settings: Settings, config: ValidateConfig, partition_day: date | None) -> dict[str, list[str]]:
    """The days to validate.

    Args:
        settings: this installation.
        config: of the DAG run.
        partition_day: the day whose logs woke the run; None for a manual run.

    Returns:
        ``days``, ``others`` and ``late``, ISO. ``days`` are those that the run is for: of a manual run, every day of its range that is not
        validated as it stands, else the partition's day. ``others`` it takes along: every day that was validated once and has changed
        since, as by late rows, and every earlier day without a verdict as it stands, which may have come in with a first load or while
        no run could judge it. A day that was refused as it stands waits until it changes or for a manual run: nothing else is to be
        expected of it. ``late`` are the others that nobody has announced as validated. At a first load there are none, so that it fires
        no training for each of its weeks, unless its logs end before the day's week does: then the week before is the last complete one.

    Raises:
        ConfigError: days are to be accepted without one of their logs, and it is not said which.
    """
    if config.accept_missing_log and (config.first_day is None or config.first_day != config.last_day):
        raise ConfigError(
            f"accept_missing_log is for one day at a time: first_day={config.first_day}, last_day={config.last_day}; give the day that "
            "lacks a log as both, or switch it off"
        )
    waiting = days_to_validate(settings, config)
    if partition_day is None or config.first_day or config.last_day:
        return {"days": [str(day) for day in waiting], "others": [], "late": []}
    others = [day for day in waiting if day < partition_day or (day > partition_day and storage.exists(validated_uri(settings, day)))]
    if others:
        published = published_days(settings, others[0], others[-1])
        others = [day for day in others if not is_refused(settings, published, day)]
    own_week_follows = not is_any_validated(settings) and _all_logs_reach_sunday(settings, partition_day)
    late = [] if own_week_follows else [day for day in others if not storage.exists(validated_uri(settings, day))]
    return {"days": [str(partition_day)], "others": [str(day) for day in others], "late": [str(day) for day in late]}


def _all_logs_reach_sunday(settings: Settings, day: date) -> bool:
    """Whether the day's calendar week is complete in every log, so that the runs for its days announce a whole week."""
    return all(published_days(settings, day + timedelta(days=6 - day.weekday()), None).values())


def plan_training(settings: Settings, config: TrainConfig) -> dict[str, Any]:
    """``plan_learning``, for the network of the form.

    Raises:
        ConfigError: the network cannot be built.
        InsufficientDataError: no day of the range is validated, or one before the last validated day is not.
    """
    config.check()
    return plan_learning(settings, config)


def plan_learning(settings: Settings, config: TrainConfig) -> dict[str, Any]:
    """Fingerprint the validated partitions, the users table, the config and the code, whatever is to learn from them.

    Returns:
        ``fingerprint, days`` (first and last, ISO), ``inputs`` (digest of partitions and users table), ``partitions`` (count by view) and
        ``skip``: None, or why there is nothing to do.

    Raises:
        InsufficientDataError: no day of the range is validated, or one before the last validated day is not.
    """
    partitions = published_days(settings, config.first_day, config.last_day)
    days = _validated_days(settings, config, partitions)
    chosen = {view: [found[day] for day in days if day in found] for view, found in partitions.items()}
    inputs = curated.content(chosen, curated.users(settings))
    fingerprint = manifest.digest_of(
        *inputs,
        config.model_dump(mode="json", exclude=_NOT_FINGERPRINTED),
        manifest.code_digest(),
        manifest.now() if config.force else None,
    )
    version = registry.find_version(settings, fingerprint)
    skip = f"already trained as version {version.number}: the same partitions, users, config and code" if version else None
    _log.info("%s to %s, fingerprint %s: %s", days[0], days[-1], fingerprint[:16], skip or "to be trained")
    return {
        "fingerprint": fingerprint,
        "days": [str(days[0]), str(days[-1])],
        "inputs": manifest.digest_of(*inputs),
        "partitions": {view: len(found) for view, found in chosen.items()},
        "skip": skip,
    }


def _validated_days(settings: Settings, config: TrainConfig, partitions: Published) -> list[date]:
    """The published days up to the last validated one; all of them must be validated."""
    published = sorted({day for found in partitions.values() for day in found})
    validated = {day for day in published if is_validated(settings, partitions, day)}
    if not validated:
        raise InsufficientDataError(
            f"none of the {len(published)} published days from {config.first_day or 'the first'} to {config.last_day or 'the last'} is "
            f"validated; ingest the logs and run mfn_validate, or widen first_day and last_day"
        )
    days = [day for day in published if day <= max(validated)]
    if unvalidated := [day for day in days if day not in validated]:
        raise InsufficientDataError(
            f"{len(unvalidated)} of {len(days)} days up to {days[-1]} are not validated as they stand: "
            f"{named(unvalidated)}; run mfn_validate for them, with accept_missing_log where a log is lost for good, or narrow first_day "
            "and last_day; then clear plan: no day starts this run again"
        )
    _tell_days_without_logs(days)
    if later := len(published) - len(days):
        _log.info("%d published days after %s are left for the next training: they are not validated yet", later, days[-1])
    return days


def _tell_days_without_logs(days: list[date]) -> None:
    """A day that no log has may be one that nobody used the app, or one whose export failed for all logs: only a reader can tell."""
    missing = [day for before, after in pairwise(days) for day in days_between(before, after)]
    if missing:
        _log.warning(
            "%d of the %d days from %s to %s have no log of any kind: %s; if there are logs of them, ingest them and train again",
            len(missing),
            len(missing) + len(days),
            days[0],
            days[-1],
            named(missing),
        )
