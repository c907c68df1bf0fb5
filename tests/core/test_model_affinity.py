"""Which categories go together, learned from who has them both."""

import math

import pytest
import torch

from mfn_core.model.affinity import CategoryAffinity
from mfn_core.model.alignment import CategorySummary


def summary(states: list[list[list[float]]], counts: list[list[float]]) -> CategorySummary:
    counts_BC = torch.tensor(counts)
    return CategorySummary(torch.tensor(states), counts_BC, (counts_BC > 0).float())


def users_of(categories: list[list[int]], num_categories: int) -> CategorySummary:
    """Users who have these categories, once each; the state of a category is a direction of its own."""
    counts_BC = torch.zeros(len(categories), num_categories)
    for user, present in enumerate(categories):
        counts_BC[user, present] = 1
    states_BCD = torch.eye(num_categories) * num_categories**0.5 * (counts_BC > 0)[:, :, None]
    return CategorySummary(states_BCD, counts_BC, (counts_BC > 0).float())


def test_by_hand() -> None:
    # T_g W_b T_l^T / sqrt(D) with W_b = I / sqrt(2) and D = 2.
    macro, micro = summary([[[1.0, 0.0], [0.0, 2.0]]], [[1.0, 3.0]]), summary([[[1.0, 1.0], [-1.0, 0.0]]], [[2.0, 2.0]])
    expected = torch.tensor([[[0.5, -0.5], [1.0, 0.0]]]).tanh()
    torch.testing.assert_close(CategoryAffinity(2)(macro, micro), expected)


def test_absent_categories_have_none() -> None:
    macro, micro = summary([[[1.0, 0.0], [0.0, 2.0]]], [[0.0, 3.0]]), summary([[[1.0, 1.0], [1.0, 1.0]]], [[2.0, 0.0]])
    assert (CategoryAffinity(2)(macro, micro) != 0).tolist() == [[[False, False], [True, False]]]


def test_the_information_loss_by_hand() -> None:
    # Two users, each with one category of a direction of its own: tanh(1) where they are their own, 0 elsewhere, scaled by 5.
    views = users_of([[0], [1]], num_categories=2)
    loss = CategoryAffinity(2).information_loss(views, views, 2)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-5 * math.tanh(1))), rel=1e-5)


def test_users_are_told_apart_within_their_group_alone_and_what_is_left_over_takes_no_part() -> None:
    affinity = CategoryAffinity(2)
    views = users_of([[0], [1], [0], [1], [0, 1]], num_categories=2)
    two = users_of([[0], [1]], num_categories=2)
    torch.testing.assert_close(affinity.information_loss(views, views, 2), affinity.information_loss(two, two, 2))


def test_fewer_users_than_a_group_are_a_programming_error() -> None:
    views = users_of([[0]], num_categories=2)
    with pytest.raises(AssertionError, match="1 users are no group of 2"):
        CategoryAffinity(2).information_loss(views, views, 2)


def test_a_planted_correspondence_is_found() -> None:
    """App category c goes with item category (c + 1) % 6: users who have the one have the other, and nothing else tells who is who."""
    torch.manual_seed(0)
    affinity = CategoryAffinity(6)
    chosen = [torch.randperm(6)[:2].tolist() for _ in range(64)]
    macro, micro = users_of(chosen, 6), users_of([[(category + 1) % 6 for category in user] for user in chosen], 6)
    first = affinity.information_loss(macro, micro, 16).item()
    optimizer = torch.optim.AdamW(affinity.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        affinity.information_loss(macro, micro, 16).backward()
        optimizer.step()
    everything = users_of([list(range(6))], 6)
    learned_GK = affinity(everything, everything)[0]
    assert affinity.information_loss(macro, micro, 16).item() < first / 2
    assert learned_GK.argmax(1).tolist() == [1, 2, 3, 4, 5, 0]
