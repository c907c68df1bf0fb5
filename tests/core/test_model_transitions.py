"""Counts of what follows what, and what an item gains by them: all numbers by hand."""

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mfn_core.model import transitions
from mfn_core.model.transitions import Gains, Transitions, item_shares
from tests.batches import histories_of


def fitted(
    *ids: list[int], window: int = 1, held_out: int = 0, num_items: int = 6, num_successors: int = 2, may_return=False
) -> Transitions:
    table = Transitions(num_items=num_items, num_successors=num_successors, window=window)
    table.fit(histories_of(*ids), np.full(len(ids), held_out, np.int8), may_return=may_return)
    return table


def gains_of(table: Transitions) -> dict[int, dict[int, float]]:
    """Successors of every item that has some, and what each gains."""
    found = {}
    for item, (successors, gains) in enumerate(zip(table.successors_NM.tolist(), table.gains_NM.tolist(), strict=True)):
        if any(gains):
            found[item] = {successor: gain for successor, gain in zip(successors, gains, strict=True) if gain}
    return found


def lift(times: float, total: float, share: float) -> float:
    """log(1 + P(j | i) / P(j)), of a pair counted so many times, of all pairs after i, and of the item's share of the events."""
    return pytest.approx(math.log(1 + times / (total + 3) / share))


class TestCounting:
    def test_each_pair_of_neighbours_counts_one(self) -> None:
        # Of seven events 3 are item 2, 2 are item 3, 1 is item 4, 1 is item 5.
        table = fitted([2, 3, 4], [2, 3], [2, 5])
        assert gains_of(table) == {2: {3: lift(2, 3, 2 / 7), 5: lift(1, 3, 1 / 7)}, 3: {4: lift(1, 1, 1 / 7)}}

    def test_in_a_window_a_pair_counts_one_by_its_distance(self) -> None:
        table = fitted([2, 3, 4, 5], window=3, num_successors=3)
        assert gains_of(table) == {
            2: {3: lift(1, 11 / 6, 0.25), 4: lift(1 / 2, 11 / 6, 0.25), 5: lift(1 / 3, 11 / 6, 0.25)},
            3: {4: lift(1, 1.5, 0.25), 5: lift(0.5, 1.5, 0.25)},
            4: {5: lift(1, 1, 0.25)},
        }

    def test_the_most_frequent_successors_are_kept_best_first_and_the_total_counts_all(self) -> None:
        table = fitted([2, 3], [2, 4], [2, 4], [2, 5])
        assert table.successors_NM[2].tolist() == [4, 3]  # 3 and 5 tie: the lower id
        assert table.gains_NM[2].tolist() == [lift(2, 4, 2 / 8), lift(1, 4, 1 / 8)]

    def test_users_are_kept_apart(self) -> None:
        assert gains_of(fitted([2], [3], [], [4], window=3)) == {}

    def test_held_out_events_are_not_counted(self) -> None:
        assert gains_of(fitted([2, 3, 4, 5], [3, 2, 5, 4], window=2, held_out=2)) == {2: {3: lift(1, 1, 0.5)}, 3: {2: lift(1, 1, 0.5)}}

    def test_what_is_held_out_is_told_per_user(self) -> None:
        table = Transitions(num_items=6, num_successors=2, window=1)
        table.fit(histories_of([2, 3, 4], [4, 5]), np.array([2, 0], np.int8), may_return=False)
        assert gains_of(table) == {4: {5: lift(1, 1, 1 / 3)}}

    def test_unknown_takes_no_part_but_takes_its_place(self) -> None:
        assert gains_of(fitted([2, 1, 3], window=1)) == {}
        assert gains_of(fitted([2, 1, 3], window=2)) == {2: {3: lift(0.5, 0.5, 0.5)}}

    def test_a_repetition_takes_no_part(self) -> None:
        assert gains_of(fitted([2, 2, 3], window=2)) == {2: {3: lift(1.5, 1.5, 1 / 3)}}

    def test_where_items_return_a_repetition_is_a_pair_like_any_other(self) -> None:
        table = fitted([2, 2, 3], window=1, may_return=True)
        assert gains_of(table) == {2: {2: lift(1, 2, 2 / 3), 3: lift(1, 2, 1 / 3)}}

    def test_shares_are_of_the_known_events_that_are_not_held_out_and_never_zero(self) -> None:
        shares = item_shares(histories_of([2, 2, 3, 1, 5], [2]), np.array([1, 0], np.int8), 6)
        assert shares.tolist() == [1e-5, 1e-5, 0.75, 0.25, 1e-5, 1e-5]

    def test_without_events_nothing_follows(self) -> None:
        assert gains_of(fitted([], [])) == {}

    def test_counting_anew_forgets_what_was_counted(self) -> None:
        table = fitted([2, 3], [2, 4])
        table.fit(histories_of([5, 3]), np.zeros(1, np.int8), may_return=False)
        assert gains_of(table) == {5: {3: lift(1, 1, 0.5)}}

    def test_nothing_is_learned(self) -> None:
        assert list(fitted([2, 3]).parameters()) == []


