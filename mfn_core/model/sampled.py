"""Cross-entropy over a catalogue too large to be scored as a whole: the target against a sample of the others.

All positions of a step share S negatives, half of them drawn by popularity, half uniformly, with replacement. A negative j counts as
often as it stands for others: its exponential is divided by the times it is expected in the sample, S Q(j) (the logQ correction of
Bengio & Senecal 2008), so that the expectation of the softmax's normalizer is the normalizer itself::

    Z = exp(s_t) + sum over negatives j, j not t, of exp(s_j) / (S Q(j))          loss = log Z - s_t

The target is in every sample, so its own score is not corrected, and an accidental hit of it among the negatives does not count.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mfn_core.schema import UNKNOWN

# A step's time and memory with all entries grow in proportion to them: here to some ten times those of everything else in the network.
_ALL_UP_TO = 2**18
_NUM_NEGATIVES = 1024
_FIRST_ENTRY = UNKNOWN + 1


class NegativeSampler:
    """Draws the negatives of a step from torch's generator of the device; nothing waits for the device.

    Args:
        counts_N: events of each entry of the catalogue; PAD and UNKNOWN are never drawn.
        num_negatives: S, at least 2.
        device: of the samples.
        is_sparse: the gradient of the entries' table holds the rows of targets and negatives alone.
    """

    def __init__(self, counts_N: NDArray[np.float64], num_negatives: int, device: torch.device, *, is_sparse: bool) -> None:
        popular = np.where(np.arange(len(counts_N)) < _FIRST_ENTRY, 0, counts_N)
        popular = popular / popular.sum()
        self.is_sparse = is_sparse
        self._num_popular = num_negatives // 2
        self._num_uniform = num_negatives - self._num_popular
        # In float64: in float32 the steps of a million entries are coarser than the shares of the rare ones.
        self._cumulative_N = torch.from_numpy(np.cumsum(popular)).to(device)
        expected_N = self._num_popular * popular + self._num_uniform / (len(counts_N) - _FIRST_ENTRY)
        self._log_expected_N = torch.from_numpy(np.log(expected_N).astype(np.float32)).to(device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Entries [S], the popular ones first, and the log of how often each is expected in such a sample [S]."""
        num_entries, device = len(self._cumulative_N), self._cumulative_N.device
        places = torch.rand(self._num_popular, dtype=torch.float64, device=device)
        popular = torch.searchsorted(self._cumulative_N, places, right=True).clamp(max=num_entries - 1)
        uniform = torch.randint(_FIRST_ENTRY, num_entries, (self._num_uniform,), device=device)
        entries_S = torch.cat([popular, uniform])
        return entries_S, self._log_expected_N[entries_S]


@dataclass(frozen=True)
class Sampling:
    """The samplers of both catalogues; None: all entries are scored."""

    items: NegativeSampler | None
    apps: NegativeSampler | None


EVERYTHING = Sampling(None, None)


def num_sampled(num_negatives: int | None, num_entries: int) -> int | None:
    """Negatives a step for a catalogue of so many entries, or None: all of it.

    Args:
        num_negatives: as set; a catalogue that is no larger is scored as a whole. None: 1,024 beyond 262,144 entries.
        num_entries: PAD and UNKNOWN included.
    """
    if num_negatives is None:
        return _NUM_NEGATIVES if num_entries > _ALL_UP_TO else None
    return num_negatives if num_entries > num_negatives else None


def sampled_cross_entropy(
    query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor, sampler: NegativeSampler, counted_P: Tensor | None = None
) -> Tensor:
    """Mean over P positions of the cross-entropy of the target among the sampler's negatives; 0 where no position counts.

    Args:
        query_PD: a position's score of entry j is q . E_j + b_j.
        weight_ND: of the whole catalogue, PAD and UNKNOWN included.
        bias_N: likewise.
        target_P: entries.
        sampler: of this catalogue.
        counted_P: True at the positions that count. None: all of them.
    """
    num_positions = len(target_P)
    entries_S, log_expected_S = sampler.draw()
    rows = functional.embedding(torch.cat([target_P, entries_S]), weight_ND, sparse=sampler.is_sparse)
    biases = bias_N[torch.cat([target_P, entries_S])]
    own_P = (query_PD * rows[:num_positions]).sum(1).float() + biases[:num_positions]
    scores_PS = (query_PD @ rows[num_positions:].T).float() + (biases[num_positions:] - log_expected_S)
    # Not minus infinity: where all negatives are the target itself, its gradient would be no number.
    others_P = scores_PS.masked_fill(target_P[:, None] == entries_S, torch.finfo(torch.float32).min).logsumexp(1)
    losses_P = torch.logaddexp(own_P, others_P) - own_P
    if counted_P is None:
        return losses_P.sum() / max(num_positions, 1)
    return (losses_P * counted_P).sum() / counted_P.sum().clamp(min=1)
