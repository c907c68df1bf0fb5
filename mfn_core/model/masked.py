"""Cross-entropy over the whole catalogue at a fixed number of positions, of which some do not count.

For a GPU: asking it how many do would make the host wait, and a captured step has shapes that depend on no value.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfn_core.model.encoder import product_dtype
from mfn_core.schema import FIRST_KNOWN

_MAX_SCORES_PER_CHUNK = 2**28
_STEP = 8  # sizes of products are rounded up to it: tensor cores read rows that begin at multiples of 16 bytes


def masked_cross_entropy(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor, counted_P: Tensor) -> Tensor:
    """Mean of the softmax cross-entropy of the scores q . E_j + b_j over the positions that count.

    0 where none does, as in a view that a deployment lacks, whose catalogue has no item to score.

    Under autocast products and probabilities are in the autocast type, sums over chunks in float32. A target's probability below the
    smallest number of its type adds the logarithm of that number; the gradient is right throughout.

    Args:
        query_PD: P positions.
        weight_ND: of the whole catalogue, PAD and UNKNOWN included, which are neither targets nor rivals.
        bias_N: likewise.
        target_P: items; anything where a position does not count.
        counted_P: True at the positions that count.
    """
    if len(weight_ND) <= FIRST_KNOWN:
        return 0.0 * (query_PD.float().sum() + weight_ND.float().sum() + bias_N.float().sum())
    share_P = counted_P / counted_P.sum().clamp(min=1)
    return _MaskedCrossEntropy.apply(query_PD, weight_ND, bias_N, target_P, share_P)


class _MaskedCrossEntropy(torch.autograd.Function):
    """Computes the gradients beside the loss, chunk by chunk of positions, while the scores are at hand: five passes over them."""

    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor, share_P: Tensor) -> Tensor:
        """See ``masked_cross_entropy``; ``share_P`` is what a position's loss is multiplied with."""
        dtype = product_dtype(query_PD)
        (num_positions, width), num_items = query_PD.shape, len(weight_ND)
        with torch.autocast(query_PD.device.type, enabled=False):
            items_ND = weight_ND.new_empty(_rounded_up(num_items), width, dtype=dtype)
            items_ND[:num_items] = weight_ND
            items_ND[num_items:] = 0
            biases_N = bias_N.new_full((len(items_ND),), -torch.inf, dtype=dtype)
            biases_N[FIRST_KNOWN:num_items] = bias_N[FIRST_KNOWN:]
            # Beside the queries a column of their shares, for the gradient of the biases.
            shared_PK = query_PD.new_zeros(num_positions, _rounded_up(width + 1), dtype=dtype)
            torch.mul(query_PD, share_P[:, None], out=shared_PK[:, :width])
            shared_PK[:, width] = share_P
            queries_PD = query_PD.to(dtype)
            of_target_P1 = query_PD.new_empty(num_positions, 1, dtype=dtype)
            query_gradient_PD = query_PD.new_empty(query_PD.shape, dtype=torch.float32)
            item_gradient_NK = items_ND.new_zeros(len(items_ND), shared_PK.shape[1], dtype=torch.float32)
            for rows in _chunks(num_positions, len(items_ND)):
                target_C1, share_C1 = target_P[rows, None], share_P[rows, None]
                probability_CN = torch.addmm(biases_N, queries_PD[rows], items_ND.T).softmax(1)
                torch.gather(probability_CN, 1, target_C1, out=of_target_P1[rows])
                # d loss / d scores = probability - one-hot, here without the share.
                probability_CN.scatter_(1, target_C1, of_target_P1[rows] - 1)
                torch.mul(probability_CN @ items_ND, share_C1, out=query_gradient_PD[rows])
                item_gradient_NK += probability_CN.T @ shared_PK[rows]
            loss = -(of_target_P1[:, 0].float().clamp(min=torch.finfo(dtype).tiny).log() * share_P).sum()
        ctx.save_for_backward(query_gradient_PD, item_gradient_NK[:num_items, :width], item_gradient_NK[:num_items, width])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales the kept gradients."""
        query, weight, bias = (grad_loss * gradient for gradient in ctx.saved_tensors)
        return query, weight, bias, None, None


def _chunks(num_positions: int, num_items: int) -> list[slice]:
    size = max(1, _MAX_SCORES_PER_CHUNK // num_items)
    return [slice(start, min(start + size, num_positions)) for start in range(0, num_positions, size)]


def _rounded_up(size: int) -> int:
    return -(-size // _STEP) * _STEP
