"""Checks on curated days across both logs, against the days before them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.expr.types import Table
from numpy.typing import NDArray

from mfn_core.errors import ArtifactError, AuditError, InsufficientDataError
from mfn_core.schema import EVENT_TIME, LOGS, PARTITION, USER_ID, LogSchema, View
from tasks import audit, coding, curated, engine, manifest
from tasks.audit import Verdict
from tasks.dag_configs import ValidateConfig
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.validated import (
    ACCEPTED,
    Published,
    check_published,
    digests,
    is_refused,
    is_validated,
    missing_logs,
    named,
    published_days,
    refused_uri,
    validated_uri,
)

_DAY = "day"
_CATEGORIES_OF_MIN_ROWS = 10  # whose rows on the reference days must together be ``min_category_rows``
_NEVER = -1_000_000  # before any day that dates can name
_IDS_AT_ONCE = 2_000_000
_NOT_CHECKED = {"first_day", "last_day"}
_NOTHING_TO_JUDGE = Verdict("day", True, 0, (), (), "")

_log = logging.getLogger(__name__)


def validate_range(settings: Settings, days: Sequence[date], config: ValidateConfig) -> list[dict[str, Any]]:
    """Judge days in one pass: user overlap of the logs, and volume, categories and last event against the days before.

    A day without days before it is judged by what remains, and its manifest says so. Of a day that no log has, which a person accepts,
    nothing is judged. Days that are validated as they stand are not judged again. A day that has changed since is judged by the limits
    of then, unless the form says others: they may have been widened for it by hand.

    Args:
        settings: of the installation.
        days: to judge.
        config: limits.

    Returns:
        The manifest of every day, in the order of ``days``.

    Raises:
        InsufficientDataError: a day is not published in every log of the deployment.
        AuditError: a critical expectation failed; no day that is judged with it, or after, counts as validated. A day that was judged
            alone is marked as refused as it stands.
    """
    if not days:
        return []
    published = published_days(settings, min(days), max(days))
    check_published(settings, config, published, days)
    open_days = [day for day in sorted(set(days)) if not is_validated(settings, published, day)]
    empty = [day for day in open_days if not digests(published, day)]
    for day in empty:
        _write(settings, config, published, day, [], _NOTHING_TO_JUDGE)
    for limits, some in _by_limits(settings, config, [day for day in open_days if day not in empty]):
        known = published_days(settings, some[0] - timedelta(days=limits.reference_days), some[-1])
        _judge(settings, limits, _references(settings, known, some), some)
    if not open_days:
        _log.info("nothing to do: %d days are validated as they stand", len(days))
    return [manifest.read(validated_uri(settings, day)).model_dump(mode="json") for day in days]


def validate_apart(settings: Settings, days: Sequence[date], config: ValidateConfig) -> dict[str, Any]:
    """Judge days of which a bad one is to hold up no other: in one pass if none is, else by halves.

    The earlier half first: what is refused in it is not what the later one is compared with.

    Args:
        settings: of the installation.
        days: to judge.
        config: limits; see ``validate_range``.

    Returns:
        The number of ``days``.

    Raises:
        AuditError: some were refused, or are no longer published in every log; all others are validated.
    """
    if refusals := _refusals(settings, sorted(set(days)), config):
        said = "\n".join(refusals)
        raise AuditError(f"{len(refusals)} of {len(days)} days were refused or are not published, the others are validated:\n{said}")
    return {"days": len(days)}


def _refusals(settings: Settings, days: Sequence[date], config: ValidateConfig) -> list[str]:
    """What is wrong with the days that are refused, a message each."""
    try:
        validate_range(settings, days, config)
    except (AuditError, InsufficientDataError) as error:  # the latter of a day that was withdrawn since the plan
        if len(days) == 1:
            return [str(error)]
        half = len(days) // 2
        return _refusals(settings, days[:half], config) + _refusals(settings, days[half:], config)
    return []


def _references(settings: Settings, published: Published, days: Sequence[date]) -> Published:
    """The days to judge, and those that they are compared with: the days that are validated as they stand, where there are any.

    What is broken in a day that was refused, or that has changed since its verdict, would be the measure of the next, which would pass
    for it.
    """
    others = {day for found in published.values() for day in found} - set(days)
    validated = {day for day in others if is_validated(settings, published, day)}
    left_out = others - validated if validated else {day for day in others if is_refused(settings, published, day)}
    if left_out:
        _log.warning("%d days that are not validated as they stand are not compared with: %s", len(left_out), named(sorted(left_out)))
    return {view: {day: each for day, each in found.items() if day not in left_out} for view, found in published.items()}


def _by_limits(settings: Settings, config: ValidateConfig, days: Sequence[date]) -> list[tuple[ValidateConfig, list[date]]]:
    """The days by what they are to be judged by, still in order: a day is compared with days before it, which must have their verdict."""
    form = config.model_copy(update=dict.fromkeys(_NOT_CHECKED))
    limits = {day: _former_limits(settings, day) if form == ValidateConfig() else form for day in days}
    return [(each, list(some)) for each, some in groupby(days, key=limits.__getitem__)]


def _former_limits(settings: Settings, day: date) -> ValidateConfig:
    """Those of the verdict that the day has, be it of these rows or of former ones."""
    try:
        limits = manifest.read(validated_uri(settings, day)).config
    except ArtifactError:
        return ValidateConfig()
    return ValidateConfig(**{name: value for name, value in limits.items() if name in ValidateConfig.model_fields})


def _judge(settings: Settings, config: ValidateConfig, published: Published, days: list[date]) -> None:
    first_known = min(day for found in published.values() for day in found)
    files = {view: [uri for each in found.values() for uri in curated.part_uris(each)] for view, found in published.items()}
    with engine.connect(settings) as connection:
        logs = {view: engine.read_parquet(connection, uris) for view, uris in files.items() if uris}
        categories = {view: _categories(logs[view], LOGS[view], config.reference_days, days) for view in logs}
    overlap = _user_overlap(published, config.reference_days) if len(logs) > 1 else {}
    rows: dict[date, list[dict[str, Any]]] = {}
    for day in days:
        references = [day - timedelta(days=back) for back in range(1, config.reference_days + 1)]
        rows[day] = [
            _metrics(LOGS[view], day, found, references, categories[view][day], config.min_category_rows)
            | {"user_overlap": overlap.get(day)}
            for view, found in published.items()
            if day in found
        ]
    try:
        verdict = _audit(settings, config, [row for day in days for row in rows[day]], days)
    except AuditError as error:
        if len(days) == 1:  # of several, the verdict does not say for each what is wrong with it
            _write_refusal(settings, config, published, days[0], error)
        raise
    for day in days:
        _write(settings, config, published, day, rows[day], verdict)
    unreferenced = [day for day in days if day == first_known]
    if unreferenced:
        _log.info("%s has no days before it: volume, categories and last event are not compared", unreferenced[0])


def _metrics(
    log: LogSchema,
    day: date,
    found: dict[date, Manifest],
    references: Sequence[date],
    categories: "_Categories",
    min_category_rows: int,
) -> dict[str, Any]:
    before = [found[reference] for reference in references if reference in found]
    accepted, accepted_before, new = found[day].rows["accepted"], sum(each.rows["accepted"] for each in before), categories.new
    # Of categories that come a few times in all the reference days, many are new every day.
    needed_before = max(min_category_rows, categories.known * min_category_rows / _CATEGORIES_OF_MIN_ROWS)
    has_categories = accepted >= min_category_rows and accepted_before >= needed_before
    return {
        _DAY: f"{day} {log.dataset}",
        "rows": accepted,
        "volume_ratio": accepted / median(each.rows["accepted"] for each in before) if before else None,
        "new_category_share": sum(new.values()) / accepted if has_categories else None,
        "new_categories": named(list(new)) if has_categories else "",
        "silent_hours": _silent_hours(found[day]) - median(_silent_hours(each) for each in before) if before else None,
    }


def _silent_hours(partition: Manifest) -> float:
    end = datetime.combine(date.fromisoformat(partition.facts[PARTITION]), time(), UTC) + timedelta(days=1)
    return (end - datetime.fromisoformat(partition.facts["max_time"])) / timedelta(hours=1)


@dataclass(frozen=True)
class _Categories:
    """Of one day of a log."""

    new: dict[str, int]  # rows by category, of those that none of the reference days has; the largest first
    known: int  # categories of the reference days


def _categories(rows: Table, log: LogSchema, reference_days: int, days: Sequence[date]) -> dict[date, _Categories]:
    counted = rows.group_by(day=engine.utc_day(rows[EVENT_TIME]), category=rows[log.category]).agg(rows=rows.count())
    frame = counted.to_pandas().sort_values([_DAY, "category"], ignore_index=True)
    codes, times = pd.factorize(frame["category"])[0], pd.to_datetime(frame[_DAY])
    gap = times.groupby(codes).diff().dt.days
    is_new = (gap.isna() | (gap > reference_days)).to_numpy()
    found: dict[date, _Categories] = {}
    for day in days:
        first, start, stop = times.searchsorted([pd.Timestamp(day) + pd.Timedelta(days=step) for step in (-reference_days, 0, 1)])
        today = frame[start:stop][is_new[start:stop]].sort_values("rows", ascending=False, kind="stable")
        new = {category: int(number) for category, number in zip(today["category"], today["rows"], strict=True)}
        found[day] = _Categories(new, len(np.unique(codes[first:start])))
    return found


def _user_overlap(published: Published, reference_days: int) -> dict[date, float]:
    """Share of the users of the smaller log of a day whom the other log has seen that day or in the reference days.

    Both logs are read day after day; what is in memory is the users of some days, and of every user the id and the last day in either log.
    """
    known, shares = pa.array([], pa.string()), {}
    last_seen = {view: np.empty(0, np.int64) for view in published}
    for days in _users_of_days(published):
        found, known = coding.among(known, [ids for _, _, ids in days])
        last_seen = {view: _as_long_as(known, seen) for view, seen in last_seen.items()}
        for day, seen_that_day in groupby(zip(days, found, strict=True), key=lambda each: each[0][0]):
            today = day.toordinal()
            for (_, view, _), users_of_view in seen_that_day:
                last_seen[view][users_of_view] = today
            users = {view: np.flatnonzero(seen == today) for view, seen in last_seen.items()}
            smaller, other = sorted(published, key=lambda view: (len(users[view]), view))
            if len(users[smaller]):
                shares[day] = float((last_seen[other][users[smaller]] >= today - reference_days).mean())
    return shares


def _users_of_days(published: Published) -> Iterator[list[tuple[date, View, pa.Array]]]:
    """Whole days, in order, of some millions of ids together: distinct users of each row group."""
    held: list[tuple[date, View, pa.Array]] = []
    for day in sorted({day for found in published.values() for day in found}):
        for view, found in published.items():
            for rows in curated.row_groups(found[day], [USER_ID]) if day in found else ():
                held += [(day, view, chunk.dictionary) for chunk in rows[USER_ID].chunks]
        if sum(len(ids) for _, _, ids in held) >= _IDS_AT_ONCE:
            yield held
            held = []
    if held:
        yield held


def _as_long_as(users: pa.Array, last_seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those who are new have not been seen yet."""
    return np.append(last_seen, np.full(len(users) - len(last_seen), _NEVER))


