"""How the shares of the next-item score are chosen, from answers that are known."""

import numpy as np
import pytest
import torch

from mfn_core.errors import PermanentError
from mfn_core.model.blend import ItemBlend
from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains
from mfn_core.schema import PAD
from mfn_core.training import blending
from mfn_core.training.blending import fit_blend
from mfn_core.training.validation import Answer

W, X, Y, Z = range(2, 6)  # after PAD and UNKNOWN
NUM_ITEMS = 6
NUM_USERS = 40
# Everybody has met x and y; z is next for three users in four, w for the fourth.
TARGETS = [Z if user % 4 else W for user in range(NUM_USERS)]
RIGHT = TARGETS
WRONG = [W if target == Z else Z for target in TARGETS]
SILENT = [PAD] * NUM_USERS


def answers(preferred: int, named: list[int], *, targets: list[int] = TARGETS, mask_seen: bool = True) -> list[Answer]:
    """Two batches: of a network that prefers one item to all others by 1, and a table that names one item with a gain of 1."""
    halves = (np.arange(start, len(targets), 2) for start in (0, 1))
    return [_answer(users, preferred, [named[user] for user in users], [targets[user] for user in users], mask_seen) for users in halves]


def _answer(users: np.ndarray, preferred: int, named: list[int], targets: list[int], mask_seen: bool) -> Answer:
    own = ItemScores.plain(torch.eye(NUM_ITEMS)[preferred].repeat(len(users), 1), torch.eye(NUM_ITEMS), torch.zeros(NUM_ITEMS))
    items_B1 = torch.tensor(named, dtype=torch.int64).view(-1, 1)
    seen_BL = torch.tensor([[X, Y]] * len(users), dtype=torch.int64).view(-1, 2) if mask_seen else None
    return Answer(users, own, (Gains(items_B1, (items_B1 != PAD).float()),), torch.tensor(targets, dtype=torch.int64), seen_BL)


def fitted(said: list[Answer], *, popular: int | None = None) -> ItemBlend:
    """The blend of items that are equally popular, but for one whose popularity is e times as high."""
    blend = ItemBlend(NUM_ITEMS, [0.3])
    if popular is not None:
        blend.log_popularity_N[popular] = 1
    fit_blend(blend, said)
    return blend


def test_a_table_that_is_right_gains_share_and_one_that_is_wrong_loses_it() -> None:
    assert fitted(answers(X, RIGHT)).shares_K.item() > 0.8
    assert fitted(answers(X, WRONG)).shares_K.item() < -0.2


def test_a_network_that_is_right_is_sharpened_and_one_that_is_wrong_is_blunted() -> None:
    # z is the answer of three users in four, w of the others: likeliest would be log 3 = 1.10 apart, best for the mean root of the
    # chance is log 9 = 2.20. With the prior of half a user of 40: the minimum of -2 (.75 sqrt(p) + .25 sqrt(1-p)) + .0125 log(s)^2,
    # p = 1 / (1 + e^-s).
    assert fitted(answers(Z, SILENT)).sharpness.item() == pytest.approx(1.9832, abs=1e-3)
    assert fitted(answers(W, SILENT)).sharpness.item() < 0.5


def test_popularity_that_is_right_gains_share_and_one_that_is_wrong_loses_it() -> None:
    silent = answers(X, SILENT)
    # The share s of z's log popularity: the minimum of -2 (.75 sqrt(p) + .25 sqrt(1-p)) + .0125 s^2, p = 1 / (1 + e^-s).
    assert fitted(silent, popular=Z).popularity_share.item() == pytest.approx(1.4886, abs=1e-3)
    assert fitted(silent, popular=W).popularity_share.item() == pytest.approx(-1.4886, abs=1e-3)
    assert fitted(silent).popularity_share.item() == 0


def test_seen_items_take_no_part_as_in_the_ranking() -> None:
    # x is seen by all: to prefer it costs nothing where seen items are left out.
    assert fitted(answers(X, SILENT)).sharpness.item() == pytest.approx(1, abs=1e-3)
    assert fitted(answers(X, SILENT, mask_seen=False)).sharpness.item() < 0.9


