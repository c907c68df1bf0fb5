"""The leak proof: computed from the shards as they were written, not from the code that meant well."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.dataset import MISSING, Shard
from mfn_core.data.held_out import DROPPED
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.data.window import Window
from mfn_core.errors import LeakError
from mfn_core.schema import FIRST_KNOWN, DownstreamTask

_ADVICE = "this is a defect of the dataset builder: do not train on it, report it"


@dataclass(frozen=True)
class LeakProof:
    """The closest call of one downstream task; seconds UTC, None where the task has no such time."""

    max_input_time: int | None
    min_label_time: int | None


@dataclass(frozen=True)
class CheckedShards:
    """What shards whose own rules hold bring to the proof; sums of two are those of both. Times are seconds UTC."""

    latest_inputs: list[int]
    earliest_labels: list[int]
    closest: list[tuple[int, int]]
    training_counts: dict[str, NDArray[np.int64]]

    def __add__(self, other: "CheckedShards") -> "CheckedShards":
        return CheckedShards(
            self.latest_inputs + other.latest_inputs,
            self.earliest_labels + other.earliest_labels,
            self.closest + other.closest,
            {name: counts + other.training_counts[name] for name, counts in self.training_counts.items()},
        )


def check_shard(shard: Shard, window: Window, vocabularies: Vocabularies) -> CheckedShards:
    """Check every rule of point-in-time that one shard can break.

    Args:
        shard: as it was written.
        window: the cut and the horizon.
        vocabularies: as stored with the shards.

    Raises:
        LeakError: an event at or after the cut, a label outside ``[cut, label_end)``, an as-of count that includes an event not strictly
            before its target or misses one that is, or a history out of order.
    """
    return CheckedShards(
        latest_inputs=_latest_input(shard.histories, window),
        earliest_labels=_earliest_label(shard, window),
        closest=_closest_asof(shard.histories),
        training_counts=_training_counts(shard, vocabularies),
    )


def prove_no_leak(checked: CheckedShards, vocabularies: Vocabularies) -> dict[DownstreamTask, LeakProof]:
    """Check what only all shards together can break, and tell how close the closest call was.

    Activity: the latest input of all users, and the earliest label event of all users. Attribute: the latest input; the users table is a
    static snapshot without times. Recommendation: the target and app event that come closest; an earlier item event may share
    the target's second, its place in the history is what makes it earlier.

    Args:
        checked: all shards of the dataset.
        vocabularies: as stored with the shards.

    Raises:
        LeakError: a vocabulary counts other than training events.
    """
    _check_vocabularies(checked.training_counts, vocabularies)
    latest = max(checked.latest_inputs, default=None)
    pair = min(checked.closest, key=lambda times: times[1] - times[0], default=(None, None))
    return {
        "activity": LeakProof(latest, min(checked.earliest_labels, default=None)),
        "attribute": LeakProof(latest, None),
        "recommendation": LeakProof(*pair),
    }


def _latest_input(histories: Histories, window: Window) -> list[int]:
    latest: list[int] = []
    for name, view in (("app", histories.macro), ("item", histories.micro)):
        if len(view.times) == 0:
            continue
        event = int(np.argmax(view.times))
        if view.times[event] >= window.cut:
            user = histories.user_ids[_owner(view, event)]
            raise LeakError(
                f"user {user!r} has an {name} event at {_iso(view.times[event])}, at or after the cut {_iso(window.cut)}; {_ADVICE}"
            )
        latest.append(int(view.times[event]))
    return latest


def _earliest_label(shard: Shard, window: Window) -> list[int]:
    times_B = shard.activity_time_B
    is_active_B = times_B != MISSING
    if window.horizon_days is None:
        wrong_B = shard.activity_B != MISSING
    else:
        outside_B = is_active_B & ((times_B < window.cut) | (times_B >= window.label_end))
        wrong_B = outside_B | (shard.activity_B != is_active_B)
    if wrong_B.any():
        row = int(np.argmax(wrong_B))
        raise LeakError(
            f"user {shard.histories.user_ids[row]!r} has activity {shard.activity_B[row]} by an item event at "
            f"{_iso(times_B[row])}, but labels come from [{_iso(window.cut)}, {_iso(window.label_end)}); {_ADVICE}"
        )
    return [int(times_B[is_active_B].min())] if is_active_B.any() else []


def closest_inputs(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Time of the latest visible app event, and of the target, for every micro event that sees any; seconds UTC."""
    micro = histories.micro
    users, counts = _micro_users(histories), histories.macro_before
    sees_any = counts > 0
    return histories.macro.times[histories.macro.offsets[users[sees_any]] + counts[sees_any] - 1], micro.times[sees_any]


