"""What the networks are trained on: what comes next, and in the paper preset activity, attributes and mutual information beside it.

A loss without a label in the batch is 0. The default network's readers and affinity learn afterwards, see ``training/labels.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mfn_core.config import TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.model.builder import Network
from mfn_core.model.encoder import product_dtype
from mfn_core.model.masked import masked_cross_entropy
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.outputs import Encoded
from mfn_core.model.paper import PaperNetwork
from mfn_core.model.sampled import EVERYTHING, NegativeSampler, Sampling, sampled_cross_entropy
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import PAD, UNKNOWN

# Scores held at a time. A CPU passes over them in its caches; with many items it pays to add to their gradients less often.
_SCORES_PER_CHUNK_ON_CPU = 2**22
_FEWEST_POSITIONS_PER_CHUNK = 512
_MAX_SCORES_PER_CHUNK = 2**28
# Shapes of products are rounded up to these: oneDNN compiles a kernel for each new shape, which takes longer than a small product.
_POSITION_STEP, _COLUMN_STEP = 128, 16
_MIN_EXPONENT, _MAX_EXPONENT = -40, 60  # exp(60) times a billion is within the range of float32 and of bfloat16, and so is exp(-40)
_FIRST_ITEM = UNKNOWN + 1


@dataclass(frozen=True)
class Losses:
    """Scalars; ``total`` is the weighted sum to minimize, the others are unweighted. What a preset does not minimize is 0."""

    total: Tensor
    next_item: Tensor
    next_app: Tensor
    activity: Tensor
    attribute: Tensor
    mutual_information: Tensor


def sequence_loss(
    network: MacroMicroFusionNetwork,
    batch: Batch,
    config: TrainingConfig,
    sampling: Sampling = EVERYTHING,
    num_targets: int | None = None,
) -> Losses:
    """What the encoders of the default network learn from: the next item and the next app, at all positions.

    Args:
        network: in training mode.
        batch: of prefix ``train``.
        config: weights of the losses.
        sampling: which catalogues are sampled.
        num_targets: at least the next items to learn in the batch; with it no shape depends on a value, and nothing waits for a GPU.
            None: they are counted.
    """
    encoded = network.encode(batch)
    next_item = next_item_loss(network, encoded, batch, sampling.items, num_targets)
    next_app = next_app_loss(network, encoded, batch, sampling.apps, None if num_targets is None else batch.macro_ids_BL.numel())
    none = torch.zeros_like(next_item)
    return Losses(next_item + config.next_app_weight * next_app, next_item, next_app, none, none, none)


def joint_loss(
    network: PaperNetwork, batch: Batch, config: TrainingConfig, sampling: Sampling = EVERYTHING, num_targets: int | None = None
) -> Losses:
    """What all of the source's network learns from at once; arguments as of ``sequence_loss``."""
    outputs = network(batch)
    next_item = next_item_loss(network, outputs.encoded, batch, sampling.items, num_targets)
    activity = activity_loss(outputs.activity_logits_B, batch.activity_B)
    attribute = attribute_loss(outputs.attribute_logits, batch.attributes_BA)
    both_views_B = (batch.macro_lengths_B > 0) & (batch.micro_lengths_B > 0)
    mutual_information = mutual_information_loss(
        outputs.encoded.user_macro_BD, outputs.encoded.user_micro_BD, batch.rows_B, both_views_B, config.temperature
    )
    total = (
        next_item
        + config.activity_weight * activity
        + config.attribute_weight * attribute
        + config.mutual_information_weight * mutual_information
    )
    return Losses(total, next_item, torch.zeros_like(next_item), activity, attribute, mutual_information)


def next_item_loss(
    network: Network, encoded: Encoded, batch: Batch, sampler: NegativeSampler | None = None, num_targets: int | None = None
) -> Tensor:
    """Mean cross-entropy of the next item over the whole catalogue, or a sample of it, at every position that has one to learn.

    PAD and UNKNOWN are neither targets nor rivals: positions with such a target are left out, and the softmax runs over
    the items from ``UNKNOWN + 1`` on.
    """
    return _next_loss(lambda positions_P: network.next_item_scores(encoded, batch, positions_P), batch.targets_BL, sampler, num_targets)


