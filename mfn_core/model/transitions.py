"""Which item has followed which: sparse residuals of the next-item scores.

A network needs many steps to say what a table of counts knows after one pass; the table knows nothing of a history. The score of
an item is the sum of both::

    s_j = q . E_j + b_j + sum_k alpha_k log(1 + P(j | i_k) / P(j))        P(j | i) = n_ij / (sum_j n_ij + kappa)

over the latest items i_1, i_2, ... of the history. With b_j = log P(j), q = 0 and one item at alpha = 1 this is the log of the bigram
estimate, smoothed by popularity: the rule of counts is a special case of the network.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_core.data.histories import ViewHistories
from mfn_core.schema import PAD, UNKNOWN

_KAPPA = 3.0
_LEAST_POPULARITY = 1e-5
_INITIAL_ALPHA = 0.3


class Transitions(nn.Module):
    """The ``num_successors`` most frequent successors of every item, counted on training events; only alpha is learned.

    Two items d events apart, ``d <= window``, count 1 / d. The ``window`` latest items of a history take part, each with an alpha of its
    own, by how long ago it was. A window of 1 is the bigram.
    """

    def __init__(self, *, num_items: int, num_successors: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.alpha_W = nn.Parameter(_INITIAL_ALPHA / torch.arange(1, window + 1))
        self.register_buffer("successors_NM", torch.zeros(num_items, num_successors, dtype=torch.int32))
        self.register_buffer("counts_NM", torch.zeros(num_items, num_successors))
        self.register_buffer("totals_N", torch.zeros(num_items))
        self.register_buffer("popularity_N", torch.full((num_items,), 1 / num_items))
        self.successors_NM: Tensor
        self.counts_NM: Tensor
        self.totals_N: Tensor
        self.popularity_N: Tensor

    def fit(self, micro: ViewHistories, held_out_B: NDArray[np.int8]) -> None:
        """Counts pairs of events that are not held out; UNKNOWN items and repetitions of an item take no part."""
        num_items, num_kept = self.successors_NM.shape
        items, successors, counts = _pair_counts(micro, held_out_B, self.window, num_items)
        order = np.lexsort((successors, -counts, items))
        items, successors, counts = items[order], successors[order], counts[order]
        places = np.arange(len(items)) - np.searchsorted(items, items)
        kept = places < num_kept
        self.successors_NM[items[kept], places[kept]] = torch.from_numpy(successors[kept].astype(np.int32))
        self.counts_NM[items[kept], places[kept]] = torch.from_numpy(counts[kept].astype(np.float32))
        totals_N = np.bincount(items, weights=counts, minlength=num_items)
        self.totals_N.copy_(torch.from_numpy(totals_N.astype(np.float32)))
        self.popularity_N.copy_(torch.from_numpy(item_shares(micro, held_out_B, num_items).astype(np.float32)))

    def forward(self, ids_BL: Tensor, users_P: Tensor, steps_P: Tensor, target_P: Tensor | None) -> tuple[Tensor, Tensor]:
        """Items [P, window x M] that have followed the latest ones, and what each gains; free places are PAD and gain 0.

        Args:
            ids_BL: Histories.
            users_P: Row of each position in ``ids_BL``.
            steps_P: Latest event that each position may read.
            target_P: In training, the item that follows: its pairs are among those counted, and are taken out, or the table would know
                the answer. None: nothing is taken out.
        """
        answers = [self._lag(ids_BL, users_P, steps_P, target_P, lag) for lag in range(1, self.window + 1)]
        return torch.cat([successors for successors, _ in answers], 1), torch.cat([gains for _, gains in answers], 1)

    def _lag(self, ids_BL: Tensor, users_P: Tensor, steps_P: Tensor, target_P: Tensor | None, lag: int) -> tuple[Tensor, Tensor]:
        events_P = steps_P - (lag - 1)
        items_P = ids_BL[users_P, events_P.clamp(min=0)].masked_fill(events_P < 0, PAD)
        successors_PM = self.successors_NM[items_P].long()
        counts_PM, totals_P = self.counts_NM[items_P], self.totals_N[items_P]
        if target_P is not None:
            counts_PM = (counts_PM - (successors_PM == target_P[:, None]) / lag).clamp(min=0)
            totals_P = (totals_P - 1 / lag).clamp(min=0)
        lift_PM = counts_PM / ((totals_P[:, None] + _KAPPA) * self.popularity_N[successors_PM])
        return successors_PM, self.alpha_W[lag - 1] * torch.log1p(lift_PM)


def item_shares(micro: ViewHistories, held_out_B: NDArray[np.int8], num_items: int) -> NDArray[np.float64]:
    """Share of each item in the events that are not held out, at least 1e-5."""
    seen_N = np.bincount(micro.ids[_is_training(micro, held_out_B)], minlength=num_items).astype(np.float64)
    seen_N[: UNKNOWN + 1] = 0
    return np.maximum(seen_N / max(seen_N.sum(), 1), _LEAST_POPULARITY)


def _is_training(micro: ViewHistories, held_out_B: NDArray[np.int8]) -> NDArray[np.bool_]:
    owner = np.repeat(np.arange(len(held_out_B)), micro.lengths)
    return np.arange(len(micro.ids)) < (micro.offsets[1:] - held_out_B)[owner]


def _pair_counts(
    micro: ViewHistories, held_out_B: NDArray[np.int8], window: int, num_items: int
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
        counted = (items > UNKNOWN) & (successors > UNKNOWN) & (items != successors)
        keys.append(items[counted] * num_items + successors[counted])
        weights.append(np.full(int(counted.sum()), 1 / lag))
    pairs, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    items, successors = np.divmod(pairs, num_items)
    return items, successors, np.bincount(inverse, weights=np.concatenate(weights), minlength=len(pairs)).astype(np.float64)
