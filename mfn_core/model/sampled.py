"""Cross-entropy over a catalogue too large to be scored as a whole: the target against a sample of the others.

All positions of a step share S negatives, half of them drawn by popularity, half uniformly, with replacement. A negative j counts as
often as it stands for others: its exponential is divided by the times it is expected in the sample, S Q(j) (the logQ correction of
Bengio & Senecal 2008), so that the expectation of the softmax's normalizer is the normalizer itself::

    Z = exp(s_t) + sum over negatives j, j not t, of exp(s_j) / (S Q(j))          loss = log Z - s_t

The target is in every sample, so its own score is not corrected, and an accidental hit of it among the negatives does not count.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfn_core.model.embedding import rows_of
from mfn_core.model.encoder import product_dtype
from mfn_core.schema import FIRST_KNOWN

# A step's time and memory with all entries grow in proportion to them: here to some ten times those of everything else in the network.
_ALL_UP_TO = 2**18
_NUM_NEGATIVES = 1024
_COLUMN_STEP = 16  # widths of products are rounded up to it: what processors multiply at a time


class NegativeSampler:
    """Draws the negatives of a step from torch's generator of the device; nothing waits for the device.

    Args:
        counts_N: events of each entry of the catalogue; PAD and UNKNOWN are never drawn.
        num_negatives: S, at least 2.
        device: of the samples.
        is_sparse: the gradient of the entries' table holds the rows of targets and negatives alone.
    """

    def __init__(self, counts_N: NDArray[np.float64], num_negatives: int, device: torch.device, *, is_sparse: bool) -> None:
        popular = np.where(np.arange(len(counts_N)) < FIRST_KNOWN, 0, counts_N)
        popular = popular / popular.sum()
        self.is_sparse = is_sparse
        self._num_popular = num_negatives // 2
        self._num_uniform = num_negatives - self._num_popular
        # In float64: in float32 the steps of a million entries are coarser than the shares of the rare ones.
        self._cumulative_N = torch.from_numpy(np.cumsum(popular)).to(device)
        expected_N = self._num_popular * popular + self._num_uniform / (len(counts_N) - FIRST_KNOWN)
        self._log_expected_N = torch.from_numpy(np.log(expected_N).astype(np.float32)).to(device)

    @property
    def num_negatives(self) -> int:
        """S."""
        return self._num_popular + self._num_uniform

    def draw(self) -> tuple[Tensor, Tensor]:
        """Entries [S], the popular ones first, and the log of how often each is expected in such a sample [S]."""
        num_entries, device = len(self._cumulative_N), self._cumulative_N.device
        places = torch.rand(self._num_popular, dtype=torch.float64, device=device)
        popular = torch.searchsorted(self._cumulative_N, places, right=True).clamp(max=num_entries - 1)
        uniform = torch.randint(FIRST_KNOWN, num_entries, (self._num_uniform,), device=device)
        entries_S = torch.cat([popular, uniform])
        return entries_S, self._log_expected_N.index_select(0, entries_S)


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
    entries_S, log_expected_S = sampler.draw()
    entries = torch.cat([target_P, entries_S])
    rows = rows_of(weight_ND, entries, is_sparse=sampler.is_sparse)
    hit_PS = target_P.int()[:, None] == entries_S.int()
    if counted_P is None:
        share_P = torch.full_like(target_P, 1 / max(len(target_P), 1), dtype=torch.float32)
    else:
        share_P = counted_P / counted_P.sum().clamp(min=1)
    return _SampledCrossEntropy.apply(query_PD, rows, bias_N.index_select(0, entries), log_expected_S, hit_PS, share_P)


class _SampledCrossEntropy(torch.autograd.Function):
    """Computes the gradients beside the loss, while the scores are at hand; all scores are relative to the target's."""

    @staticmethod
    def forward(
        ctx: Any, query_PD: Tensor, rows_ED: Tensor, biases_E: Tensor, log_expected_S: Tensor, hit_PS: Tensor, share_P: Tensor
    ) -> Tensor:
        """Sum over the positions of share times loss; E = P + S entries, the targets and then the negatives."""
        num_positions, width = query_PD.shape
        dtype = product_dtype(query_PD)
        with torch.autocast(query_PD.device.type, enabled=False):
            query_PD = query_PD.float()
            target_PD, negative_SD = rows_ED[:num_positions], rows_ED[num_positions:]
            own_P = (query_PD * target_PD).sum(1) + biases_E[:num_positions]
            # Columns of what is added to the products, the other side's being 1, for the queries and then for the negatives.
            queries_PK, negatives_SK = _beside(query_PD, 4, 0, dtype), _beside(negative_SD, 4, 1, dtype)
            queries_PK[:, -4:-2] = 1
            _in_two(-own_P, queries_PK[:, -2:])
            _in_two(biases_E[num_positions:] - log_expected_S, negatives_SK[:, -4:-2])
            scores_PS = (queries_PK @ negatives_SK.T).masked_fill_(hit_PS, -torch.inf)
            highest_P1 = scores_PS.amax(1, keepdim=True).clamp_(min=0)
            exponential_PS = scores_PS.sub_(highest_P1).exp_()
            summed_PK = (exponential_PS @ negatives_SK).float()
            own_exponential_P = (-highest_P1[:, 0].float()).exp()
            normalizer_P = summed_PK[:, -1] + own_exponential_P
            loss = ((normalizer_P.log() + highest_P1[:, 0].float()) * share_P).sum()
            # d loss / d scores: the share of the exponentials, and for the target 1 less.
            weight_P = share_P / normalizer_P
            of_target_P = weight_P * own_exponential_P - share_P
            weighted_PK = query_PD.new_zeros(num_positions, _width(width + 1), dtype=dtype)
            torch.mul(query_PD, weight_P[:, None], out=weighted_PK[:, :width])
            weighted_PK[:, -1] = weight_P
            negative_gradient_SK = (exponential_PS.T @ weighted_PK).float()
        ctx.save_for_backward(
            weight_P[:, None] * summed_PK[:, :width] + of_target_P[:, None] * target_PD,
            torch.cat([of_target_P[:, None] * query_PD, negative_gradient_SK[:, :width]]),
            torch.cat([of_target_P, negative_gradient_SK[:, -1]]),
        )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales the kept gradients."""
        query, rows, biases = (grad_loss * gradient for gradient in ctx.saved_tensors)
        return query, rows, biases, None, None, None


def _in_two(values: Tensor, out_X2: Tensor) -> None:
    """A number, and what its rounding leaves: biases are as large as scores differ, and a product adds both in float32."""
    out_X2[:, 0] = values
    torch.sub(values, out_X2[:, 0], out=out_X2[:, 1])


def _beside(matrix: Tensor, num_more: int, rest: float, dtype: torch.dtype) -> Tensor:
    """The matrix, and beyond it so many columns and more, up to a round width, of one number."""
    whole = matrix.new_full((len(matrix), _width(matrix.shape[1] + num_more)), rest, dtype=dtype)
    whole[:, : matrix.shape[1]] = matrix
    return whole


def _width(num_columns: int) -> int:
    return -(-num_columns // _COLUMN_STEP) * _COLUMN_STEP