def next_app_loss(
    network: MacroMicroFusionNetwork, encoded: Encoded, batch: Batch, sampler: NegativeSampler | None = None, num_targets: int | None = None
) -> Tensor:
    """The same of the next app, at every macro position but the last."""
    following_BL = functional.pad(batch.macro_ids_BL[:, 1:], (0, 1), value=PAD)
    return _next_loss(lambda positions_P: network.next_app_scores(encoded, positions_P), following_BL, sampler, num_targets)


def _next_loss(
    scores_of: Callable[[Tensor], ItemScores], targets_BL: Tensor, sampler: NegativeSampler | None, num_targets: int | None
) -> Tensor:
    targets = targets_BL.flatten()
    if num_targets is not None:
        positions_P = (targets > UNKNOWN).byte().argsort(descending=True, stable=True)[:num_targets]
        target_P, counted_P = targets[positions_P], targets[positions_P] > UNKNOWN
        scores = scores_of(positions_P)
        if sampler is None:
            return masked_cross_entropy(scores.query_PD, scores.weight_ND, scores.bias_N, target_P, counted_P)
        return sampled_cross_entropy(scores.query_PD, scores.weight_ND, scores.bias_N, target_P, sampler, counted_P)
    positions_P = torch.nonzero(targets > UNKNOWN).squeeze(1)
    scores = scores_of(positions_P)
    if sampler is not None:
        return sampled_cross_entropy(scores.query_PD, scores.weight_ND, scores.bias_N, targets[positions_P], sampler)
    return catalogue_cross_entropy(
        scores.query_PD, scores.weight_ND[_FIRST_ITEM:], scores.bias_N[_FIRST_ITEM:], targets[positions_P] - _FIRST_ITEM
    )