def _closest_asof(histories: Histories) -> list[tuple[int, int]]:
    """The (app time, target time) with the least time between, over every micro event as a target."""
    macro, micro = histories.macro, histories.micro
    for name, view in (("app", macro), ("item", micro)):
        _check_order(histories, name, view)
    users, counts = _micro_users(histories), histories.macro_before
    lengths = macro.lengths[users]
    assert ((counts >= 0) & (counts <= lengths)).all(), "an as-of count is beyond the user's app events"
    seen, targets = closest_inputs(histories)
    _check_asof(histories, users[counts > 0], seen, targets, seen < targets)
    has_later = counts < lengths
    unseen = macro.times[macro.offsets[users[has_later]] + counts[has_later]]
    _check_asof(histories, users[has_later], unseen, micro.times[has_later], unseen >= micro.times[has_later])
    if len(seen) == 0:
        return []
    closest = int(np.argmin(targets - seen))
    return [(int(seen[closest]), int(targets[closest]))]


def _micro_users(histories: Histories) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(histories)), histories.micro.lengths)


def _check_order(histories: Histories, name: str, view: ViewHistories) -> None:
    users = np.repeat(np.arange(len(histories)), view.lengths)
    backwards = (np.diff(view.times) < 0) & (np.diff(users) == 0)
    if backwards.any():
        event = int(np.argmax(backwards))
        raise LeakError(
            f"user {histories.user_ids[users[event]]!r} has an {name} event at {_iso(view.times[event])} before one at "
            f"{_iso(view.times[event + 1])}; {_ADVICE}"
        )


def _check_asof(
    histories: Histories,
    users: NDArray[np.int64],
    app_times: NDArray[np.int64],
    target_times: NDArray[np.int64],
    is_right: NDArray[np.bool_],
) -> None:
    if is_right.all():
        return
    event = int(np.argmin(is_right))
    raise LeakError(
        f"user {histories.user_ids[users[event]]!r}: the app event at {_iso(app_times[event])} is on the wrong side of the target at "
        f"{_iso(target_times[event])}; an input is strictly earlier; {_ADVICE}"
    )


def _training_counts(shard: Shard, vocabularies: Vocabularies) -> dict[str, NDArray[np.int64]]:
    """Training events by vocabulary and internal id: those that no ranking drops, and all of a user who has no more than it would drop.

    Not by ``fitting.count_training_events``, which the vocabularies come from: it would agree with itself.
    """
    most_dropped = max(DROPPED.values())
    macro, micro = shard.histories.macro, shard.histories.micro
    lengths, ends = np.repeat(micro.lengths, micro.lengths), np.repeat(micro.offsets[1:], micro.lengths)
    num_left = ends - np.arange(len(micro.ids))  # events of the user from this one on
    is_training = (lengths <= most_dropped) | (num_left > most_dropped)
    return {
        "macro_id": np.bincount(macro.ids, minlength=len(vocabularies.macro_id)),
        "macro_category": np.bincount(macro.categories, minlength=len(vocabularies.macro_category)),
        "micro_id": np.bincount(micro.ids[is_training], minlength=len(vocabularies.micro_id)),
        "micro_category": np.bincount(micro.categories[is_training], minlength=len(vocabularies.micro_category)),
    }


def _check_vocabularies(counts: dict[str, NDArray[np.int64]], vocabularies: Vocabularies) -> None:
    for field in fields(vocabularies):
        vocabulary = getattr(vocabularies, field.name)
        wrong = np.flatnonzero(counts[field.name][FIRST_KNOWN:] != vocabulary.known_counts())
        if len(wrong):
            token = vocabulary.tokens[int(wrong[0])].as_py()
            raise LeakError(
                f"the {field.name} vocabulary counts {vocabulary.known_counts()[wrong[0]]} events of {token!r}, but it has "
                f"{counts[field.name][FIRST_KNOWN:][wrong[0]]} training events; {_ADVICE}"
            )


def _owner(view: ViewHistories, event: int) -> int:
    return int(np.searchsorted(view.offsets, event, side="right")) - 1


def _iso(seconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))).isoformat()
