"""What was written, counted from the shards: the rows of the manifest and the figures that the audit judges."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mfn_core.data.dataset import MISSING, Shard
from mfn_core.data.fitting import training_events
from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS, held_out_events
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.leaks import closest_inputs
from mfn_core.data.window import Window
from mfn_core.schema import PAD, SPLITS, UNKNOWN


@dataclass(frozen=True)
class Summary:
    """Counts over whole shards; sums of two are those of both."""

    users: int = 0
    train_users: int = 0
    validation_users: int = 0
    test_users: int = 0
    active_users: int = 0
    empty_users: int = 0  # without any event
    macro_events: int = 0
    micro_events: int = 0
    held_out_events: int = 0
    returning_targets: int = 0  # users whose last micro event, the test target, is of an item they had met
    unknown_events: int = 0  # training events whose id is in no vocabulary
    null_events: int = 0  # PAD inside a history
    events_after_cut: int = 0
    leaks: int = 0  # inputs not strictly older than their target, and activity labels from outside the horizon

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(**{name: count + getattr(other, name) for name, count in vars(self).items()})

    @property
    def unknown_share(self) -> float:
        """Share of the training events whose id is in no vocabulary."""
        return self.unknown_events / max(1, self.macro_events + self.micro_events - self.held_out_events)

    @property
    def returning_share(self) -> float | None:
        """Share of the users with held-out events whose test target is of an item they had met; None where there are no such users."""
        return self.returning_targets * HELD_OUT_EVENTS / self.held_out_events if self.held_out_events else None


def summarize(shards: Iterable[Shard], window: Window) -> Summary:
    """Count what the shards hold, one at a time."""
    return sum((_summary(shard, window) for shard in shards), Summary())


def _summary(shard: Shard, window: Window) -> Summary:
    histories = shard.histories
    macro, micro = histories.macro, histories.micro
    by_split = {f"{split}_users": int((shard.split_B == code).sum()) for code, split in enumerate(SPLITS)}
    trained_micro = micro.ids[training_events(histories)]
    coded = (macro.ids, macro.categories, micro.ids, micro.categories)
    return Summary(
        users=len(histories),
        **by_split,
        active_users=int((shard.activity_B == 1).sum()),
        empty_users=int((macro.lengths + micro.lengths == 0).sum()),
        macro_events=len(macro.ids),
        micro_events=len(micro.ids),
        held_out_events=int(held_out_events(micro.lengths).sum()),
        returning_targets=_returning_targets(micro),
        unknown_events=int((macro.ids == UNKNOWN).sum() + (trained_micro == UNKNOWN).sum()),
        null_events=sum(int((values == PAD).sum()) for values in coded),
        events_after_cut=int((macro.times >= window.cut).sum() + (micro.times >= window.cut).sum()),
        leaks=_late_inputs(histories) + _misplaced_labels(shard, window),
    )


def _returning_targets(micro: ViewHistories) -> int:
    return int(micro.is_returning(np.flatnonzero(held_out_events(micro.lengths)), dropped=DROPPED["test"]).sum())


def _late_inputs(histories: Histories) -> int:
    inputs, targets = closest_inputs(histories)
    return int((inputs >= targets).sum())


def _misplaced_labels(shard: Shard, window: Window) -> int:
    times_B = shard.activity_time_B[shard.activity_time_B != MISSING]
    return int(np.sum((times_B < window.cut) | (times_B >= window.label_end)))
