"""The network and the tables of counts in one score: all numbers by hand."""

import math

import torch

from mfn_core.model.blend import ItemBlend
from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains, Transitions

# One user, items 0 to 3: the network says 0, 0, 2, 4; two sources name one or two items each.
OWN = ItemScores.plain(torch.tensor([[2.0]]), torch.tensor([[0.0], [0.0], [1.0], [1.5]]), torch.tensor([0.0, 0.0, 0.0, 1.0]))
GAINS = (Gains(torch.tensor([[2, 3]]), torch.tensor([[1.0, 10.0]])), Gains(torch.tensor([[2]]), torch.tensor([[100.0]])))


def blended(sharpness: float, shares: list[float], popularity_share: float = 0.0) -> list[float]:
    blend = ItemBlend(4, shares)
    blend.log_popularity_N.copy_(torch.tensor([-9.0, -9.0, -1.0, -3.0]))
    blend.sharpness.fill_(sharpness)
    blend.popularity_share.fill_(popularity_share)
    scores = blend(OWN, GAINS)
    dense_BN = (scores.query_PD @ scores.weight_ND.T + scores.bias_N).scatter_add(1, scores.gaining_PM, scores.gains_PM)
    return dense_BN[0].tolist()


def test_without_shares_the_score_is_the_networks() -> None:
    assert blended(1.0, [0.0, 0.0]) == [0, 0, 2, 4]


def test_sharpness_scales_queries_and_biases_and_leaves_the_gains() -> None:
    assert blended(0.5, [1.0, 0.0]) == [0, 0, 1 + 1, 2 + 10]


def test_popularity_has_a_share_of_its_own() -> None:
    assert blended(0.5, [0.0, 0.0], popularity_share=2.0) == [-18, -18, 1 - 2, 2 - 6]


def test_every_source_has_its_own_share_and_the_same_item_gains_from_each() -> None:
    assert blended(1.0, [0.5, 0.25]) == [0, 0, 2 + 0.5 + 25, 4 + 5]


def test_the_smoothed_bigram_is_a_special_case() -> None:
    """No network, popularity and the one source with shares of 1: the softmax is P(j) + n_ij / (n_i + kappa), normalized."""
    blend = ItemBlend(5, [1.0])
    blend.log_popularity_N.copy_(torch.tensor([1e-9, 1e-9, 0.4, 0.4, 0.2]).log())
    blend.sharpness.zero_()
    blend.popularity_share.fill_(1)
    anything = ItemScores.plain(torch.ones(1, 1), torch.rand(5, 1), torch.rand(5))
    # 3 has followed the last item in 2 of 2 + 3 times, and its popularity is .4.
    scores = blend(anything, [Gains(torch.tensor([[3]]), torch.tensor([[math.log(1 + 0.4 / 0.4)]]))])
    dense_BN = (scores.query_PD @ scores.weight_ND.T + scores.bias_N).scatter_add(1, scores.gaining_PM, scores.gains_PM)
    torch.testing.assert_close(dense_BN.softmax(1)[0, 2:], torch.tensor([0.4, 0.8, 0.2]) / 1.4)


def test_the_smoothed_bigram_that_may_skip_is_a_special_case() -> None:
    """No network, pi = 1, alpha = (0, 0, 1): the softmax is P(j) + sum_k P(j | i_k) / k, normalized."""
    popularity = torch.tensor([1e-9, 1e-9, 0.4, 0.4, 0.2])
    chances = torch.tensor([0.3, 0.1, 0.5, 0.2])  # of 3 and 4 after the latest item, of 3 and 2 after the one before
    items_BM = torch.tensor([[3, 4, 3, 2]])
    product = Gains(items_BM, torch.log1p(chances / popularity[items_BM]))
    mixture = Transitions(num_items=5, num_successors=2, window=2).mixture(product)
    blend = ItemBlend(5, [0.0, 0.0, 1.0])
    blend.log_popularity_N.copy_(popularity.log())
    blend.sharpness.zero_()
    blend.popularity_share.fill_(1)
    scores = blend(ItemScores.plain(torch.ones(1, 1), torch.rand(5, 1), torch.rand(5)), [product, product, mixture])
    dense_BN = (scores.query_PD @ scores.weight_ND.T + scores.bias_N).scatter_add(1, scores.gaining_PM, scores.gains_PM)
    torch.testing.assert_close(dense_BN[0, 2:].exp(), torch.tensor([0.4 + 0.2 / 2, 0.4 + 0.3 + 0.5 / 2, 0.2 + 0.1]))


def test_no_gradient_reaches_the_blend_and_it_is_saved_with_the_network() -> None:
    blend = ItemBlend(4, [0.3])
    assert list(blend.parameters()) == []
    assert blend.state_dict().keys() == {"sharpness", "popularity_share", "shares_K", "log_popularity_N"}


def test_scores_are_in_float32_whatever_the_network_computes_in() -> None:
    half = ItemScores.plain(OWN.query_PD.bfloat16(), OWN.weight_ND, OWN.bias_N)
    assert ItemBlend(4, [0.3, 0.3])(half, GAINS).query_PD.dtype == torch.float32
