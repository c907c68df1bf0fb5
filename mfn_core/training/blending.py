"""After each epoch of the encoders: how much of the next-item score is the network's, and how much the tables'."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.transitions import Gains
from mfn_core.schema import UNKNOWN
from mfn_core.training.validation import Question, Validation

_MOST_USERS, _LEAST_USERS = 2048, 256
_MOST_SCORES = 2**25
_ITERATIONS = 25
_BOTTOM = -1e4
_PRIOR = 5.0  # users whose word the initial shares are worth


def fit_blend(network: MacroMicroFusionNetwork, validation: Validation) -> None:
    """Choose the shares that make the validation items of up to 2,048 users likeliest, seen items left out as in the ranking.

    They are fewer than a dozen numbers, so the figures measured on the same items stay honest to the third digit. Without held-out items
    the shares stay as they are.
    """
    network.eval()
    limit = int(np.clip(_MOST_SCORES // len(network.items.bias), _LEAST_USERS, _MOST_USERS))
    own_BN, gains, target_B = _questions(network, validation, limit)
    if not len(target_B):
        return
    blend = network.blend
    log_sharpness = torch.zeros((), device=own_BN.device, requires_grad=True)
    first_K = blend.first_shares_K
    shares_K = first_K.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([log_sharpness, shares_K], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        weighted_BX = (shares_K[:, None] * gains.gains_BKM).flatten(1)
        scores_BN = (log_sharpness.exp() * own_BN).scatter_add(1, gains.items_BKM.flatten(1), weighted_BX)
        away = log_sharpness.square() + (shares_K - first_K).square().sum()
        total = functional.cross_entropy(scores_BN, target_B) + _PRIOR / len(target_B) * away
        total.backward()
        return total

    with torch.autocast(own_BN.device.type, enabled=False):
        optimizer.step(loss)
    blend.sharpness.copy_(log_sharpness.detach().exp())
    blend.shares_K.copy_(shares_K.detach())


@torch.no_grad()
def _questions(network: MacroMicroFusionNetwork, validation: Validation, limit: int) -> tuple[Tensor, Gains, Tensor]:
    """The network's own scores [B, N], those of items that may not be recommended at the bottom; the gains; the targets."""
    rows = validation.ranked_rows
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
    own: list[Tensor] = []
    gains: list[Gains] = []
    targets: list[Tensor] = []
    for asked in validation.questions(rows, network.items.bias.device):
        known = asked.target_B > UNKNOWN
        scores = network.own_last_item_scores(network.encode(asked.batch), asked.batch)
        own.append(_allowed(scores.query_PD.float() @ scores.weight_ND.float().T + scores.bias_N.float(), asked)[known])
        gains.append(network.gains(asked.batch).at(known))
        targets.append(asked.target_B[known])
    if not targets:
        return torch.empty(0), Gains(torch.empty(0), torch.empty(0)), torch.empty(0)
    return torch.cat(own), Gains.concatenate(gains, dim=0), torch.cat(targets)


def _allowed(scores_BN: Tensor, asked: Question) -> Tensor:
    """Seen items at the bottom, but for the target; a finite bottom, whose gradient is 0 and not undefined."""
    target_B1 = asked.target_B[:, None]
    target_score_B1 = scores_BN.gather(1, target_B1)
    scores_BN[:, : UNKNOWN + 1] = _BOTTOM
    if asked.seen_BL is not None:
        scores_BN.scatter_(1, asked.seen_BL, _BOTTOM)
    return scores_BN.scatter_(1, target_B1, target_score_B1)
