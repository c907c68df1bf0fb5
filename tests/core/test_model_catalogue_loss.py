"""The cross-entropy over the catalogue, both ways of it against the naive one."""

import pytest
import torch
from torch.nn import functional

from mfn_core.model import catalogue_loss
from mfn_core.model.catalogue_loss import catalogue_cross_entropy


class TestCatalogueCrossEntropy:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three positions of eleven items a chunk: seven positions take three chunks, the last one short."""
        monkeypatch.setattr(catalogue_loss, "_MAX_SCORES_PER_CHUNK", 3 * 11)

    TARGETS = torch.tensor([0, 10, 3, 3, 7, 0, 5])

    def factors(self, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
        """Queries of seven positions, weights and biases of eleven items."""
        torch.manual_seed(0)
        query_PD, weight_ND, bias_N = (torch.randn(size) for size in ((7, 4), (11, 4), (11,)))
        return (scale * query_PD).requires_grad_(), weight_ND.requires_grad_(), bias_N.requires_grad_()

    def naive(self, factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        query_PD, weight_ND, bias_N = factors
        return functional.cross_entropy(query_PD @ weight_ND.T + bias_N, self.TARGETS)

    def test_equals_the_naive_loss(self) -> None:
        factors = self.factors()
        torch.testing.assert_close(catalogue_cross_entropy(*factors, self.TARGETS), self.naive(factors))

    def test_equals_the_naive_gradients_of_queries_items_and_biases(self) -> None:
        factors = self.factors()
        naive = torch.autograd.grad(3 * self.naive(factors), factors)
        torch.testing.assert_close(torch.autograd.grad(3 * catalogue_cross_entropy(*factors, self.TARGETS), factors), naive)

    @pytest.mark.parametrize("scale", [20.0, 50.0, 1000.0])
    def test_survives_scores_beyond_the_range_of_exp(self, scale: float) -> None:
        factors = self.factors(scale=scale)
        loss, naive = catalogue_cross_entropy(*factors, self.TARGETS), self.naive(factors)
        torch.testing.assert_close(loss, naive)
        torch.testing.assert_close(torch.autograd.grad(loss, factors), torch.autograd.grad(naive, factors))

    def test_without_positions_is_zero_with_zero_gradient(self) -> None:
        query_PD, weight_ND, bias_N = self.factors()
        loss = catalogue_cross_entropy(query_PD[:0], weight_ND, bias_N, torch.tensor([], dtype=torch.int64))
        assert loss == 0
        assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (query_PD, weight_ND, bias_N)))

    def test_under_autocast_stays_close(self) -> None:
        factors = self.factors()
        exact = self.naive(factors)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = catalogue_cross_entropy(*factors, self.TARGETS)
        rounded = torch.autograd.grad(loss, factors)
        assert loss.dtype == torch.float32
        assert {gradient.dtype for gradient in rounded} == {torch.float32}
        torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)
        torch.testing.assert_close(rounded, torch.autograd.grad(exact, factors), rtol=0.05, atol=0.005)

    def test_needs_no_gradient_in_evaluation(self) -> None:
        factors = self.factors()
        with torch.no_grad():
            loss = catalogue_cross_entropy(*factors, self.TARGETS)
        torch.testing.assert_close(loss, self.naive(factors))


class TestInBfloat16:
    """Queries and items that bfloat16 holds exactly, 300 positions of 600 items: more than one tile either way."""

    TARGETS = torch.arange(300) * 7 % 600

    def gradients(self, scale: float, *, autocast: bool, toward_target: float = 0.0) -> tuple[torch.Tensor, ...]:
        """The loss, and the gradients of queries, items and biases."""
        torch.manual_seed(0)
        weight_ND, bias_N = torch.randn(600, 16).bfloat16().float(), torch.randn(600)
        query_PD = (scale * torch.randn(300, 16) + toward_target * weight_ND[self.TARGETS]).bfloat16().float()
        factors = (query_PD.requires_grad_(), weight_ND.requires_grad_(), bias_N.requires_grad_())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            if autocast:
                loss = catalogue_cross_entropy(*factors, self.TARGETS)
            else:
                loss = functional.cross_entropy(query_PD @ weight_ND.T + bias_N, self.TARGETS)
        return loss.detach(), *torch.autograd.grad(3 * loss, factors)

    @pytest.mark.parametrize(("scale", "toward_target"), [(0.3, 0.0), (50.0, 0.0), (0.3, 0.5), (0.3, 2.0)], ids=str)
    def test_is_near_the_naive_loss_and_its_gradients(self, scale: float, toward_target: float) -> None:
        rounded = self.gradients(scale, autocast=True, toward_target=toward_target)
        exact = self.gradients(scale, autocast=False, toward_target=toward_target)
        torch.testing.assert_close(rounded[0], exact[0], rtol=1e-4, atol=1e-6)
        errors = [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(rounded[1:], exact[1:], strict=True)]
        assert max(errors) < 0.01

    def test_the_same_twice_bit_for_bit(self) -> None:
        once, again = (self.gradients(0.3, autocast=True) for _ in range(2))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(once, again, strict=True))

    def test_stays_near_where_the_positions_are_learned_by_heart(self) -> None:
        """Loss .06, eight positions an item: what the softmax leaves is a small difference of large sums."""
        torch.manual_seed(0)
        targets = torch.arange(300) % 40
        weight_ND, bias_N = torch.randn(600, 32).requires_grad_(), torch.zeros(600, requires_grad=True)
        query_PD = (0.3 * torch.randn(300, 32) + 0.7 * weight_ND.detach()[targets]).requires_grad_()
        factors = (query_PD, weight_ND, bias_N)
        exact = functional.cross_entropy(query_PD @ weight_ND.T + bias_N, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = catalogue_cross_entropy(*factors, targets)
        torch.testing.assert_close(loss, exact, rtol=0.005, atol=0)
        pairs = zip(torch.autograd.grad(loss, factors), torch.autograd.grad(exact, factors), strict=True)
        queries, items, _ = (float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)
        assert queries < 0.018
        assert items < 0.01
