"""What the networks are trained on: what comes next, and in the paper preset activity, attributes and mutual information beside it.

A loss without a label in the batch is 0. The default network's readers and affinity learn afterwards, see ``training/labels.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from mfn_core.config import TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.model.builder import Network
from mfn_core.model.catalogue_loss import catalogue_cross_entropy
from mfn_core.model.masked import masked_cross_entropy
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.outputs import Encoded
from mfn_core.model.paper import PaperNetwork
from mfn_core.model.sampled import EVERYTHING, NegativeSampler, Sampling, sampled_cross_entropy
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import FIRST_KNOWN, PAD, UNKNOWN


@dataclass(frozen=True)
class Losses:
    """Scalars; ``total`` is the weighted sum to minimize, the others are unweighted. What a preset does not minimize is 0."""

    total: Tensor
    next_item: Tensor
    next_app: Tensor
    activity: Tensor
    attribute: Tensor
    mutual_information: Tensor


LOSS_NAMES = tuple(field.name for field in fields(Losses))


@dataclass(frozen=True)
class Share:
    """What part of a step's targets one of several processes holds: its losses are weighed by it, so that their sum is that of the step."""

    next_item: Tensor
    next_app: Tensor
    activity: Tensor
    attributes: Sequence[Tensor]
    of_process: float  # of what every process computes as a whole
    gathered: Callable[[Tensor], Tensor]  # the rows of all processes


def sequence_loss(
    network: MacroMicroFusionNetwork,
    batch: Batch,
    config: TrainingConfig,
    sampling: Sampling = EVERYTHING,
    num_targets: int | None = None,
    share: Share | None = None,
) -> Losses:
    """What the encoders of the default network learn from: the next item and the next app, at all positions.

    Args:
        network: in training mode.
        batch: of prefix ``train``.
        config: weights of the losses.
        sampling: which catalogues are sampled.
        num_targets: at least the next items to learn in the batch; with it no shape depends on a value, and nothing waits for a GPU.
            None: they are counted.
        share: of the step's targets, where other processes hold the rest. None: all of them.
    """
    encoded = network.encode(batch)
    next_item = next_item_loss(network, encoded, batch, sampling.items, num_targets)
    next_app = next_app_loss(network, encoded, batch, sampling.apps, None if num_targets is None else batch.macro_ids_BL.numel())
    if share is not None:
        next_item, next_app = share.next_item * next_item, share.next_app * next_app
    none = torch.zeros_like(next_item)
    return Losses(next_item + config.next_app_weight * next_app, next_item, next_app, none, none, none)


def joint_loss(
    network: PaperNetwork,
    batch: Batch,
    config: TrainingConfig,
    sampling: Sampling = EVERYTHING,
    num_targets: int | None = None,
    share: Share | None = None,
) -> Losses:
    """What all of the source's network learns from at once; arguments as of ``sequence_loss``."""
    outputs = network(batch)
    next_item = next_item_loss(network, outputs.encoded, batch, sampling.items, num_targets)
    activity = activity_loss(outputs.activity_logits_B, batch.activity_B)
    attribute = attribute_loss(outputs.attribute_logits, batch.attributes_BA, None if share is None else share.attributes)
    user_macro_BD, user_micro_BD, rows_B = outputs.encoded.user_macro_BD, outputs.encoded.user_micro_BD, batch.rows_B
    both_views_B = (batch.macro_lengths_B > 0) & (batch.micro_lengths_B > 0)
    if share is not None:
        # Every user of the step is a rival of every other: all processes compute the whole, each for its part of the gradient.
        user_macro_BD, user_micro_BD = share.gathered(torch.cat([user_macro_BD, user_micro_BD], 1).float()).chunk(2, 1)
        rows_B, both_views_B = share.gathered(torch.stack([rows_B, both_views_B.long()], 1)).unbind(1)
    mutual_information = mutual_information_loss(user_macro_BD, user_micro_BD, rows_B, both_views_B.bool(), config.temperature)
    if share is not None:
        next_item, activity = share.next_item * next_item, share.activity * activity
        mutual_information = share.of_process * mutual_information
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
    the items from ``FIRST_KNOWN`` on.
    """
    return _next_loss(lambda positions_P: network.next_item_scores(encoded, batch, positions_P), batch.targets_BL, sampler, num_targets)


def next_app_loss(
    network: MacroMicroFusionNetwork, encoded: Encoded, batch: Batch, sampler: NegativeSampler | None = None, num_targets: int | None = None
) -> Tensor:
    """The same of the next app, at every macro position but the last."""
    following_BL = functional.pad(batch.macro_ids_BL[:, 1:], (0, 1), value=PAD)
    return _next_loss(lambda positions_P: network.next_app_scores(encoded, positions_P), following_BL, sampler, num_targets)


def _next_loss(
    scores_of: Callable[[Tensor | None], ItemScores], targets_BL: Tensor, sampler: NegativeSampler | None, num_targets: int | None
) -> Tensor:
    targets = targets_BL.flatten()
    if num_targets is not None:
        # Those to learn come first; where there is room for all positions, they stay where they are.
        is_all = num_targets >= len(targets)
        positions_P = None if is_all else (targets > UNKNOWN).byte().argsort(descending=True, stable=True)[:num_targets]
        target_P = targets if positions_P is None else targets.index_select(0, positions_P)
        counted_P = target_P > UNKNOWN
        scores = scores_of(positions_P)
        if sampler is None:
            return masked_cross_entropy(scores.query_PD, scores.weight_ND, scores.bias_N, target_P, counted_P)
        return sampled_cross_entropy(scores.query_PD, scores.weight_ND, scores.bias_N, target_P, sampler, counted_P)
    positions_P = torch.nonzero(targets > UNKNOWN).squeeze(1)
    scores, target_P = scores_of(positions_P), targets.index_select(0, positions_P)
    if sampler is not None:
        return sampled_cross_entropy(scores.query_PD, scores.weight_ND, scores.bias_N, target_P, sampler)
    return catalogue_cross_entropy(scores.query_PD, scores.weight_ND[FIRST_KNOWN:], scores.bias_N[FIRST_KNOWN:], target_P - FIRST_KNOWN)


def activity_loss(activity_logits_B: Tensor, activity_B: Tensor) -> Tensor:
    """Mean binary cross-entropy over the labelled users; 0 where there are none."""
    labelled_B = ~activity_B.isnan()
    losses_B = functional.binary_cross_entropy_with_logits(
        activity_logits_B.float(), activity_B.nan_to_num(0.0), weight=labelled_B.float(), reduction="sum"
    )
    return losses_B / labelled_B.sum().clamp(min=1)


def attribute_loss(attribute_logits: Sequence[Tensor], attributes_BA: Tensor, shares: Sequence[Tensor] | None = None) -> Tensor:
    """Cross-entropy over the labelled users of each attribute, averaged over attributes; one without a label counts 0.

    Args:
        attribute_logits: [B, classes] of each attribute.
        attributes_BA: class of each user; -1 where unlabelled.
        shares: what each attribute's mean is weighed by; None: 1.
    """
    total = torch.zeros((), device=attributes_BA.device)
    for attribute, logits in enumerate(attribute_logits):
        labels_B = attributes_BA[:, attribute]
        summed = functional.cross_entropy(logits.float(), labels_B, ignore_index=-1, reduction="sum")
        mean = summed / (labels_B >= 0).sum().clamp(min=1)
        total = total + (mean if shares is None else shares[attribute] * mean)
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