@pytest.fixture
def in_parts(monkeypatch) -> Callable[[int, int], None]:
    """Has so many pairs and events counted at once, and no more."""

    def limit(pairs: int, events: int) -> None:
        monkeypatch.setattr(transitions, "_PAIRS_AT_ONCE", pairs)
        monkeypatch.setattr(transitions, "_EVENTS_AT_ONCE", events)

    return limit


def random_log(num_users: int, num_events: int) -> list[list[int]]:
    """Of items 1 to 19, the first ones often, the last ones rarely."""
    return (np.random.default_rng(0).geometric(0.3, (num_users, num_events)).clip(max=19)).tolist()


class TestCountingInParts:
    """Items that together have few pairs are counted by sorting these, an item that has many by itself: to the same end."""

    @pytest.mark.parametrize("events", [1, 3, 4])
    @pytest.mark.parametrize("pairs", [1, 3, 6, 12])
    def test_by_hand(self, in_parts, pairs: int, events: int) -> None:
        in_parts(pairs, events)
        assert gains_of(fitted([2, 3, 4, 5], window=3, num_successors=3)) == {
            2: {3: lift(1, 11 / 6, 0.25), 4: lift(1 / 2, 11 / 6, 0.25), 5: lift(1 / 3, 11 / 6, 0.25)},
            3: {4: lift(1, 1.5, 0.25), 5: lift(0.5, 1.5, 0.25)},
            4: {5: lift(1, 1, 0.25)},
        }

    @pytest.mark.parametrize("may_return", [False, True])
    @pytest.mark.parametrize(("pairs", "events"), [(1, 100), (300, 7), (1000, 64)])
    def test_the_tables_are_those_of_counting_all_at_once_bit_for_bit(self, in_parts, pairs: int, events: int, may_return: bool) -> None:
        log = random_log(30, 20)
        whole = fitted(*log, window=7, held_out=2, num_items=20, num_successors=5, may_return=may_return)
        in_parts(pairs, events)
        parts = fitted(*log, window=7, held_out=2, num_items=20, num_successors=5, may_return=may_return)
        assert torch.equal(parts.successors_NM, whole.successors_NM)
        assert torch.equal(parts.gains_NM, whole.gains_NM)

    @pytest.mark.parametrize("pairs", [1, 100])
    def test_what_a_pair_counts_is_added_from_the_nearest_to_the_farthest(self, in_parts, pairs: int) -> None:
        # 1 + 1/3 + 1/3 + 1/3 is less than 2 in floating point, 1/3 + 1/3 + 1/3 + 1 is not: then 3 would come before 4, as the lower id.
        in_parts(pairs, 3)
        table = fitted([2, 1, 1, 3], [2, 1, 1, 3], [2, 1, 1, 3], [2, 3], [2, 4], [2, 4], window=3)
        assert table.successors_NM[2].tolist() == [4, 3]

    def test_a_longer_log_takes_no_more_memory(self, in_parts) -> None:
        in_parts(1000, 1000)
        micro = histories_of(*random_log(500, 100))
        tracemalloc.start()
        Transitions(num_items=20, num_successors=5, window=8).fit(micro, np.full(500, 2, np.int8), may_return=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 500_000  # bytes; the log has 50,000 events


def gain(table: Transitions, history: list[int], length: int | None = None) -> list[tuple[int, float]]:
    """What gains at the end of a history, the latest item's successors first."""
    gains = table(torch.tensor([history]), torch.tensor([len(history) if length is None else length]))
    return list(zip(gains.items_BM.flatten().tolist(), gains.gains_BM.flatten().tolist(), strict=True))


class TestGains:
    """Of five events 2 are item 2, 2 are item 3, 1 is item 4; after 2 comes 3 twice, after 3 comes 4 once."""

    LOG = ([2, 3, 4], [2, 3])

    def test_by_hand(self) -> None:
        # P(3 | 2) = 2 / (2 + 3), P(3) = 2 / 5.
        assert gain(fitted(*self.LOG), [2]) == [(3, pytest.approx(math.log(1 + 0.4 / 0.4))), (0, 0)]

    def test_each_of_the_latest_items_adds_its_own_latest_first(self) -> None:
        # Pairs: 2 3 twice, 3 4 once, 2 4 half. After 3 comes 4: 1 / (1 + 3); after 2: 3 in 2 / 5.5, 4 in .5 / 5.5.
        after_three = (4, pytest.approx(math.log(1 + 0.25 / 0.2)))
        after_two = [(3, pytest.approx(math.log(1 + 2 / 5.5 / 0.4))), (4, pytest.approx(math.log(1 + 0.5 / 5.5 / 0.2)))]
        assert gain(fitted(*self.LOG, window=2), [2, 3]) == [after_three, (0, 0), *after_two]

    def test_the_end_of_a_history_is_where_its_padding_starts(self) -> None:
        table = fitted(*self.LOG, window=2)
        assert gain(table, [2, 3, 0, 0], length=2) == gain(table, [2, 3])

    def test_before_the_first_event_there_is_nothing(self) -> None:
        assert gain(fitted(*self.LOG, window=2), [2])[2:] == [(0, 0), (0, 0)]
        assert gain(fitted(*self.LOG, window=2), [0], length=0) == [(0, 0)] * 4

    def test_what_has_no_successors_gains_nothing(self) -> None:
        table = fitted(*self.LOG)
        for item in (1, 4, 5):
            assert gain(table, [item]) == [(0, 0), (0, 0)]

    def test_users_are_answered_apart(self) -> None:
        gains = fitted(*self.LOG)(torch.tensor([[2, 3], [2, 0]]), torch.tensor([2, 1]))
        assert gains.items_BM[:, 0].tolist() == [4, 3]

    def test_some_users_may_be_taken_and_others_put_below(self) -> None:
        gains = fitted(*self.LOG)(torch.tensor([[2], [3]]), torch.tensor([1, 1]))
        assert gains.at(torch.tensor([False, True])).items_BM.tolist() == [[4, 0]]
        assert Gains.concatenate([gains.at(slice(1, 2)), gains.at(slice(0, 1))]).items_BM[:, 0].tolist() == [4, 3]


class TestMixture:
    """Three places for each of the two latest items; what both name is 3."""

    PRODUCT = Gains(torch.tensor([[3, 4, 0, 5, 3, 0]]), torch.tensor([[2.0, 4.0, 1.0, 5.0, 9.0, 1.0]]).log())

    def test_lifts_are_added_the_second_latest_item_counting_half(self) -> None:
        mixed = fitted([2, 3], window=2, num_successors=3).mixture(self.PRODUCT)
        named = dict(zip(mixed.items_BM[0].tolist(), mixed.gains_BM[0].exp().tolist(), strict=True))
        assert named == {0: 1.0, 3: pytest.approx(1 + (2 - 1) + (9 - 1) / 2), 4: pytest.approx(4), 5: pytest.approx(1 + (5 - 1) / 2)}

    def test_every_item_has_one_place(self) -> None:
        mixed = fitted([2, 3], window=2, num_successors=3).mixture(self.PRODUCT)
        assert sorted(mixed.items_BM[0].tolist()) == [0, 0, 0, 3, 4, 5]

    def test_what_a_single_item_names_gains_what_it_gained(self) -> None:
        table = fitted([2, 3, 4], [2, 3])
        product = table(torch.tensor([[2]]), torch.tensor([1]))
        mixed = table.mixture(product)
        assert mixed.items_BM.sort().values.tolist() == product.items_BM.sort().values.tolist()
        torch.testing.assert_close(mixed.gains_BM.sort().values, product.gains_BM.sort().values)

    def test_free_places_gain_nothing(self) -> None:
        table = fitted([2, 3], window=2)
        assert table.mixture(table(torch.tensor([[0]]), torch.tensor([0]))).gains_BM.tolist() == [[0, 0, 0, 0]]
