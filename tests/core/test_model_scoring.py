"""The scores of all items, written down without being computed."""

import torch

from mfn_core.model.scoring import ItemScores

SCORES = ItemScores(
    query_PD=torch.tensor([[1.0], [2.0]]),
    weight_ND=torch.tensor([[9.0], [9.0], [3.0], [4.0]]),
    bias_N=torch.tensor([0.0, 0.1, 0.2, 0.3]),
    gaining_PM=torch.tensor([[3, 0], [1, 2]]),
    gains_PM=torch.tensor([[0.5, 0.0], [0.7, 0.9]]),
)


def test_some_positions_keep_all_items() -> None:
    for positions in (torch.tensor([1]), slice(1, 2)):
        second = SCORES.at(positions)
        assert second.query_PD.tolist() == [[2.0]]
        assert second.gaining_PM.tolist() == [[1, 2]]
        torch.testing.assert_close(second.gains_PM, torch.tensor([[0.7, 0.9]]))
        assert second.weight_ND is SCORES.weight_ND
        assert second.bias_N is SCORES.bias_N


def test_positions_may_be_taken_in_any_order() -> None:
    assert SCORES.at(torch.tensor([1, 0, 1])).query_PD.tolist() == [[2.0], [1.0], [2.0]]


def test_plain_scores_have_no_gains() -> None:
    plain = ItemScores.plain(SCORES.query_PD, SCORES.weight_ND, SCORES.bias_N)
    assert plain.gaining_PM.shape == plain.gains_PM.shape == (2, 0)
    assert plain.gaining_PM.dtype == torch.int64
    assert plain.query_PD is SCORES.query_PD
