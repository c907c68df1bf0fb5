"""Counts of what follows what, and what an item gains by them: all numbers by hand."""

import math

import numpy as np
import pytest
import torch

from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Transitions, item_shares
from tests.batches import histories_of


def fitted(*ids: list[int], window: int = 1, held_out: int = 0, num_items: int = 6, num_successors: int = 2) -> Transitions:
    table = Transitions(num_items=num_items, num_successors=num_successors, window=window)
    table.fit(histories_of(*ids), np.full(len(ids), held_out, np.int8))
    return table


def counts(table: Transitions) -> dict[int, dict[int, float]]:
    """Successors of every item that has some, and how often."""
    found = {}
    for item, (successors, weights) in enumerate(zip(table.successors_NM.tolist(), table.counts_NM.tolist(), strict=True)):
        if any(weights):
            found[item] = {successor: weight for successor, weight in zip(successors, weights, strict=True) if weight}
    return found


class TestCounting:
    def test_each_pair_of_neighbours_counts_one(self) -> None:
        table = fitted([2, 3, 4], [2, 3], [2, 5])
        assert counts(table) == {2: {3: 2, 5: 1}, 3: {4: 1}}
        assert table.totals_N.tolist() == [0, 0, 3, 1, 0, 0]

    def test_in_a_window_a_pair_counts_one_by_its_distance(self) -> None:
        table = fitted([2, 3, 4, 5], window=3, num_successors=3)
        assert counts(table) == {2: {3: 1, 4: 0.5, 5: pytest.approx(1 / 3)}, 3: {4: 1, 5: 0.5}, 4: {5: 1}}
        torch.testing.assert_close(table.totals_N, torch.tensor([0, 0, 11 / 6, 1.5, 1, 0]))

    def test_the_most_frequent_successors_are_kept_best_first_and_the_total_counts_all(self) -> None:
        table = fitted([2, 3], [2, 4], [2, 4], [2, 5])
        assert table.successors_NM[2].tolist() == [4, 3]  # 3 and 5 tie: the lower id
        assert table.counts_NM[2].tolist() == [2, 1]
        assert table.totals_N[2] == 4

    def test_users_are_kept_apart(self) -> None:
        assert counts(fitted([2], [3], [], [4], window=3)) == {}

    def test_held_out_events_are_not_counted(self) -> None:
        assert counts(fitted([2, 3, 4, 5], [3, 2, 5, 4], window=2, held_out=2)) == {2: {3: 1}, 3: {2: 1}}

    def test_what_is_held_out_is_told_per_user(self) -> None:
        table = Transitions(num_items=6, num_successors=2, window=1)
        table.fit(histories_of([2, 3, 4], [4, 5]), np.array([2, 0], np.int8))
        assert counts(table) == {4: {5: 1}}

    def test_unknown_takes_no_part_but_takes_its_place(self) -> None:
        assert counts(fitted([2, 1, 3], window=1)) == {}
        assert counts(fitted([2, 1, 3], window=2)) == {2: {3: 0.5}}

    def test_a_repetition_takes_no_part(self) -> None:
        table = fitted([2, 2, 3], window=2)
        assert counts(table) == {2: {3: 1.5}}
        assert table.totals_N[2] == 1.5

    def test_shares_are_of_the_known_events_that_are_not_held_out_and_never_zero(self) -> None:
        shares = item_shares(histories_of([2, 2, 3, 1, 5], [2]), np.array([1, 0], np.int8), 6)
        assert shares.tolist() == [1e-5, 1e-5, 0.75, 0.25, 1e-5, 1e-5]

    def test_without_events_nothing_follows(self) -> None:
        table = fitted([], [])
        assert counts(table) == {}
        assert table.popularity_N.tolist() == pytest.approx([1e-5] * 6)


def gain(table: Transitions, history: list[int], step: int, target: int | None = None) -> list[tuple[int, float]]:
    """Successors at one position, and what each gains."""
    wanted = None if target is None else torch.tensor([target])
    successors_PM, gains_PM = table(torch.tensor([history]), torch.tensor([0]), torch.tensor([step]), wanted)
    return list(zip(successors_PM[0].tolist(), gains_PM[0].tolist(), strict=True))