def catalogue_cross_entropy(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
    """Mean softmax cross-entropy of the scores q . E_j + b_j at P positions over all N items, without ever holding [P, N] scores.

    0 where P is 0. Under autocast products and softmax are in the autocast type, the sums over chunks in float32.
    """
    if not len(target_P):
        return 0.0 * (query_PD.float().sum() + weight_ND.float().sum() + bias_N.float().sum())
    return _CatalogueCrossEntropy.apply(query_PD, weight_ND, bias_N, target_P)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Computes the gradients beside the loss, chunk by chunk of positions, while the scores are at hand.

    What takes the time is not the products but the passes over the scores, so there is one beside the products, which takes the
    exponential in place: e_pj = exp(s_pj - r_p), where r_p is near the target's score. Their sum Z_p gives the loss, log Z_p plus r_p less
    the target's score. Bias, reference and Z_p ride along in the products as columns of their own.
    """

    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
        """See ``catalogue_cross_entropy``."""
        device = query_PD.device.type
        dtype = product_dtype(query_PD)
        num_positions, width, num_items = *query_PD.shape, len(weight_ND)
        with torch.autocast(device, enabled=False):
            query_PD, weight_ND, bias_N = query_PD.float(), weight_ND.float(), bias_N.float()
            target_PD = weight_ND[target_P]
            target_score_P = (query_PD * target_PD).sum(1) + bias_N[target_P]
            chunk = _positions_per_chunk(num_items, device)
            reference_P = _references(query_PD, weight_ND, bias_N, target_score_P, chunk).to(dtype)
            items_NK = _columns(weight_ND, bias_N, torch.ones_like(bias_N), num_rows=num_items, dtype=dtype)
            num_rows = -(-num_positions // _POSITION_STEP) * _POSITION_STEP
            queries_PK = _columns(query_PD, torch.ones_like(reference_P), -reference_P, num_rows=num_rows, dtype=dtype)
            loss = query_PD.new_zeros(())
            query_gradient_PD = torch.empty_like(query_PD)
            item_gradient_NK = torch.zeros_like(items_NK, dtype=torch.float32)
            for start in range(0, num_positions, chunk):
                rows = slice(start, min(start + chunk, num_positions))
                here, target_C1 = slice(0, rows.stop - start), target_P[rows, None]
                exponential_CN = (queries_PK[start : start + chunk] @ items_NK.T).exp_()
                summed_CK = (exponential_CN @ items_NK).float()
                normalizer_C1 = summed_CK[:, width + 1, None]
                loss += (normalizer_C1[here, 0].log() + reference_P[rows].float() - target_score_P[rows]).sum()
                query_gradient_PD[rows] = summed_CK[here, :width] / normalizer_C1[here]
                # d loss / d scores = e / Z - one-hot, here times Z.
                at_target_C1 = exponential_CN[here].gather(1, target_C1)
                exponential_CN[here].scatter_(1, target_C1, (at_target_C1.float() - normalizer_C1[here]).to(dtype))
                item_gradient_NK += exponential_CN.T @ (queries_PK[start : start + chunk].float() / normalizer_C1).to(dtype)
        query_gradient_PD -= target_PD
        gradients = (query_gradient_PD, item_gradient_NK[:, :width], item_gradient_NK[:, width])
        ctx.save_for_backward(*(gradient / num_positions for gradient in gradients))
        return loss / num_positions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales the kept gradients."""
        query, weight, bias = (grad_loss * gradient for gradient in ctx.saved_tensors)
        return query, weight, bias, None


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
    width = matrix.shape[1] + len(columns)
    whole = matrix.new_zeros(num_rows, -(-width // _COLUMN_STEP) * _COLUMN_STEP, dtype=dtype)
    whole[: len(matrix), : matrix.shape[1]] = matrix
    for place, column in enumerate(columns, start=matrix.shape[1]):
        whole[: len(matrix), place] = column
    return whole


def activity_loss(activity_logits_B: Tensor, activity_B: Tensor) -> Tensor:
    """Mean binary cross-entropy over the labelled users; 0 where there are none."""
    labelled_B = ~activity_B.isnan()
    losses_B = functional.binary_cross_entropy_with_logits(
        activity_logits_B.float(), activity_B.nan_to_num(0.0), weight=labelled_B.float(), reduction="sum"
    )
    return losses_B / labelled_B.sum().clamp(min=1)


def attribute_loss(attribute_logits: Sequence[Tensor], attributes_BA: Tensor) -> Tensor:
    """Cross-entropy over the labelled users of each attribute, averaged over attributes; one without a label counts 0."""
    total = torch.zeros((), device=attributes_BA.device)
    for attribute, logits in enumerate(attribute_logits):
        labels_B = attributes_BA[:, attribute]
        summed = functional.cross_entropy(logits.float(), labels_B, ignore_index=-1, reduction="sum")
        total = total + summed / (labels_B >= 0).sum().clamp(min=1)
    return total / max(1, len(attribute_logits))


def mutual_information_loss(
    user_macro_BD: Tensor, user_micro_BD: Tensor, rows_B: Tensor, both_views_B: Tensor, temperature: float
) -> Tensor:
    """Symmetric InfoNCE between the two views of the same user, on cosines.

    Users that lack a view take no part. Another row of the same user is neither positive nor negative. Fewer than two
    users leave nothing to tell apart: the loss is 0, with gradient 0.

    Args:
        user_macro_BD: u_g.
        user_micro_BD: u_l.
        rows_B: Equal rows are the same user.
        both_views_B: True where the user has both views.
        temperature: Divides the cosines.
    """
    num_users = len(rows_B)
    with torch.autocast(user_macro_BD.device.type, enabled=False):
        macro_BD = functional.normalize(user_macro_BD.float(), dim=1)
        micro_BD = functional.normalize(user_micro_BD.float(), dim=1)
        cosines_BB = macro_BD @ micro_BD.T / temperature
    own_BB = torch.eye(num_users, dtype=torch.bool, device=rows_B.device)
    rivals_BB = (rows_B[:, None] != rows_B) & both_views_B[:, None] & both_views_B
    logits_BB = cosines_BB.masked_fill(~(own_BB | rivals_BB), -torch.inf)
    # A user that takes no part is alone in its row and column: its cross-entropy is 0 by itself.
    own_B = torch.arange(num_users, device=rows_B.device)
    summed = sum(functional.cross_entropy(logits, own_B, reduction="sum") for logits in (logits_BB, logits_BB.T))
    return summed / (2 * both_views_B.sum().clamp(min=1))
