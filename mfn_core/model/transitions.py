"""Which item has followed which: tables of counts that the next-item scores are blended with (``blend.py``).

A network needs many steps to say what a table of counts knows after one pass; the table knows nothing of a history. What an item j gains
from an item i of the history is the log of its lift, smoothed by popularity::

    g_j = log(1 + P(j | i) / P(j))        P(j | i) = n_ij / (sum_j n_ij + kappa)

What it gains from several can be put together in two ways: the logarithms are added, as if each item spoke for itself (a product of
chances), or the lifts are (a mixture of chances, the weight of an item falling with the events since)::

    product  sum_d g_j(d)                 mixture  log(1 + sum_d (exp(g_j(d)) - 1) / d)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_core.data.histories import ViewHistories
from mfn_core.schema import FIRST_KNOWN, PAD, UNKNOWN

_KAPPA = 3.0
_LEAST_POPULARITY = 1e-5
# Logs grow, the machine does not: what is counted at once takes some 200 MB, whatever the number of events. Every part is a pass over all
# ids, a second or two per billion; its pairs take longer to sort.
_PAIRS_AT_ONCE = 2**21
_EVENTS_AT_ONCE = 2**20

_PairCounts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


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
        shares_N = item_shares(micro, held_out_B, num_items)
        self.successors_NM.zero_()
        self.gains_NM.zero_()
        for items, successors, counts in _pair_counts(micro, held_out_B, self.window, num_items, may_return):
            totals_N = np.bincount(items, weights=counts, minlength=num_items)
            order = np.lexsort((-counts, items))  # of equals the lower successor stays first; the items stay as they are
            places = np.arange(len(items)) - np.searchsorted(items, items)
            kept, columns = order[places < num_kept], places[places < num_kept]
            rows, best = items[kept], successors[kept]
            lifts = counts[kept] / (totals_N[rows] + _KAPPA) / shares_N[best]
            self.successors_NM[rows, columns] = torch.from_numpy(best.astype(np.int32))
            self.gains_NM[rows, columns] = torch.from_numpy(np.log1p(lifts).astype(np.float32))

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
    seen_N = np.zeros(num_items)
    for start in range(0, len(micro.ids), _EVENTS_AT_ONCE):
        ids = micro.ids[start : start + _EVENTS_AT_ONCE]
        seen_N += np.bincount(ids[micro.is_training(held_out_B, start, start + len(ids))], minlength=num_items)
    seen_N[:FIRST_KNOWN] = 0
    return seen_N


def _pair_counts(
    micro: ViewHistories, held_out_B: NDArray[np.int8], window: int, num_items: int, may_return: bool
) -> Iterator[_PairCounts]:
    """Item, later item, and how often, in order: each pair of events d apart counts 1 / d. All pairs of an item come at once."""
    most_pairs_N = window * np.cumsum(item_counts(micro, held_out_B, num_items))  # of the items up to this one
    first = FIRST_KNOWN
    while first < num_items:
        limit = most_pairs_N[first - 1] + _PAIRS_AT_ONCE
        stop = int(np.searchsorted(most_pairs_N, limit, side="right"))
        count, stop = (_sorted_counts, stop) if stop > first else (_dense_counts, first + 1)
        yield count(_Sources(micro, held_out_B, first, stop, may_return), window, num_items)
        first = stop


@dataclass(frozen=True)
class _Sources:
    """The training events of the items ``[first, stop)``, and what comes after them."""

    micro: ViewHistories
    held_out_B: NDArray[np.int8]
    first: int
    stop: int
    may_return: bool

    def events(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Positions of events, and where the training events of their users end."""
        for start in range(0, len(self.micro.ids), _EVENTS_AT_ONCE):
            ids = self.micro.ids[start : start + _EVENTS_AT_ONCE]
            events = start + np.flatnonzero((ids >= self.first) & (ids < self.stop))
            owners = np.searchsorted(self.micro.offsets, events, side="right") - 1
            yield events, self.micro.offsets[owners + 1] - self.held_out_B[owners]

    def pairs(self, events: NDArray[np.int64], stops: NDArray[np.int64], lag: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items of the events, and of those that come ``lag`` later."""
        events = events[events + lag < stops]
        items, successors = self.micro.ids[events].astype(np.int64), self.micro.ids[events + lag].astype(np.int64)
        counted = (successors > UNKNOWN) & (self.may_return | (items != successors))
        return items[counted], successors[counted]


def _sorted_counts(sources: _Sources, window: int, num_items: int) -> _PairCounts:
    """Of items that together have few pairs. What a pair counts is added from the nearest to the farthest."""
    parts = [np.empty(0, np.int64)]
    for events, stops in sources.events():
        for lag in range(1, window + 1):
            items, successors = sources.pairs(events, stops, lag)
            parts.append((items * num_items + successors) * window + (lag - 1))
    keys = np.concatenate(parts)
    del parts
    keys.sort()
    pairs = keys // window
    weights = 1 / (keys - pairs * window + 1)
    is_first = np.diff(pairs, prepend=-1) > 0
    counts = np.bincount(np.cumsum(is_first) - 1, weights=weights).astype(np.float64, copy=False)
    items, successors = np.divmod(pairs[is_first], num_items)
    return items, successors, counts


def _dense_counts(sources: _Sources, window: int, num_items: int) -> _PairCounts:
    """Of one item that has many, in a place for every successor: the same sums, added in the same order."""
    counts_N = np.zeros(num_items)
    for lag in range(1, window + 1):
        for events, stops in sources.events():
            np.add.at(counts_N, sources.pairs(events, stops, lag)[1], 1 / lag)
    successors = np.flatnonzero(counts_N)
    return np.full_like(successors, sources.first), successors, counts_N[successors]
