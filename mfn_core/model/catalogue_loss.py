"""Softmax cross-entropy over a whole catalogue, without ever holding the scores of all items at all positions."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfn_core.model.encoder import product_dtype

# Scores held at a time. A CPU passes over them in its caches; with many items it pays to add to their gradients less often.
_SCORES_PER_CHUNK_ON_CPU = 2**22
_FEWEST_POSITIONS_PER_CHUNK = 512
_MAX_SCORES_PER_CHUNK = 2**28
# Shapes of products are rounded up to these: oneDNN compiles a kernel for each new shape, which takes longer than a small product. In
# float32 no column is added: its products are not oneDNN's, and columns of zeros take their time.
_POSITION_STEP, _COLUMN_STEP = 128, 16
_STEEP = 0.25  # mean chance of the targets beyond which a rounded mean is rougher than chunks
_MIN_EXPONENT, _MAX_EXPONENT = -40, 60  # exp(60) times a billion is within the range of float32 and of bfloat16, and so is exp(-40)


def catalogue_cross_entropy(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
    """Mean softmax cross-entropy of the scores q . E_j + b_j at P positions over all N items.

    0 where P is 0. Under autocast the products are in the autocast type, the sums in float32.
    """
    if not len(target_P):
        return 0.0 * (query_PD.float().sum() + weight_ND.float().sum() + bias_N.float().sum())
    is_tiled = query_PD.device.type == "cpu" and product_dtype(query_PD) is torch.bfloat16
    way = TiledCrossEntropy if is_tiled else ChunkedCrossEntropy
    return way.apply(query_PD, weight_ND, bias_N, target_P)


class TiledCrossEntropy(torch.autograd.Function):
    """In bfloat16 on a CPU, by its fused attention kernel: the tiles of scores, in float32, never leave the caches.

    The mean of the items' vectors by the softmax over the items is attention of the positions to the items, and less the target's vector
    the queries' gradient; the logarithm of its sum Z_p is the loss, less the target's score. The items' gradient, sum over p of
    exp(s_pj - log Z_p) q_p, is attention the other way round: of the items to the positions, times the sum of its own softmax. Scores are
    computed twice: that is cheaper than to write them into memory and to read them. Not in float32, where it gains little and log Z_p,
    which is rounded between the two, is as rough as the scores are large. The kernel rounds its means to bfloat16: the items' gradients,
    which are small differences of these and the targets' queries where most positions are learned by heart, are taken by chunks then.
    """

    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
        """See ``catalogue_cross_entropy``."""
        dtype = product_dtype(query_PD)
        query_PD, weight_ND, bias_N = query_PD.float(), weight_ND.float(), bias_N.float()
        rounded_PD, rounded_ND = query_PD.to(dtype), weight_ND.to(dtype)
        mean_PD, log_sum_P = _attend(rounded_PD, rounded_ND, bias_N)
        # What is subtracted is rounded by as much as it was before it was added up, or a position that is learned leaves the rounding.
        target_PD, rounded_target_PD = weight_ND.index_select(0, target_P), rounded_ND.index_select(0, target_P).float()
        score_P = (query_PD * target_PD).sum(1) + bias_N[target_P]
        rounded_score_P = (rounded_PD * rounded_target_PD).sum(1) + bias_N[target_P]
        chance_P = (rounded_score_P - log_sum_P).exp_().clamp_(max=1)
        query_gradient_PD = mean_PD - target_PD.lerp_(rounded_target_PD, chance_P[:, None])
        at_target_PD = query_PD.lerp(rounded_PD.float(), chance_P[:, None])
        ctx.is_steep = bool(chance_P.mean() > _STEEP)
        ctx.save_for_backward(rounded_PD, rounded_ND, bias_N, target_P, log_sum_P, at_target_PD, query_gradient_PD)
        return (log_sum_P - score_P.lerp(rounded_score_P, chance_P)).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of queries, items and biases in float32."""
        rounded_PD, rounded_ND, bias_N, target_P, log_sum_P, at_target_PD, query_gradient_PD = ctx.saved_tensors
        scale = grad_loss / len(target_P)
        if ctx.is_steep:
            _, _, *gradients = _by_chunks(rounded_PD.float(), rounded_ND.float(), bias_N, target_P, rounded_PD.dtype)
            return query_gradient_PD * scale, *(gradient * grad_loss for gradient in gradients), None
        mean_ND, log_sum_N = _attend(rounded_ND, rounded_PD, -log_sum_P)
        bias_gradient_N = (log_sum_N + bias_N).exp_().mul_(scale)
        item_gradient_ND = mean_ND.float().mul_(bias_gradient_N[:, None])
        item_gradient_ND.index_add_(0, target_P, at_target_PD * -scale)
        bias_gradient_N.index_add_(0, target_P, -scale.expand(len(target_P)))
        return query_gradient_PD * scale, item_gradient_ND, bias_gradient_N, None


def _attend(query_XD: Tensor, key_YD: Tensor, offset_Y: Tensor) -> tuple[Tensor, Tensor]:
    """Means [X, D] of the keys by the softmax of q . k + offset, and the logarithms [X] of its sums, in float32."""
    means, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query_XD[None, None], key_YD[None, None], key_YD[None, None], attn_mask=offset_Y.expand(1, 1, len(query_XD), -1), scale=1.0
    )
    return means[0, 0], log_sums.flatten()