class TestGains:
    """Of five events 2 are item 2, 2 are item 3, 1 is item 4; after 2 comes 3 twice, after 3 comes 4 once."""

    LOG = ([2, 3, 4], [2, 3])

    def test_by_hand(self) -> None:
        # P(3 | 2) = 2 / (2 + 3), P(3) = 2 / 5, alpha = .3.
        assert gain(fitted(*self.LOG), [2], 0) == [(3, pytest.approx(0.3 * math.log(1 + 0.4 / 0.4))), (0, 0)]

    def test_alphas_start_lower_for_earlier_items(self) -> None:
        assert fitted(*self.LOG, window=3).alpha_W.tolist() == pytest.approx([0.3, 0.15, 0.1])

    def test_each_of_the_latest_items_adds_its_own_latest_first(self) -> None:
        # Pairs: 2 3 twice, 3 4 once, 2 4 half. After 3 comes 4: 1 / (1 + 3); after 2: 3 in 2 / 5.5, 4 in .5 / 5.5.
        after_three = (4, pytest.approx(0.3 * math.log(1 + 0.25 / 0.2)))
        after_two = [(3, pytest.approx(0.15 * math.log(1 + 2 / 5.5 / 0.4))), (4, pytest.approx(0.15 * math.log(1 + 0.5 / 5.5 / 0.2)))]
        assert gain(fitted(*self.LOG, window=2), [2, 3, 4], 1) == [after_three, (0, 0), *after_two]

    def test_a_position_reads_no_later_event_and_none_before_the_first(self) -> None:
        table = fitted(*self.LOG, window=2)
        assert gain(table, [2, 3, 4], 0) == gain(table, [2, 5, 5], 0)
        assert gain(table, [2, 3, 4], 0)[2:] == [(0, 0), (0, 0)]

    def test_what_has_no_successors_and_padding_gain_nothing(self) -> None:
        table = fitted(*self.LOG)
        for item in (0, 1, 4, 5):
            assert gain(table, [item], 0) == [(0, 0), (0, 0)]

    def test_in_training_the_own_transition_is_taken_out(self) -> None:
        # One of two: P(3 | 2) = 1 / (1 + 3).
        assert gain(fitted(*self.LOG), [2], 0, target=3)[0] == (3, pytest.approx(0.3 * math.log(1 + 0.25 / 0.4)))

    def test_in_training_a_transition_seen_once_is_unknown(self) -> None:
        assert gain(fitted(*self.LOG), [3], 0, target=4) == [(4, 0), (0, 0)]

    def test_in_training_the_own_pair_is_taken_out_at_every_distance(self) -> None:
        # 2 4 was counted once, as one half: nothing is left of it, and 2 of 2.5 pairs after 2 are left.
        answers = gain(fitted(*self.LOG, window=2), [2, 3], 1, target=4)
        assert answers == [(4, 0), (0, 0), (3, pytest.approx(0.15 * math.log(1 + 2 / (2 + 3) / 0.4))), (4, 0)]

    def test_positions_are_answered_as_asked(self) -> None:
        table = fitted(*self.LOG)
        successors_PM, _ = table(torch.tensor([[2, 3], [3, 2]]), torch.tensor([1, 0, 1]), torch.tensor([0, 0, 1]), None)
        assert successors_PM[:, 0].tolist() == [4, 3, 3]

    def test_only_alpha_is_learned(self) -> None:
        assert [name for name, _ in fitted(*self.LOG).named_parameters()] == ["alpha_W"]


def test_the_smoothed_bigram_is_a_special_case() -> None:
    """No query, biases of log popularity, alpha of 1: the softmax is P(j) + n_ij / (n_i + kappa), normalized."""
    table = fitted([2, 3, 4], [2, 3])
    torch.nn.init.ones_(table.alpha_W)
    successors_PM, gains_PM = table(torch.tensor([[2]]), torch.tensor([0]), torch.tensor([0]), None)
    scores = ItemScores(torch.zeros(1, 1), torch.zeros(6, 1), table.popularity_N.log(), successors_PM, gains_PM)
    dense_PN = (scores.bias_N[None]).scatter_add(1, scores.successors_PM, scores.gains_PM)
    # Popularity .4, .4, .2 of items 2, 3, 4; 3 has followed 2 in 2 of 2 + 3.
    torch.testing.assert_close(dense_PN.softmax(1)[0, 2:5], torch.tensor([0.4, 0.8, 0.2]) / 1.4, rtol=1e-4, atol=0)