def _audit(settings: Settings, config: ValidateConfig, rows: list[dict[str, Any]], days: list[date]) -> Verdict:
    from expectations import day as day_suite

    frame = pd.DataFrame(rows).astype(dict.fromkeys(("volume_ratio", "new_category_share", "silent_hours", "user_overlap"), float))
    suite = day_suite.suite(
        min_volume_ratio=config.min_volume_ratio,
        max_volume_ratio=config.max_volume_ratio,
        max_new_category_share=config.max_new_category_share,
        min_user_overlap=config.min_user_overlap,
        fail_on_drift=config.fail_on_drift,
    )
    return audit.judge(frame, suite, f"days-{days[0]}-{days[-1]}", settings)


def _write(
    settings: Settings, config: ValidateConfig, published: Published, day: date, rows: list[dict[str, Any]], verdict: Verdict
) -> None:
    metrics = {row[_DAY].split(" ")[1]: {name: value for name, value in row.items() if name != _DAY} for row in rows}
    manifest.write(
        Manifest(
            kind="validated",
            uri=validated_uri(settings, day),
            digest=manifest.digest_of(digests(published, day)),
            rows={dataset: row["rows"] for dataset, row in metrics.items()},
            inputs=digests(published, day),
            config=config.model_dump(mode="json", exclude=_NOT_CHECKED),
            created_at=manifest.now(),
            facts={
                PARTITION: str(day),
                "metrics": metrics,
                "not_compared": _not_compared(rows),
                "verdict": verdict.as_fact(),
                ACCEPTED: [log.dataset for log in missing_logs(settings, published, day)],
            },
        )
    )


def _write_refusal(settings: Settings, config: ValidateConfig, published: Published, day: date, error: AuditError) -> None:
    manifest.write(
        Manifest(
            kind="refused",
            uri=refused_uri(settings, day),
            digest=manifest.digest_of(digests(published, day)),
            inputs=digests(published, day),
            config=config.model_dump(mode="json", exclude=_NOT_CHECKED),
            created_at=manifest.now(),
            facts={PARTITION: str(day), "reason": str(error)},
        )
    )


def _not_compared(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Which checks had nothing to compare with, and why."""
    said: dict[str, str] = {}
    for row in rows:
        dataset = row[_DAY].split(" ")[1]
        if row["volume_ratio"] is None:
            said[f"{dataset} volume, last event"] = "no reference day before it"
        if row["new_category_share"] is None:
            said[f"{dataset} categories"] = "fewer rows than min_category_rows on the day or before it, or categories too rare to compare"
        if row["user_overlap"] is None:
            said["user overlap"] = "one log only"
    return said
