"""From ragged histories to padded batches: the one place that decides what an input may see of a user.

========== ================================== ============================== ==========================
prefix     micro input                        macro input                    targets
========== ================================== ============================== ==========================
train      all but the held-out events        all; where they are more than  next id at each position
                                              the window, see ``macro_stops``
validation all but the last two               strictly before the target     the last but one
test       all but the last                   strictly before the target     the last
full       all                                all                            none
========== ================================== ============================== ==========================
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mfn_core.data.batch import Batch
from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.schema import PAD, UNKNOWN

Prefix = Literal["train", "validation", "test", "full"]

MAX_COUNTED = 10_000  # latest events of a user in either view: a robot's millions would be padding for the others of its batch
_BATCHES_PER_BUCKET = 32
_LENGTH_STEP = 8  # padded lengths are multiples: on a CPU every new shape of a matrix product has to be compiled, and stays in memory

Ints = NDArray[np.int64]


def collate(
    histories: Histories,
    rows: NDArray[np.integer],
    *,
    prefix: Prefix,
    held_out_B: NDArray[np.int8] | None = None,
    max_macro_length: int,
    max_micro_length: int,
    activity_B: NDArray[np.int8] | None = None,
    attributes_BA: NDArray[np.int32] | None = None,
    query_time: int | None = None,
    max_ids: int = 0,
    latest_macro: bool = False,
) -> Batch:
    """The batch of some users.

    Only the latest ``max_macro_length`` and ``max_micro_length`` events of the prefix are read; ``asof_BL`` is -1 where the
    app event lies outside that window. In ``train`` a next item outside the vocabulary is no target (PAD); in ``validation`` and
    ``test`` it stays UNKNOWN, because a model that cannot name the item has missed it.

    Args:
        histories: of all users.
        rows: users of the batch, as positions in ``histories``.
        prefix: which events are input, and which are targets; see the module.
        held_out_B: per user of ``histories``; only ``full`` works without.
        max_macro_length: at least 1.
        max_micro_length: at least 1.
        activity_B: label per user of ``histories``, -1 where unlabelled.
        attributes_BA: class per user of ``histories`` and attribute, -1 where unlabelled.
        query_time: seconds UTC the users are asked about; the as-of position of the last micro event sees the app events strictly
            before it. None: the time of each user's latest event; all app events are seen.
        max_ids: events of the prefix, the latest, whose distinct ids ``macro_met_BM`` and ``micro_met_BM`` name, and the counts beside
            them count; labels are read from them, and from the categories and times of the latest 10,000 events (``macro_past_*``,
            ``micro_past_*``). 0: none of these.
        latest_macro: end the app window of ``train`` with the history even where it cannot hold all of it: labels are read from the batch.
    """
    rows_B = np.array(rows, np.int64)
    macro, micro = histories.macro, histories.micro
    held_B = _held_out(rows_B, prefix, held_out_B)
    micro_first_B, micro_stop_B = micro.offsets[rows_B], micro.offsets[rows_B + 1] - held_B
    macro_first_B, macro_stop_B = macro.offsets[rows_B], macro.offsets[rows_B + 1]
    is_ranking = prefix in ("validation", "test")
    if is_ranking:
        macro_stop_B = macro_first_B + histories.macro_before[micro_stop_B]
    elif prefix == "train" and not latest_macro:
        macro_stop_B = macro_stops(histories, rows_B, held_B, max_macro_length)
    macro_window = _Window(macro_first_B, macro_stop_B, max_macro_length)
    micro_window = _Window(micro_first_B, micro_stop_B, max_micro_length)

    macro_times_BL = macro_window.gather(macro.times)
    visible_B = macro_stop_B - macro_first_B
    if query_time is not None and not is_ranking:
        late_B = (macro_window.mask_BL & (macro_times_BL >= query_time)).sum(axis=1)
        visible_B = visible_B - late_B
    micro_times_BL = micro_window.gather(micro.times)
    asked_B = np.maximum(macro_times_BL.max(axis=1), micro_times_BL.max(axis=1)) if query_time is None else np.full(len(rows_B), query_time)
    targets_BL = _targets(histories, micro_window, prefix)
    macro_past = _past(macro, macro_first_B, macro_stop_B, max_ids)
    micro_past = _past(micro, micro_first_B, micro_stop_B, max_ids)
    macro_met = _met(macro, macro_first_B, macro_stop_B, max_ids)
    micro_met = _met(micro, micro_first_B, micro_stop_B, max_ids)
    return Batch(
        rows_B=torch.from_numpy(rows_B),
        macro_ids_BL=torch.from_numpy(macro_window.gather(macro.ids)),
        macro_categories_BL=torch.from_numpy(macro_window.gather(macro.categories)),
        macro_times_BL=torch.from_numpy(macro_times_BL),
        macro_lengths_B=torch.from_numpy(macro_window.lengths_B),
        macro_met_BM=macro_met[0],
        macro_met_counts_BM=macro_met[1],
        macro_past_categories_BM=macro_past[0],
        macro_past_times_BM=macro_past[1],
        micro_ids_BL=torch.from_numpy(micro_window.gather(micro.ids)),
        micro_categories_BL=torch.from_numpy(micro_window.gather(micro.categories)),
        micro_times_BL=torch.from_numpy(micro_times_BL),
        micro_lengths_B=torch.from_numpy(micro_window.lengths_B),
        micro_met_BM=micro_met[0],
        micro_met_counts_BM=micro_met[1],
        micro_past_categories_BM=micro_past[0],
        micro_past_times_BM=micro_past[1],
        asof_BL=torch.from_numpy(_asof(histories, macro_window, micro_window, visible_B)),
        targets_BL=torch.from_numpy(targets_BL),
        query_time_B=torch.from_numpy(asked_B.astype(np.int64)),
        activity_B=torch.from_numpy(_activity(activity_B, rows_B)),
        attributes_BA=torch.from_numpy(_attributes(attributes_BA, rows_B)),
    )


def macro_stops(histories: Histories, rows_B: Ints, held_B: Ints, max_length: int) -> Ints:
    """Where the app events end that users are trained on, as positions in the macro view.

    At the end of the history where the window holds all of it. Where it does not, with what is known at the last item to learn: an
    app log may be so dense that the latest events all lie after it, and then no item would ever be learned from an app.

    Args:
        histories: of all users.
        rows_B: users, as positions in ``histories``.
        held_B: micro events held out of each of them.
        max_length: of the window.
    """
    macro, micro = histories.macro, histories.micro
    first_B, stop_B = macro.offsets[rows_B], macro.offsets[rows_B + 1]
    micro_first_B, last_B = micro.offsets[rows_B], micro.offsets[rows_B + 1] - held_B - 1
    is_cut_short_B = (stop_B - first_B > max_length) & (last_B > micro_first_B)
    known_B = np.take(histories.macro_before, last_B, mode="clip") if len(micro.ids) else np.zeros_like(first_B)
    return np.where(is_cut_short_B, first_B + np.maximum(known_B, max_length), stop_B)


def batches(lengths: Ints, batch_size: int, *, seed: int = 0, epoch: int = 0, shuffle: bool) -> Iterator[Ints]:
    """Batches of positions in ``lengths``, users of like length together, each position once.

    Shuffled: the order depends on ``(seed, epoch)`` alone. Not shuffled: longest first, ties in the given order.
    """
    assert batch_size >= 1
    if not shuffle:
        yield from _cut(np.argsort(-np.asarray(lengths), kind="stable"), batch_size)
        return
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    bucketed = [bucket[np.argsort(lengths[bucket], kind="stable")] for bucket in _cut(order, batch_size * _BATCHES_PER_BUCKET)]
    parts = [part for bucket in bucketed for part in _cut(bucket, batch_size)]
    for position in generator.permutation(len(parts)):
        yield parts[position]


class _Window:
    """The latest ``max_length`` events of ``[first, stop)`` per user, as a right-padded matrix."""

    def __init__(self, first_B: Ints, stop_B: Ints, max_length: int) -> None:
        assert max_length >= 1
        self.start_B = np.maximum(first_B, stop_B - max_length)
        self.dropped_B = self.start_B - first_B
        self.lengths_B = stop_B - self.start_B
        longest = int(self.lengths_B.max(initial=0))
        steps_L = np.arange(1 if longest <= 1 else min(max_length, -(-longest // _LENGTH_STEP) * _LENGTH_STEP))
        self.mask_BL = steps_L < self.lengths_B[:, None]
        self.events_BL = self.start_B[:, None] + steps_L
        self.last_B = np.maximum(self.lengths_B - 1, 0)

    def gather(self, values: NDArray[np.integer], ahead: int = 0) -> Ints:
        """Values of the events, or of those ``ahead`` positions later; 0 at padding."""
        if len(values) == 0:
            return np.zeros(self.mask_BL.shape, np.int64)
        return np.take(values, self.events_BL + ahead if ahead else self.events_BL, mode="clip").astype(np.int64) * self.mask_BL


def _met(view: ViewHistories, first_B: Ints, stop_B: Ints, max_ids: int) -> tuple[Tensor, Tensor]:
    """The distinct ids among the latest ``max_ids`` events, the repetitions PAD, and how often each: who reads them does not ask when."""
    if max_ids == 0:
        return torch.full((len(first_B), 1), PAD, dtype=torch.int32), torch.zeros((len(first_B), 1), dtype=torch.int32)
    sorted_BM = torch.from_numpy(_Window(first_B, stop_B, max_ids).gather(view.ids).astype(np.int32)).sort(1).values
    is_repeated_BM = functional.pad(sorted_BM[:, 1:] == sorted_BM[:, :-1], (1, 0))
    place_BM = (~is_repeated_BM).cumsum(1) - 1  # among the distinct ids of the user
    counts_BM = torch.zeros_like(sorted_BM).scatter_add_(1, place_BM, torch.ones_like(sorted_BM)).gather(1, place_BM)
    return sorted_BM.masked_fill(is_repeated_BM, PAD), counts_BM.masked_fill(is_repeated_BM | (sorted_BM == PAD), 0)


def _past(view: ViewHistories, first_B: Ints, stop_B: Ints, max_ids: int) -> tuple[Tensor, Tensor]:
    """Categories and times of the latest events, further back than any encoder reads: how much, how often and how long ago is counted."""
    if max_ids == 0:
        nothing = torch.full((len(first_B), 1), PAD)
        return nothing, nothing
    window = _Window(first_B, stop_B, MAX_COUNTED)
    return torch.from_numpy(window.gather(view.categories)), torch.from_numpy(window.gather(view.times))


def _held_out(rows_B: Ints, prefix: Prefix, held_out_B: NDArray[np.int8] | None) -> Ints:
    if prefix == "full":
        return np.zeros(len(rows_B), np.int64)
    assert held_out_B is not None, f"prefix {prefix!r} needs held_out_B"
    held_B = held_out_B[rows_B].astype(np.int64)
    if prefix == "train":
        return held_B
    assert (held_B == HELD_OUT_EVENTS).all(), f"prefix {prefix!r} is for users with {HELD_OUT_EVENTS} held-out events"
    return np.full(len(rows_B), DROPPED[prefix], np.int64)


def _targets(histories: Histories, micro_window: _Window, prefix: Prefix) -> Ints:
    if prefix == "full":
        return np.zeros(micro_window.mask_BL.shape, np.int64)
    next_BL = micro_window.gather(histories.micro.ids, ahead=1)
    steps_L = np.arange(next_BL.shape[1])
    if prefix == "train":
        learnable_BL = (steps_L < micro_window.last_B[:, None]) & (next_BL != UNKNOWN)
    else:
        learnable_BL = steps_L == micro_window.last_B[:, None]
    return np.where(learnable_BL, next_BL, PAD)


def _asof(histories: Histories, macro_window: _Window, micro_window: _Window, visible_B: Ints) -> Ints:
    before_BL = micro_window.gather(histories.macro_before, ahead=1)
    rows = np.arange(len(visible_B))
    before_BL[rows, micro_window.last_B] = visible_B
    asof_BL = before_BL - 1 - macro_window.dropped_B[:, None]
    is_real_BL = micro_window.mask_BL.copy()
    is_real_BL[:, 0] = True
    return np.where(is_real_BL & (asof_BL >= 0), asof_BL, -1)


def _activity(activity_B: NDArray[np.int8] | None, rows_B: Ints) -> NDArray[np.float32]:
    if activity_B is None:
        return np.full(len(rows_B), np.nan, np.float32)
    labels_B = activity_B[rows_B].astype(np.float32)
    return np.where(labels_B < 0, np.float32(np.nan), labels_B)


def _attributes(attributes_BA: NDArray[np.int32] | None, rows_B: Ints) -> Ints:
    return np.empty((len(rows_B), 0), np.int64) if attributes_BA is None else attributes_BA[rows_B].astype(np.int64)


def _cut(order: Ints, size: int) -> list[Ints]:
    return [order[start : start + size] for start in range(0, len(order), size)]
