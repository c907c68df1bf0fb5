"""All histories in the memory of the device, and batches gathered from them there: a step is told its users, nothing else."""

import logging
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfn_core.config import NetworkConfig
from mfn_core.data.batch import Batch
from mfn_core.data.batching import macro_stops
from mfn_core.data.dataset import Dataset
from mfn_core.data.histories import ViewHistories
from mfn_core.schema import PAD, UNKNOWN

Rows = NDArray[np.int64]
_LEAST_STEP = 8
_STEPS_PER_DOUBLING = 4
_TARGET_STEPS, _LARGEST_TARGET_STEP = 8, 2**14
_ROOM = 2
_MOST_OF_FREE_MEMORY = 0.5
_GIB = 2**30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """All that the host needs to know of a batch: what no tensor's shape may ask the device for."""

    num_users: int
    macro_length: int
    micro_length: int
    num_targets: int  # at least the next items to learn


@dataclass(frozen=True)
class _View:
    """One view's events on the device."""

    kinds_2E: Tensor  # ids and categories
    times_E: Tensor


class ResidentHistories:
    """Training batches as ``collate`` makes them with prefix ``train`` and the dataset's cut as query time, but for their padding.

    Args:
        dataset: whose histories are kept.
        config: lengths of the windows.
        activity_B: label per user, -1 where unlabelled.
        attributes_BA: class per user and attribute, -1 where unlabelled.
        device: where they are kept.
        latest_macro: as of ``collate``.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: NetworkConfig,
        activity_B: NDArray[np.int8],
        attributes_BA: NDArray[np.int32],
        device: torch.device,
        *,
        latest_macro: bool = False,
    ) -> None:
        macro, micro = dataset.histories.macro, dataset.histories.micro
        held_U = dataset.held_out_B.astype(np.int64)
        users_U = np.arange(len(held_U))
        stops_U = macro_stops(dataset.histories, users_U, held_U, config.max_macro_length)
        macro_bounds = _windows(macro, macro.offsets[1:] if latest_macro else stops_U, config.max_macro_length)
        micro_bounds = _windows(micro, micro.offsets[1:] - held_U, config.max_micro_length)
        self._longest = config.max_macro_length, config.max_micro_length
        self._macro_lengths_U, self._micro_lengths_U = (stops - starts for starts, stops in (macro_bounds, micro_bounds))
        self._targets_U = _num_targets(micro, *micro_bounds)
        self._cut = dataset.cut
        self._macro, self._micro = _on(device, macro), _on(device, micro)
        self._before_E = _whole(dataset.histories.macro_before, device)
        # What a batch asks of its users, side by side: it is looked up at once.
        starts_U, first_U = macro_bounds[0], macro.offsets[:-1]
        windows = (starts_U, self._macro_lengths_U, micro_bounds[0], self._micro_lengths_U)
        self._of_users_6U = torch.from_numpy(np.stack([*windows, starts_U - first_U + 1, macro_bounds[1] - first_U])).to(device)
        self._activity_U = torch.from_numpy(np.where(activity_B < 0, np.nan, activity_B).astype(np.float32)).to(device)
        self._attributes_UA = torch.from_numpy(attributes_BA.astype(np.int64)).to(device)
        # Labels are learned from batches of the host.
        self._no_ids_11, self._no_events_11 = (torch.full((1, 1), PAD, dtype=dtype, device=device) for dtype in (torch.int32, torch.int64))

    def shape(self, rows: Rows) -> Shape:
        """That of a batch of these users, each size rounded up: few shapes in all."""
        longest_macro, longest_micro = self._longest
        macro_length = _rounded_up(int(self._macro_lengths_U[rows].max()), longest_macro)
        micro_length = _rounded_up(int(self._micro_lengths_U[rows].max()), longest_micro)
        positions = len(rows) * micro_length
        step = min(-(-positions // _TARGET_STEPS), _LARGEST_TARGET_STEP)
        num_targets = min(positions, max(1, -(-int(self._targets_U[rows].sum()) // step)) * step)
        return Shape(len(rows), macro_length, micro_length, num_targets)

    def batch(self, rows_B: Tensor, shape: Shape) -> Batch:
        """The batch of the users at these rows [B] on the device; no shape depends on a value, nothing waits for the device."""
        macro_starts_B, macro_lengths_B, micro_starts_B, micro_lengths_B, passed_B, visible_B = self._of_users_6U[:, rows_B]
        macro = _Window(self._macro, macro_starts_B, macro_lengths_B, shape.macro_length)
        micro = _Window(self._micro, micro_starts_B, micro_lengths_B, shape.micro_length)
        macro_ids_BL, macro_categories_BL = macro.padded(self._macro.kinds_2E)
        micro_ids_BL, micro_categories_BL = micro.padded(self._micro.kinds_2E)
        no_ids_B1, no_events_B1 = (nothing.expand(len(rows_B), 1) for nothing in (self._no_ids_11, self._no_events_11))
        last_B1 = micro_lengths_B[:, None] - 1
        following_BL = micro.events_BL + 1
        next_BL = self._micro.kinds_2E[0][following_BL]
        is_target_BL = (micro.steps_L < last_B1) & (next_BL != UNKNOWN)
        # As ``collate``'s: before the last event's successor, which is the query, come all app events.
        last_B1 = last_B1.clamp(min=0)
        before_BL = self._before_E[following_BL].scatter_(1, last_B1, visible_B[:, None].int())
        asof_BL = (before_BL - passed_B[:, None]).clamp(min=-1).masked_fill(micro.steps_L > last_B1, -1)
        return Batch(
            rows_B=rows_B,
            macro_ids_BL=macro_ids_BL,
            macro_categories_BL=macro_categories_BL,
            macro_times_BL=macro.padded(self._macro.times_E),
            macro_lengths_B=macro_lengths_B,
            macro_met_BM=no_ids_B1,
            macro_met_counts_BM=no_ids_B1,
            macro_past_categories_BM=no_events_B1,
            macro_past_times_BM=no_events_B1,
            micro_ids_BL=micro_ids_BL,
            micro_categories_BL=micro_categories_BL,
            micro_times_BL=micro.padded(self._micro.times_E),
            micro_lengths_B=micro_lengths_B,
            micro_met_BM=no_ids_B1,
            micro_met_counts_BM=no_ids_B1,
            micro_past_categories_BM=no_events_B1,
            micro_past_times_BM=no_events_B1,
            asof_BL=asof_BL,
            targets_BL=_or_pad(is_target_BL, next_BL),
            query_time_B=torch.full_like(rows_B, self._cut),
            activity_B=self._activity_U[rows_B],
            attributes_BA=self._attributes_UA[rows_B],
        )


def fits(dataset: Dataset, device: torch.device) -> bool:
    """Whether a GPU has the memory to hold all histories beside a training; says so where it has not."""
    views = (dataset.histories.macro, dataset.histories.micro)
    arrays = [getattr(view, field.name) for view in views for field in fields(view)]
    needed = sum(array.nbytes for array in [*arrays, dataset.histories.macro_before, dataset.attributes_BA])
    free, _ = torch.cuda.mem_get_info(device)
    if needed <= free * _MOST_OF_FREE_MEMORY:
        return True
    _log.warning(
        "the histories take %.1f GiB, more than half of the %.1f GiB free on the GPU: batches are sent one by one, without CUDA graphs",
        needed / _GIB,
        free / _GIB,
    )
    return False


class _Window:
    """The latest events of some users, right-padded to a given length."""

    def __init__(self, view: _View, starts_B: Tensor, lengths_B: Tensor, length: int) -> None:
        self.steps_L = torch.arange(length, device=starts_B.device)
        self._is_event_BL = self.steps_L < lengths_B[:, None]
        # At padding others' events, or the room beyond the last one.
        self.events_BL = (starts_B[:, None] + self.steps_L).clamp(max=len(view.times_E) - _ROOM)

    def padded(self, values: Tensor) -> Tensor:
        """Values [..., E] of the events, as int64 [..., B, L]; 0 at padding."""
        return _or_pad(self._is_event_BL, values[..., self.events_BL])


def _or_pad(holds: Tensor, values: Tensor) -> Tensor:
    """Whole numbers as int64, 0, hence PAD, where it does not hold: in one pass."""
    return torch.mul(values, holds, out=torch.empty(values.shape, dtype=torch.int64, device=values.device))


def _windows(view: ViewHistories, stops_U: Rows, max_length: int) -> tuple[Rows, Rows]:
    return np.maximum(view.offsets[:-1], stops_U - max_length), stops_U


def _num_targets(micro: ViewHistories, starts_U: Rows, stops_U: Rows) -> Rows:
    """Events of each user's window, but the first, that the vocabulary knows."""
    known = np.append(0, np.cumsum(micro.ids != UNKNOWN))
    return np.where(stops_U > starts_U, known[stops_U] - known[np.minimum(starts_U + 1, len(micro.ids))], 0)


def _on(device: torch.device, view: ViewHistories) -> _View:
    return _View(_whole(np.stack([view.ids, view.categories]), device), _whole(view.times, device))


def _whole(values: NDArray[np.integer], device: torch.device) -> Tensor:
    """The values [..., E], and room beyond them for what padding asks for: an event, and the one that follows it."""
    room = np.zeros((*values.shape[:-1], _ROOM), values.dtype)
    return torch.from_numpy(np.concatenate([values, room], -1)).to(device)


def _rounded_up(length: int, longest: int) -> int:
    """Up to the next quarter of a power of two, at least by steps of 8; at least 1."""
    step = max(_LEAST_STEP, 2 ** (max(length - 1, 1).bit_length() - 1) // _STEPS_PER_DOUBLING)
    return min(max(-(-length // step) * step, 1), longest)
