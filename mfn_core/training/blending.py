"""After each epoch of the encoders: how much of the next-item score is the network's, and how much the tables'."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mfn_core.errors import PermanentError
from mfn_core.model.blend import ItemBlend, weighted
from mfn_core.model.transitions import Gains
from mfn_core.schema import FIRST_KNOWN, UNKNOWN
from mfn_core.training.validation import Answer

_MOST_USERS, _LEAST_USERS = 2048, 256
_MOST_SCORES, _SCORES_AT_ONCE = 2**27, 2**24  # 512 MB are held; beyond 524,288 items, of which the fewest users are asked, more
_ITERATIONS = 25
_BOTTOM = -1e4
_BOLDNESS = 0.5  # 0: likelihood, for which far targets count most; 1: the mean chance, for which near ones alone count, as in the ranking
_PRIOR = 0.5  # users whose word the initial shares are worth


def fit_blend(blend: ItemBlend, answers: Sequence[Answer]) -> None:
    """Choose the shares that suit the validation items of up to 2,048 users best, seen items left out as in the ranking.

    The loss of a target of chance p is (1 - sqrt p) / .5, the generalized cross-entropy (Zhang & Sabuncu 2018): the first places of a
    ranking are what it is judged by, and the logarithm of the likelihood speaks mostly of targets that lie far behind.
    The figures measured on the same items are flattered: they choose the epoch, and are no estimate. Without held-out items
    the shares stay as they are.

    Args:
        blend: of the network that gave the answers.
        answers: of ``Validation.answers``.

    Raises:
        PermanentError: no finite share fits, because a score, a popularity or a gain is not finite; the shares stay as they are.
    """
    with torch.autocast(blend.sharpness.device.type, enabled=False):
        questions = _questions(answers)
        if questions:
            _fit(blend, questions)


@dataclass(frozen=True)
class _Questions:
    """What is asked of B users."""

    own_BN: Tensor  # the network's own scores, those of items that may not be recommended at the bottom
    gains: tuple[Gains, ...]  # by source
    target_B: Tensor


def _fit(blend: ItemBlend, questions: Sequence[_Questions]) -> None:
    first_K = blend.first_shares_K
    log_sharpness, popularity_share = (torch.zeros((), device=first_K.device, requires_grad=True) for _ in range(2))
    shares_K = first_K.clone().requires_grad_()
    num_users = sum(len(part.target_B) for part in questions)
    optimizer = torch.optim.LBFGS([log_sharpness, popularity_share, shares_K], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        away = log_sharpness.square() + popularity_share.square() + (shares_K - first_K).square().sum()
        total = _PRIOR / num_users * away
        total.backward()
        for part in questions:  # a part at a time: the scores of all, twice over for their gradient, are not in memory at once
            scores_BN = torch.addcmul(popularity_share * blend.log_popularity_N, log_sharpness.exp(), part.own_BN)
            items_BM = torch.cat([source.items_BM for source in part.gains], 1)
            scores_BN = scores_BN.scatter_add(1, items_BM, weighted(shares_K, part.gains))
            chance_B = torch.exp(-_BOLDNESS * functional.cross_entropy(scores_BN, part.target_B, reduction="none"))
            missed = (1 - chance_B).sum() / (_BOLDNESS * num_users)
            missed.backward()
            total = total.detach() + missed.detach()
        return total

    optimizer.step(loss)
    _check(torch.stack([log_sharpness.detach().exp(), popularity_share.detach(), *shares_K.detach()]), blend, questions)
    blend.sharpness.copy_(log_sharpness.detach().exp())
    blend.popularity_share.copy_(popularity_share.detach())
    blend.shares_K.copy_(shares_K.detach())


def _check(fitted: Tensor, blend: ItemBlend, questions: Sequence[_Questions]) -> None:
    """One value that is not finite makes all shares no number: say what it was."""
    if fitted.isfinite().all():
        return
    own, popularity, gained = (
        f"of {sum(part.numel() for part in parts)} {name} {sum(int((~part.isfinite()).sum()) for part in parts)}"
        for name, parts in (
            ("scores of the network", [part.own_BN for part in questions]),
            ("popularities", [blend.log_popularity_N]),
            ("gains", [source.gains_BM for part in questions for source in part.gains]),
        )
    )
    raise PermanentError(
        f"training diverged: the shares of the next-item score cannot be fitted to validation items, {own} are not finite, {popularity}, "
        f"{gained}; lower learning_rate or gradient_clip, or set precision=float32"
    )


@torch.no_grad()
def _questions(answers: Sequence[Answer]) -> list[_Questions]:
    """Those that the limits allow, of targets that the catalogue knows, in parts of some ``_SCORES_AT_ONCE`` scores."""
    is_chosen_U = _chosen(answers)
    parts: list[_Questions] = []
    waiting: list[_Questions] = []
    for said in answers:
        chosen = torch.from_numpy(is_chosen_U[said.positions]).to(said.target_B.device) & (said.target_B > UNKNOWN)
        waiting.append(_Questions(_allowed(said, chosen), tuple(source.at(chosen) for source in said.gains), said.target_B[chosen]))
        if sum(part.own_BN.numel() for part in waiting) >= _SCORES_AT_ONCE:
            parts.append(_joined(waiting))
            waiting = []
    if any(len(part.target_B) for part in waiting):
        parts.append(_joined(waiting))
    return parts


def _joined(parts: Sequence[_Questions]) -> _Questions:
    # Out of inference mode, in which the answers were given: gradients pass through copies.
    gains = tuple(Gains.concatenate(sources) for sources in zip(*(part.gains for part in parts), strict=True))
    return _Questions(torch.cat([part.own_BN for part in parts]), gains, torch.cat([part.target_B for part in parts]))


def _chosen(answers: Sequence[Answer]) -> NDArray[np.bool_]:
    """Which users are asked: all, or as many, drawn at random, as the limits allow."""
    num_users = sum(len(said.positions) for said in answers)
    num_items = len(answers[0].own.bias_N) if answers else 1
    limit = int(np.clip(_MOST_SCORES // num_items, _LEAST_USERS, _MOST_USERS))
    is_chosen_U = np.zeros(num_users, bool)
    is_chosen_U[np.random.default_rng(0).permutation(num_users)[:limit]] = True
    return is_chosen_U


def _allowed(said: Answer, chosen: Tensor) -> Tensor:
    """Dense scores of the chosen users, seen items at the bottom but for the target; a finite bottom: its gradient is 0, not undefined."""
    own = said.own.at(chosen)
    scores_BN = own.query_PD.float() @ own.weight_ND.float().T + own.bias_N.float()
    target_B1 = said.target_B[chosen, None]
    target_score_B1 = scores_BN.gather(1, target_B1)
    scores_BN[:, :FIRST_KNOWN] = _BOTTOM
    if said.seen_BL is not None:
        scores_BN.scatter_(1, said.seen_BL[chosen], _BOTTOM)
    return scores_BN.scatter_(1, target_B1, target_score_B1)
