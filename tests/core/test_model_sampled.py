"""The loss over a sample of the catalogue, against the loss over all of it and numbers computed by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mfn_core.model.sampled import NegativeSampler, num_sampled, sampled_cross_entropy

CPU = torch.device("cpu")
COUNTS = np.array([7, 7, 3, 1, 0, 0.0])  # PAD, UNKNOWN, and four items: 3/4 of the events are of item 2, 1/4 of item 3


class Drawn(NegativeSampler):
    """Draws what the test says."""

    def __init__(self, entries: list[int], expected: list[float], *, is_sparse: bool = False) -> None:
        self.is_sparse = is_sparse
        self.drawn = torch.tensor(entries), torch.tensor(expected).log()

    def draw(self) -> tuple[Tensor, Tensor]:
        return self.drawn


def loss_of(scores: dict[int, float], target: int, sampler: NegativeSampler) -> float:
    """Of one position that scores the entries so, the others 0; the scores are the biases."""
    biases = torch.tensor([scores.get(entry, 0.0) for entry in range(6)])
    return sampled_cross_entropy(torch.ones(1, 1), torch.zeros(6, 1), biases, torch.tensor([target]), sampler).item()


def factors(num_items: int = 40, num_positions: int = 7, width: int = 4) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    query_PD, weight_ND, bias_N = (torch.randn(size) for size in ((num_positions, width), (num_items, width), (num_items,)))
    return query_PD.requires_grad_(), weight_ND.requires_grad_(), bias_N.requires_grad_()


def targets(num_items: int = 40, num_positions: int = 7) -> Tensor:
    return torch.arange(num_positions) * 5 % (num_items - 2) + 2


def full(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
    return functional.cross_entropy(query_PD @ weight_ND[2:].T + bias_N[2:], target_P - 2)


class TestLoss:
    def test_divides_each_negative_by_how_often_it_is_expected(self) -> None:
        loss = loss_of({2: math.log(2), 5: math.log(3)}, target=3, sampler=Drawn([2, 5], expected=[1.0, 0.25]))
        assert loss == pytest.approx(math.log(1 + 2 / 1 + 3 / 0.25))

    def test_an_accidental_hit_of_the_target_does_not_count(self) -> None:
        loss = loss_of({2: math.log(2), 3: math.log(5)}, target=3, sampler=Drawn([2, 3], expected=[1.0, 0.5]))
        assert loss == pytest.approx(math.log((5 + 2) / 5))

    def test_with_nothing_but_the_target_among_the_negatives_is_zero(self) -> None:
        query_PD, weight_ND, bias_N = factors(num_positions=1)
        loss = sampled_cross_entropy(query_PD, weight_ND, bias_N, torch.tensor([3]), Drawn([3, 3], [1.0, 1.0]))
        assert loss == 0
        assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (query_PD, weight_ND, bias_N)))

    def test_of_every_entry_once_is_the_loss_over_all(self) -> None:
        leaves, target_P = factors(), targets()
        everything = Drawn(list(range(2, 40)), [1.0] * 38)
        loss = sampled_cross_entropy(*leaves, target_P, everything)
        torch.testing.assert_close(loss, full(*leaves, target_P))
        torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(full(*leaves, target_P), leaves))

    def test_expects_the_normalizer_of_the_whole_catalogue(self) -> None:
        scores = {2: math.log(2), 3: math.log(5), 4: math.log(3), 5: math.log(7)}
        popular, uniform = {2: 0.75, 3: 0.25}, dict.fromkeys((2, 3, 4, 5), 0.25)
        expected = {entry: popular.get(entry, 0) + uniform[entry] for entry in uniform}
        mean = sum(
            popular[first] * uniform[second] * math.exp(loss_of(scores, 3, Drawn([first, second], [expected[first], expected[second]])))
            for first, second in itertools.product(popular, uniform)
        )
        assert mean == pytest.approx((2 + 5 + 3 + 7) / 5)

    def test_gradients_agree_in_expectation(self) -> None:
        leaves, target_P = factors(), targets()
        sampler = NegativeSampler(np.arange(40.0), 1024, CPU, is_sparse=False)
        torch.manual_seed(1)
        losses = torch.stack([sampled_cross_entropy(*leaves, target_P, sampler) for _ in range(50)])
        for mean, exact in zip(
            torch.autograd.grad(losses.mean(), leaves), torch.autograd.grad(full(*leaves, target_P), leaves), strict=True
        ):
            assert (mean - exact).norm() / exact.norm() < 0.02

    def test_leaves_out_positions_that_do_not_count(self) -> None:
        (query_PD, weight_ND, bias_N), target_P = factors(), targets()
        counted_P = torch.tensor([True, False, True, True, False, False, True])
        sampler = Drawn([4, 9, 30], [0.5, 0.1, 0.2])
        loss = sampled_cross_entropy(query_PD, weight_ND, bias_N, target_P, sampler, counted_P)
        torch.testing.assert_close(loss, sampled_cross_entropy(query_PD[counted_P], weight_ND, bias_N, target_P[counted_P], sampler))

    @pytest.mark.parametrize("counted_P", [None, torch.tensor([], dtype=torch.bool)])
    def test_without_positions_is_zero(self, counted_P: Tensor | None) -> None:
        query_PD, weight_ND, bias_N = factors()
        none = torch.tensor([], dtype=torch.int64)
        assert sampled_cross_entropy(query_PD[:0], weight_ND, bias_N, none, Drawn([2], [1.0]), counted_P) == 0

    def test_a_sparse_gradient_is_the_dense_one(self) -> None:
        (query_PD, weight_ND, bias_N), target_P = factors(), targets()
        samplers = [Drawn([4, 4, 30], [0.5, 0.5, 0.2], is_sparse=is_sparse) for is_sparse in (True, False)]
        losses = [sampled_cross_entropy(query_PD, weight_ND, bias_N, target_P, sampler) for sampler in samplers]
        gradients = [torch.autograd.grad(loss, weight_ND)[0] for loss in losses]
        assert gradients[0].is_sparse
        assert gradients[0].coalesce().indices().flatten().tolist() == sorted({*target_P.tolist(), 4, 30})
        torch.testing.assert_close(gradients[0].to_dense(), gradients[1])

    def test_survives_scores_beyond_the_range_of_exp(self) -> None:
        assert loss_of({2: 500.0}, target=3, sampler=Drawn([2], [1.0])) == pytest.approx(500)
        assert loss_of({3: 500.0}, target=3, sampler=Drawn([2], [1.0])) == 0

    def test_under_autocast_stays_close(self) -> None:
        leaves, target_P, sampler = factors(), targets(), Drawn([4, 9, 30], [5e-4, 5e-4, 2e-4])
        exact = sampled_cross_entropy(*leaves, target_P, sampler)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = sampled_cross_entropy(*leaves, target_P, sampler)
        torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)
        torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(exact, leaves), rtol=0.05, atol=0.005)


class TestSampler:
    def test_draws_half_by_popularity_and_half_uniformly(self) -> None:
        torch.manual_seed(0)
        entries_S, _ = NegativeSampler(COUNTS, 40_000, CPU, is_sparse=False).draw()
        popular, uniform = (torch.bincount(half, minlength=6) / 20_000 for half in entries_S.split(20_000))
        torch.testing.assert_close(popular, torch.tensor([0, 0, 0.75, 0.25, 0, 0]), atol=0.01, rtol=0)
        torch.testing.assert_close(uniform, torch.tensor([0, 0, 0.25, 0.25, 0.25, 0.25]), atol=0.01, rtol=0)

    def test_says_how_often_each_is_expected(self) -> None:
        torch.manual_seed(0)
        entries_S, log_expected_S = NegativeSampler(COUNTS, 8, CPU, is_sparse=False).draw()
        expected = {2: 4 * 0.75 + 1, 3: 4 * 0.25 + 1, 4: 1.0, 5: 1.0}
        torch.testing.assert_close(log_expected_S.exp(), torch.tensor([expected[entry] for entry in entries_S.tolist()]))


@pytest.mark.parametrize(
    ("num_negatives", "num_entries", "number"),
    [(None, 262_144, None), (None, 262_145, 1024), (512, 10_000, 512), (512, 512, None), (512, 513, 512)],
)
def test_large_catalogues_are_sampled(num_negatives: int | None, num_entries: int, number: int | None) -> None:
    assert num_sampled(num_negatives, num_entries) == number
