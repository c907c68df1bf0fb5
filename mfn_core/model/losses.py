"""What the network is trained on: next item, activity, attributes, and the mutual information of the two views.

total = next item + w_activity activity + w_attribute attribute + w_information InfoNCE. A loss without a label in the batch is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mfn_core.config import TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.model.network import MacroMicroFusionNetwork, Outputs
from mfn_core.schema import UNKNOWN

_MAX_LOGITS_PER_CHUNK = 2**21
_FIRST_ITEM = UNKNOWN + 1


@dataclass(frozen=True)
class Losses:
    """Scalars; ``total`` is the weighted sum to minimize, the others are unweighted."""

    total: Tensor
    next_item: Tensor
    activity: Tensor
    attribute: Tensor
    mutual_information: Tensor


def total_loss(network: MacroMicroFusionNetwork, batch: Batch, config: TrainingConfig) -> Losses:
    """Runs the network on a batch and weighs its losses."""
    outputs = network(batch)
    next_item = next_item_loss(network, outputs, batch)
    activity = activity_loss(outputs.activity_logits_B, batch.activity_B)
    attribute = attribute_loss(outputs.attribute_logits, batch.attributes_BA)
    both_views_B = (batch.macro_lengths_B > 0) & (batch.micro_lengths_B > 0)
    mutual_information = mutual_information_loss(
        outputs.user_macro_BD, outputs.user_micro_BD, batch.rows_B, both_views_B, config.temperature
    )
    total = (
        next_item
        + config.activity_weight * activity
        + config.attribute_weight * attribute
        + config.mutual_information_weight * mutual_information
    )
    return Losses(total, next_item, activity, attribute, mutual_information)


def next_item_loss(network: MacroMicroFusionNetwork, outputs: Outputs, batch: Batch) -> Tensor:
    """Mean cross-entropy of the next item over the whole catalogue, at every position that has one to learn.

    PAD and UNKNOWN are neither targets nor rivals: positions with such a target are left out, and the softmax runs over
    the items from ``UNKNOWN + 1`` on.
    """
    targets = batch.targets_BL.flatten()
    positions = torch.nonzero(targets > UNKNOWN).squeeze(1)
    queries = network.next_item_queries(outputs, batch).flatten(0, 1).index_select(0, positions)
    items = network.item_weight_ND[_FIRST_ITEM:]
    return catalogue_cross_entropy(queries, items, targets.index_select(0, positions) - _FIRST_ITEM)


def catalogue_cross_entropy(query_PD: Tensor, item_weight_ND: Tensor, target_P: Tensor) -> Tensor:
    """Mean softmax cross-entropy of P queries against all N items, without ever holding [P, N] logits.

    Equals ``cross_entropy(query_PD @ item_weight_ND.T, target_P)``; 0 where P is 0. Under autocast the products run in
    the autocast type, the softmax and the sums over chunks in float32.
    """
    return _CatalogueCrossEntropy.apply(query_PD, item_weight_ND, target_P)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Computes the gradients beside the loss, chunk by chunk of positions, while the logits are at hand."""

    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, item_weight_ND: Tensor, target_P: Tensor) -> Tensor:
        """The loss; its gradients are kept for ``backward``."""
        device = query_PD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query_PD.dtype
        wants_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        loss = query_PD.new_zeros((), dtype=torch.float32)
        query_gradient = torch.zeros_like(query_PD) if wants_gradient else None
        item_gradient = torch.zeros_like(item_weight_ND) if wants_gradient else None
        with torch.autocast(device, enabled=False):
            queries, items = query_PD.to(dtype), item_weight_ND.to(dtype)
            chunk = max(1, _MAX_LOGITS_PER_CHUNK // max(1, len(items)))
            for start in range(0, len(queries), chunk):
                rows = slice(start, start + chunk)
                logits = (queries[rows] @ items.T).float()
                log_normalizer = logits.logsumexp(1, keepdim=True)
                target = target_P[rows, None]
                loss += (log_normalizer - logits.gather(1, target)).sum() / len(queries)
                if query_gradient is None or item_gradient is None:
                    continue
                # d loss / d logits = (softmax - one-hot) / P, in the memory of the logits.
                gradient = logits.sub_(log_normalizer).exp_()
                gradient.scatter_add_(1, target, torch.full_like(target, -1, dtype=gradient.dtype))
                gradient = gradient.div_(len(queries)).to(dtype)
                query_gradient[rows] = gradient @ items
                item_gradient += gradient.T @ queries[rows]
        ctx.save_for_backward(query_gradient, item_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales the kept gradients."""
        query_gradient, item_gradient = ctx.saved_tensors
        return grad_loss * query_gradient, grad_loss * item_gradient, None


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
