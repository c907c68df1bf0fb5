"""Full ranking, against a plain loop."""

import math
from dataclasses import replace

import pytest
import torch

from mfn_core.model import ranking
from mfn_core.model.ranking import by_columns, target_ranks, top_items
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import PAD, UNKNOWN

ONE_QUERY = torch.tensor([[1.0]])
# Scores of the items 0 (PAD), 1 (UNKNOWN), 2, 3, 4, 5, 6.
ITEMS = torch.tensor([[9.0], [9.0], [3.0], [1.0], [2.0], [2.0], [0.0]])


def scores_of(query_PD: torch.Tensor = ONE_QUERY, items: torch.Tensor = ITEMS, gains: dict[int, float] | None = None) -> ItemScores:
    """Queries times items, and what some items gain at every position beside it."""
    successors, gained = list(gains or {}), list((gains or {}).values())
    positions = len(query_PD)
    return ItemScores(
        query_PD,
        items,
        torch.zeros(len(items)),
        torch.tensor(successors, dtype=torch.int64).expand(positions, -1),
        torch.tensor(gained, dtype=torch.float32).expand(positions, -1),
    )


def rank(target: int, seen: list[int] | None = None, items: torch.Tensor = ITEMS, gains: dict[int, float] | None = None) -> float:
    return target_ranks(scores_of(items=items, gains=gains), torch.tensor([target]), None if seen is None else torch.tensor([seen])).item()


def test_the_best_item_ranks_first_whatever_pad_and_unknown_score() -> None:
    assert rank(2) == 0


def test_ties_share_the_mean_rank() -> None:
    assert [rank(target) for target in (4, 5)] == [1.5, 1.5]


def test_seen_items_are_no_rivals() -> None:
    assert rank(3, seen=[2, 4, PAD]) == 1


def test_a_seen_target_still_competes() -> None:
    assert rank(3, seen=[3, 2, 3]) == 2


@pytest.mark.parametrize("target", [PAD, UNKNOWN])
def test_a_target_outside_the_catalogue_ranks_behind_it(target: int) -> None:
    assert rank(target) == 7


def test_scores_that_are_not_numbers_rank_last() -> None:
    assert rank(2, items=torch.full_like(ITEMS, math.nan)) == 7


def test_a_rival_without_a_number_stands_above() -> None:
    assert rank(2, gains={4: math.nan}) == 1


def test_constant_scores_rank_in_the_middle() -> None:
    assert rank(4, items=torch.ones(7, 1)) == 2


def test_biases_and_gains_count() -> None:
    # Item 3 scores 1; with a gain of 1.5 it stands behind item 2 alone.
    assert [rank(3), rank(3, gains={3: 1.5}), rank(3, gains={3: 1.0, 4: 0.0})] == [3, 1, 2]
    biased = replace(scores_of(), bias_N=torch.tensor([0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0]))
    assert target_ranks(biased, torch.tensor([3]), None).tolist() == [0]


def test_an_item_gains_as_often_as_it_is_named() -> None:
    twice = replace(scores_of(), gaining_PM=torch.tensor([[3, 3]]), gains_PM=torch.tensor([[1.5, 1.5]]))
    assert target_ranks(twice, torch.tensor([3]), None).tolist() == [0]
    assert top_items(twice, 1, None)[1].tolist() == [[4]]


def test_what_pad_and_unknown_gain_is_of_no_consequence() -> None:
    assert rank(2, gains={0: 9.0, 1: 9.0}) == 0


@pytest.mark.parametrize("users_at_a_time", [3, 17])  # 17: blocks of 16, a cache line
def test_agrees_with_a_plain_loop(users_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_MAX_SCORES_PER_BLOCK", users_at_a_time * 30)
    generator = torch.Generator().manual_seed(0)
    # Small integers: many exact ties.
    queries = torch.randint(-2, 3, (20, 4), generator=generator).float()
    items = torch.randint(-1, 2, (30, 4), generator=generator).float()
    targets = torch.randint(2, 30, (20,), generator=generator)
    seen = torch.randint(0, 30, (20, 6), generator=generator)
    bias = torch.randint(-1, 2, (30,), generator=generator).float()
    successors, gains = torch.randint(0, 30, (20, 3), generator=generator), torch.randint(0, 3, (20, 3), generator=generator).float()
    expected = []
    for user in range(20):
        score = [float(queries[user] @ items[item] + bias[item]) for item in range(30)]
        for item, gain in zip(successors[user].tolist(), gains[user].tolist(), strict=True):
            score[item] += gain
        target = int(targets[user])
        rivals = [item for item in range(2, 30) if item != target and item not in seen[user].tolist()]
        above = sum(score[item] > score[target] for item in rivals)
        tied = sum(score[item] == score[target] for item in rivals)
        expected.append(above + tied / 2)
    assert target_ranks(ItemScores(queries, items, bias, successors, gains), targets, seen).tolist() == expected


def test_ranks_in_float32_under_autocast() -> None:
    # 1 and 1 + 2^-12 are one number in bfloat16.
    items = torch.tensor([[0.0], [0.0], [1.0], [1.0 + 2**-12]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rank(2, items=items) == 1


def test_no_users_give_no_ranks() -> None:
    assert target_ranks(scores_of(torch.empty(0, 1)), torch.empty(0, dtype=torch.int64), None).shape == (0,)


def test_top_items_are_the_best_that_are_not_seen() -> None:
    ids, scores = top_items(scores_of(), 2, torch.tensor([[2, PAD]]))
    assert sorted(ids[0].tolist()) == [4, 5]
    assert scores.tolist() == [[2, 2]]


def test_top_items_come_best_first() -> None:
    ids, scores = top_items(scores_of(), 5, None)
    assert ids[0, [0, 3, 4]].tolist() == [2, 3, 6]
    assert scores.tolist() == [[3, 2, 2, 1, 0]]


@pytest.mark.parametrize("num_users", [1, 3, 16, 20])
def test_top_items_do_not_depend_on_how_many_are_asked_for(num_users: int) -> None:
    # The i-th user asks for i times the items' scores; biases and gains come on top, the same for all.
    scores = replace(scores_of(torch.arange(1.0, num_users + 1)[:, None], gains={6: 2.0}), bias_N=torch.tensor([0.0, 0, 0, 0, 0, 0.5, 0]))
    ids, best = top_items(scores, 2, None)
    assert ids.tolist()[:3] == [[2, 5], [2, 5], [2, 5]][:num_users]
    assert best.tolist() == [[3.0 * user, 2.0 * user + 0.5] for user in range(1, num_users + 1)]


def test_top_items_pad_what_the_catalogue_cannot_fill() -> None:
    ids, scores = top_items(scores_of(), 9, torch.tensor([[2, 4, 5]]))
    assert ids.tolist() == [[3, 6, PAD, PAD, PAD, PAD, PAD, PAD, PAD]]
    assert scores[0, 2:].tolist() == [-math.inf] * 7


def test_top_items_of_an_empty_catalogue_are_padding() -> None:
    ids, _ = top_items(scores_of(items=ITEMS[:2]), 3, None)
    assert ids.tolist() == [[PAD, PAD, PAD]]


def test_a_table_by_columns_is_the_same_table_otherwise_in_memory() -> None:
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    columns = by_columns(table)
    assert columns.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert columns.stride() == (1, 3)
    assert table.stride() == (2, 1)