class ChunkedCrossEntropy(torch.autograd.Function):
    """On a GPU and in float32: the gradients beside the loss, chunk by chunk of positions, while the scores are at hand.

    What takes the time is not the products but the passes over the scores, so there is one beside the products, which takes the
    exponential in place: e_pj = exp(s_pj - r_p), where r_p is near the target's score. Their sum Z_p gives the loss, log Z_p plus r_p less
    the target's score. Bias, reference and Z_p ride along in the products as columns of their own.
    """

    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
        """See ``catalogue_cross_entropy``."""
        loss, *gradients = _by_chunks(query_PD.float(), weight_ND.float(), bias_N.float(), target_P, product_dtype(query_PD))
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales the kept gradients."""
        query, weight, bias = (grad_loss * gradient for gradient in ctx.saved_tensors)
        return query, weight, bias, None


def _by_chunks(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The loss, and the gradients of queries, items and biases; arguments and results in float32, products in ``dtype``."""
    device = query_PD.device.type
    num_positions, width, num_items = *query_PD.shape, len(weight_ND)
    with torch.autocast(device, enabled=False):
        target_PD = weight_ND.index_select(0, target_P)
        target_score_P = (query_PD * target_PD).sum(1) + bias_N[target_P]
        chunk = _positions_per_chunk(num_items, device)
        reference_P = _references(query_PD, weight_ND, bias_N, target_score_P, chunk).to(dtype)
        items_NK = _columns(weight_ND, bias_N, torch.ones_like(bias_N), num_rows=num_items, dtype=dtype)
        num_rows = -(-num_positions // _POSITION_STEP) * _POSITION_STEP
        queries_PK = _columns(query_PD, torch.ones_like(reference_P), -reference_P, num_rows=num_rows, dtype=dtype)
        loss = query_PD.new_zeros(())
        query_gradient_PD = torch.empty_like(query_PD)
        # Columns first: the product with the transposed scores on the left takes half as long again on a CPU.
        item_gradient_KN = items_NK.new_zeros(items_NK.shape[::-1], dtype=torch.float32)
        for start in range(0, num_positions, chunk):
            rows = slice(start, min(start + chunk, num_positions))
            here = slice(0, rows.stop - start)
            at_target = (torch.arange(rows.stop - start, device=device), target_P[rows])
            exponential_CN = (queries_PK[start : start + chunk] @ items_NK.T).exp_()
            summed_CK = (exponential_CN @ items_NK).float()
            normalizer_C1 = summed_CK[:, width + 1, None]
            loss += (normalizer_C1[here, 0].log() + reference_P[rows].float() - target_score_P[rows]).sum()
            query_gradient_PD[rows] = summed_CK[here, :width] / normalizer_C1[here]
            # d loss / d scores = e / Z - one-hot, here times Z.
            exponential_CN[at_target] = (exponential_CN[at_target].float() - normalizer_C1[here, 0]).to(dtype)
            _add_product(item_gradient_KN, (queries_PK[start : start + chunk].float() / normalizer_C1).to(dtype).T, exponential_CN)
    query_gradient_PD -= target_PD
    gradients = (query_gradient_PD, item_gradient_KN[:width].T.contiguous(), item_gradient_KN[width])
    return loss / num_positions, *(gradient / num_positions for gradient in gradients)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype is total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _positions_per_chunk(num_items: int, device: str) -> int:
    most = max(1, _MAX_SCORES_PER_CHUNK // num_items)
    return min(most, max(_FEWEST_POSITIONS_PER_CHUNK, _SCORES_PER_CHUNK_ON_CPU // num_items)) if device == "cpu" else most


def _references(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_score_P: Tensor, chunk: int) -> Tensor:
    """What scores are compared with: no exponential of a difference overflows, and at least one of a position is far from underflow.

    The target's score, where it is near enough to a bound of all scores (Cauchy-Schwarz); the highest score, which takes a pass
    over all of them, only where that leaves room for underflow.
    """
    bound_P = query_PD.norm(dim=1) * weight_ND.norm(dim=1).amax() + bias_N.amax()
    reference_P = torch.maximum(target_score_P, bound_P - _MAX_EXPONENT)
    if not (reference_P - target_score_P > -_MIN_EXPONENT).any():
        return reference_P
    return torch.cat([torch.addmm(bias_N, queries_CD, weight_ND.T).amax(1) for queries_CD in query_PD.split(chunk)])


def _columns(matrix: Tensor, *columns: Tensor, num_rows: int, dtype: torch.dtype) -> Tensor:
    """The matrix with further columns, and zeros below and to the right of both."""
    width, step = matrix.shape[1] + len(columns), 1 if dtype is torch.float32 else _COLUMN_STEP
    whole = matrix.new_zeros(num_rows, -(-width // step) * step, dtype=dtype)
    whole[: len(matrix), : matrix.shape[1]] = matrix
    for place, column in enumerate(columns, start=matrix.shape[1]):
        whole[: len(matrix), place] = column
    return whole
