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
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.outputs import Encoded
from mfn_core.model.paper import PaperNetwork
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import PAD, UNKNOWN

_MAX_SCORES_PER_CHUNK = 2**21
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


def sequence_loss(network: MacroMicroFusionNetwork, batch: Batch, config: TrainingConfig) -> Losses:
    """What the encoders of the default network learn from: the next item and the next app, at all positions."""
    encoded = network.encode(batch)
    next_item = next_item_loss(network, encoded, batch)
    next_app = next_app_loss(network, encoded, batch)
    none = torch.zeros_like(next_item)
    return Losses(next_item + config.next_app_weight * next_app, next_item, next_app, none, none, none)


def joint_loss(network: PaperNetwork, batch: Batch, config: TrainingConfig) -> Losses:
    """What all of the source's network learns from at once."""
    outputs = network(batch)
    next_item = next_item_loss(network, outputs.encoded, batch)
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


def next_item_loss(network: Network, encoded: Encoded, batch: Batch) -> Tensor:
    """Mean cross-entropy of the next item over the whole catalogue, at every position that has one to learn.

    PAD and UNKNOWN are neither targets nor rivals: positions with such a target are left out, and the softmax runs over
    the items from ``UNKNOWN + 1`` on.
    """
    return _next_loss(lambda positions_P: network.next_item_scores(encoded, batch, positions_P), batch.targets_BL)


def next_app_loss(network: MacroMicroFusionNetwork, encoded: Encoded, batch: Batch) -> Tensor:
    """The same of the next app, at every macro position but the last."""
    following_BL = functional.pad(batch.macro_ids_BL[:, 1:], (0, 1), value=PAD)
    return _next_loss(lambda positions_P: network.next_app_scores(encoded, positions_P), following_BL)


def _next_loss(scores_of: Callable[[Tensor], ItemScores], targets_BL: Tensor) -> Tensor:
    targets = targets_BL.flatten()
    positions_P = torch.nonzero(targets > UNKNOWN).squeeze(1)
    scores = scores_of(positions_P)
    return catalogue_cross_entropy(
        scores.query_PD, scores.weight_ND[_FIRST_ITEM:], scores.bias_N[_FIRST_ITEM:], targets[positions_P] - _FIRST_ITEM
    )


def catalogue_cross_entropy(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
    """Mean softmax cross-entropy of the scores q . E_j + b_j at P positions over all N items, without ever holding [P, N] scores.

    0 where P is 0. Under autocast products and softmax are in the autocast type, the sums over chunks in float32.
    """
    return _CatalogueCrossEntropy.apply(query_PD, weight_ND, bias_N, target_P)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Computes the gradients beside the loss, chunk by chunk of positions, while the scores are at hand."""

    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
        """See ``catalogue_cross_entropy``."""
        device = query_PD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query_PD.dtype
        num_positions = max(1, len(query_PD))
        loss = query_PD.new_zeros((), dtype=torch.float32)
        gradients = tuple(torch.zeros_like(tensor, dtype=torch.float32) for tensor in (query_PD, weight_ND, bias_N))
        with torch.autocast(device, enabled=False):
            queries, items, bias = (tensor.to(dtype) for tensor in (query_PD, weight_ND, bias_N))
            chunk = max(1, _MAX_SCORES_PER_CHUNK // max(1, len(items)))
            for start in range(0, len(queries), chunk):
                rows = slice(start, start + chunk)
                target_C1 = target_P[rows, None]
                scores_CN = torch.addmm(bias, queries[rows], items.T)
                softmax_CN = scores_CN.softmax(1)
                # The likeliest item is at least 1 / N likely: its logarithm tells the normalizer where the target's would underflow.
                log_normalizer_C = scores_CN.amax(1).float() - softmax_CN.amax(1).float().log()
                loss += (log_normalizer_C - scores_CN.gather(1, target_C1).squeeze(1).float()).sum() / num_positions
                # d loss / d scores = (softmax - one-hot) / P
                gradient_CN = softmax_CN.scatter_add_(1, target_C1, torch.full_like(target_C1, -1, dtype=dtype))
                gradients[0][rows] = gradient_CN @ items
                gradients[1].add_(gradient_CN.T @ queries[rows])
                gradients[2].add_(gradient_CN.sum(0, dtype=torch.float32))
        ctx.save_for_backward(*(gradient.div_(num_positions) for gradient in gradients))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales the kept gradients."""
        query, weight, bias = (grad_loss * gradient for gradient in ctx.saved_tensors)
        return query, weight, bias, None


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
