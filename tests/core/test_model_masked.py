"""The loss over all items at a fixed number of positions, against the naive formula at those that count."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mfn_core.model import masked
from mfn_core.model.masked import masked_cross_entropy

TARGETS = torch.tensor([2, 12, 5, 0, 9, 2, 0])
COUNTED = torch.tensor([True, True, True, False, True, True, False])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three positions of sixteen items, thirteen of them real, a chunk: seven positions take three chunks, the last one short."""
    monkeypatch.setattr(masked, "_MAX_SCORES_PER_CHUNK", 3 * 16)


def factors(scale: float = 1.0) -> tuple[Tensor, ...]:
    """Queries of seven positions, weights and biases of PAD, UNKNOWN and eleven items."""
    torch.manual_seed(0)
    query_PD, weight_ND, bias_N = (torch.randn(size) for size in ((7, 4), (13, 4), (13,)))
    return (scale * query_PD).requires_grad_(), weight_ND.requires_grad_(), bias_N.requires_grad_()


def naive(query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor) -> Tensor:
    return functional.cross_entropy((query_PD @ weight_ND.T + bias_N)[COUNTED, 2:], TARGETS[COUNTED] - 2)


def test_equals_the_naive_loss() -> None:
    leaves = factors()
    torch.testing.assert_close(masked_cross_entropy(*leaves, TARGETS, COUNTED), naive(*leaves))


@pytest.mark.parametrize("scale", [1.0, 50.0, 1000.0])
def test_equals_the_naive_gradients_whatever_the_range_of_the_scores(scale: float) -> None:
    leaves = factors(scale)
    ours = torch.autograd.grad(3 * masked_cross_entropy(*leaves, TARGETS, COUNTED), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad(3 * naive(*leaves), leaves))


def test_is_finite_where_a_target_is_next_to_impossible() -> None:
    assert masked_cross_entropy(*factors(1000.0), TARGETS, COUNTED).isfinite()


def test_without_a_position_that_counts_is_zero_with_zero_gradient() -> None:
    leaves = factors()
    loss = masked_cross_entropy(*leaves, TARGETS, torch.zeros(7, dtype=torch.bool))
    assert loss == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, leaves))


def test_so_is_a_catalogue_of_pad_and_unknown_alone() -> None:
    leaves = tuple(leaf.detach()[:2].requires_grad_() for leaf in factors())
    loss = masked_cross_entropy(*leaves, torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool))
    assert loss == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, leaves))


def test_under_autocast_stays_close() -> None:
    leaves = factors()
    exact = naive(*leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_cross_entropy(*leaves, TARGETS, COUNTED)
    torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(exact, leaves), rtol=0.05, atol=0.005)
