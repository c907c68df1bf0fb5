"""Which item has followed which: tables of counts that the next-item scores are blended with (``blend.py``).

A network needs many steps to say what a table of counts knows after one pass; the table knows nothing of a history. What an item j gains
from an item i of the history is the log of its lift, smoothed by popularity::

    g_j = log(1 + P(j | i) / P(j))        P(j | i) = n_ij / (sum_j n_ij + kappa)

What it gains from several can be put together in two ways: the logarithms are added, as if each item spoke for itself (a product of
chances), or the lifts are (a mixture of chances, the weight of an item falling with the events since)::

    product  sum_d g_j(d)                 mixture  log(1 + sum_d (exp(g_j(d)) - 1) / d)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_core.data.histories import ViewHistories
from mfn_core.schema import PAD, UNKNOWN

_KAPPA = 3.0
_LEAST_POPULARITY = 1e-5


@dataclass(frozen=True)
class Gains:
    """What one source says of B users: M items each, and what they gain."""

    items_BM: Tensor  # int64; the same item several times where several items of the history name it: its gains are added
    gains_BM: Tensor  # 0 where the item is PAD

    @staticmethod
    def concatenate(parts: "Sequence[Gains]") -> "Gains":
        """The users of all parts, one after the other."""
        return Gains(torch.cat([part.items_BM for part in parts]), torch.cat([part.gains_BM for part in parts]))

    def at(self, users: Tensor | slice) -> "Gains":
        """Those of some users."""
        return Gains(self.items_BM[users], self.gains_BM[users])


class Transitions(nn.Module):
    """The ``num_successors`` most frequent successors of every item, counted on training events; nothing is learned.

    Two items d events apart, ``d <= window``, count 1 / d, and the ``window`` latest items of a history take part. A window of 1 is the
    bigram.
    """

    def __init__(self, *, num_items: int, num_successors: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("successors_NM", torch.zeros(num_items, num_successors, dtype=torch.int32))
        self.register_buffer("gains_NM", torch.zeros(num_items, num_successors))
        self.successors_NM: Tensor
        self.gains_NM: Tensor

    def fit(self, micro: ViewHistories, held_out_B: NDArray[np.int8], *, may_return: bool) -> None:
        """Counts pairs of events that are not held out; UNKNOWN items take no part.

        Args:
            micro: histories of all users.
            held_out_B: micro events held out per user.
            may_return: whether an item may follow itself; not where items that the user has met are never ranked.
        """
        num_items, num_kept = self.successors_NM.shape
        items, successors, counts = _pair_counts(micro, held_out_B, self.window, num_items, may_return)
        totals_N = np.bincount(items, weights=counts, minlength=num_items)
        lifts = counts / (totals_N[items] + _KAPPA) / item_shares(micro, held_out_B, num_items)[successors]
        order = np.lexsort((successors, -counts, items))
        items, successors, gains = items[order], successors[order], np.log1p(lifts[order])
        places = np.arange(len(items)) - np.searchsorted(items, items)
        kept = places < num_kept
        self.successors_NM.zero_()
        self.gains_NM.zero_()
        self.successors_NM[items[kept], places[kept]] = torch.from_numpy(successors[kept].astype(np.int32))
        self.gains_NM[items[kept], places[kept]] = torch.from_numpy(gains[kept].astype(np.float32))

    def forward(self, ids_BL: Tensor, lengths_B: Tensor) -> Gains:
        """What has followed each of the latest items, the latest first: a product of chances. Free places are PAD and gain 0."""
        events_BW = lengths_B[:, None] - 1 - torch.arange(self.window, device=ids_BL.device)
        items_BW = ids_BL.gather(1, events_BW.clamp(min=0)).masked_fill(events_BW < 0, PAD)
        return Gains(self.successors_NM[items_BW].long().flatten(1), self.gains_NM[items_BW].flatten(1))

    def mixture(self, product: Gains) -> Gains:
        """The same chances mixed in place of multiplied: every item once, the others of its places PAD with a gain of 0."""
        distance_W = torch.arange(1, self.window + 1, device=product.items_BM.device)
        lifts_BM = torch.expm1(product.gains_BM) / distance_W.repeat_interleave(product.items_BM.shape[1] // self.window)
        items_BM, order_BM = product.items_BM.int().sort(dim=1)  # half as wide, sorted faster
        is_first_BM = torch.ones_like(items_BM, dtype=torch.bool)
        is_first_BM[:, 1:] = items_BM[:, 1:] != items_BM[:, :-1]
        place_BM = is_first_BM.cumsum(1) - 1
        sums_BM = torch.zeros_like(lifts_BM).scatter_add(1, place_BM, lifts_BM.gather(1, order_BM)).gather(1, place_BM)
        return Gains(items_BM.masked_fill(~is_first_BM, PAD).long(), torch.log1p(sums_BM).masked_fill(~is_first_BM, 0))


def item_shares(micro: ViewHistories, held_out_B: NDArray[np.int8], num_items: int) -> NDArray[np.float64]:
    """Share of each item in the events that are not held out, at least 1e-5."""
    seen_N = item_counts(micro, held_out_B, num_items)
    return np.maximum(seen_N / max(seen_N.sum(), 1), _LEAST_POPULARITY)


def item_counts(micro: ViewHistories, held_out_B: NDArray[np.int8], num_items: int) -> NDArray[np.float64]:
    """How many of the events that are not held out are of each item; 0 for PAD and UNKNOWN."""
    seen_N = np.bincount(micro.ids[_is_training(micro, held_out_B)], minlength=num_items).astype(np.float64)
    seen_N[: UNKNOWN + 1] = 0
    return seen_N


def _is_training(micro: ViewHistories, held_out_B: NDArray[np.int8]) -> NDArray[np.bool_]:
    owner = np.repeat(np.arange(len(held_out_B)), micro.lengths)
    return np.arange(len(micro.ids)) < (micro.offsets[1:] - held_out_B)[owner]


def _pair_counts(
    micro: ViewHistories, held_out_B: NDArray[np.int8], window: int, num_items: int, may_return: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Item, later item, and how often: each pair of events d apart counts 1 / d."""
    owner = np.repeat(np.arange(len(held_out_B)), micro.lengths)
    stops = (micro.offsets[1:] - held_out_B)[owner]
    events = np.arange(len(micro.ids))
    keys: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for lag in range(1, window + 1):
        first = events[events + lag < stops]
        items, successors = micro.ids[first].astype(np.int64), micro.ids[first + lag].astype(np.int64)
        counted = (items > UNKNOWN) & (successors > UNKNOWN) & (may_return | (items != successors))
        keys.append(items[counted] * num_items + successors[counted])
        weights.append(np.full(int(counted.sum()), 1 / lag))
    pairs, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    items, successors = np.divmod(pairs, num_items)
    return items, successors, np.bincount(inverse, weights=np.concatenate(weights), minlength=len(pairs)).astype(np.float64)