def test_a_target_that_was_seen_takes_part_all_the_same() -> None:
    assert fitted(answers(X, [X] * NUM_USERS, targets=[X] * NUM_USERS)).shares_K.item() > 0.5


def test_one_user_does_not_carry_the_shares_away() -> None:
    # Without the prior the share would grow for ever; with it, the minimum of -2 sqrt(1 / (1 + e^-a)) + .5 (a - .3)^2.
    assert fitted(answers(X, RIGHT[1:2], targets=TARGETS[1:2])).shares_K.item() == pytest.approx(0.5865, abs=1e-3)


def test_a_target_that_the_vocabulary_lacks_says_nothing() -> None:
    unknown = [1 if user < 20 else target for user, target in enumerate(TARGETS)]
    shortened = fitted(answers(X, RIGHT[20:], targets=TARGETS[20:])).shares_K
    torch.testing.assert_close(fitted(answers(X, RIGHT, targets=unknown)).shares_K, shortened)


def test_the_fit_does_not_depend_on_an_earlier_one() -> None:
    blend = fitted(answers(X, WRONG))
    fit_blend(blend, answers(X, RIGHT))
    assert torch.equal(blend.shares_K, fitted(answers(X, RIGHT)).shares_K)


@pytest.mark.parametrize("said", [[], answers(X, [], targets=[]), answers(X, RIGHT, targets=[1] * NUM_USERS)])
def test_without_questions_the_shares_stay(said: list[Answer]) -> None:
    blend = fitted(said)
    assert (blend.sharpness.item(), blend.shares_K.tolist()) == (1, [pytest.approx(0.3)])


def test_no_more_users_are_asked_than_scores_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "_MOST_SCORES", 8 * NUM_ITEMS)
    monkeypatch.setattr(blending, "_LEAST_USERS", 2)
    parts = blending._questions(answers(X, RIGHT))
    assert sum(len(part.own_BN) for part in parts) == 8
    assert all(part.gains[0].items_BM.flatten().tolist() == part.target_B.tolist() for part in parts)


def test_users_asked_together_or_in_parts_of_any_size_are_fitted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    named = RIGHT[:30] + WRONG[30:]
    parts = [
        _answer(users, X, [named[u] for u in users], [TARGETS[u] for u in users], True) for users in np.split(np.arange(NUM_USERS), [5, 9])
    ]
    together = fitted(parts)
    monkeypatch.setattr(blending, "_SCORES_AT_ONCE", 1)
    assert [len(part.target_B) for part in blending._questions(parts)] == [5, 4, 31]
    torch.testing.assert_close(fitted(parts).state_dict(), together.state_dict(), rtol=1e-3, atol=1e-3)


def test_answers_of_inference_mode_and_autocast_are_fitted_in_float32() -> None:
    with torch.inference_mode():
        said = answers(Z, SILENT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        blend = fitted(said)
    assert blend.sharpness.item() == pytest.approx(1.9832, abs=1e-3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_score_that_is_no_finite_number_is_an_error_and_changes_no_share(value: float) -> None:
    said = answers(X, RIGHT)
    said[1].own.query_PD[0, W] = value
    blend = ItemBlend(NUM_ITEMS, [0.3])
    # Of user 1's six scores: 0 x inf is no number either, and all but those of w and z are replaced, since they may not be recommended.
    with pytest.raises(PermanentError, match=r"of 240 scores of the network 2 are not finite.*learning_rate"):
        fit_blend(blend, said)
    assert (blend.sharpness.item(), blend.popularity_share.item(), blend.shares_K.tolist()) == (1, 0, [pytest.approx(0.3)])


def test_a_popularity_and_a_gain_that_are_no_finite_numbers_are_named() -> None:
    blend = ItemBlend(NUM_ITEMS, [0.3])
    blend.log_popularity_N[Y] = -torch.inf
    said = answers(X, RIGHT)
    said[0].gains[0].gains_BM[0] = torch.inf
    with pytest.raises(PermanentError, match="of 240 scores of the network 0 are not finite, of 6 popularities 1, of 40 gains 1"):
        fit_blend(blend, said)
