"""The ranking of the peers' programs, by hand and against the one that serves."""

import numpy as np
import pytest
import torch

from benchmarks.peers.ranking import figures, ranks
from mfn_core.model.ranking import target_ranks
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import UNKNOWN


def rank(scores: list[float], target: int, seen: tuple[int, ...] = ()) -> float:
    return ranks(np.array([scores], np.float32), np.array([target]), (np.zeros(len(seen), np.int64), np.array(seen, np.int64)))[0]


def test_zero_is_first():
    assert rank([1.0, 3.0, 2.0], target=1) == 0
    assert rank([1.0, 3.0, 2.0], target=0) == 2


def test_ties_count_half():
    assert rank([2.0, 3.0, 2.0, 2.0], target=0) == 1 + 2 / 2


def test_seen_items_are_no_rivals_but_for_the_target():
    assert rank([1.0, 3.0, 2.0], target=0, seen=(1,)) == 1
    assert rank([1.0, 3.0, 2.0], target=0, seen=(0, 1)) == 1


@pytest.mark.parametrize(("scores", "target"), [([1.0, 2.0, 3.0], -1), ([-np.inf, 2.0, 3.0], 0)])
def test_what_a_model_does_not_know_is_last(scores, target):
    assert rank(scores, target) == 3


def test_two_of_three_targets_among_the_first_ten():
    said = figures(np.array([0.0, 1.0, 10.0]))
    assert said == {"hr10": pytest.approx(2 / 3), "ndcg10": pytest.approx((1 + 1 / np.log2(3)) / 3)}


def test_the_same_ranks_as_the_product():
    rng = np.random.default_rng(0)
    scores_BN, target_B = rng.integers(0, 5, (30, 20)).astype(np.float32), rng.integers(0, 20, 30)
    seen_BL = rng.integers(0, 20, (30, 4))
    known = np.zeros((UNKNOWN + 1, 30), np.float32)
    own = ItemScores.plain(torch.eye(30), torch.from_numpy(np.concatenate([known, scores_BN.T])), torch.zeros(20 + UNKNOWN + 1))
    expected = target_ranks(own, torch.from_numpy(target_B + UNKNOWN + 1), torch.from_numpy(seen_BL + UNKNOWN + 1))
    assert ranks(scores_BN, target_B, (np.repeat(np.arange(30), 4), seen_BL.ravel())).tolist() == expected.tolist()
