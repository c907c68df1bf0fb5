"""What an input may see of a user, by hand.

ann    apps   a1 :10   a2 :20   a3 :30   a4 :50
       items  i1 :05   i2 :15   i3 :20   i4 :30   i5 :40    (i5 is the test target, i4 the validation target)
bob    items  i2 :10   i9 :20                              (too few to hold any out; i9 is unknown)
cai    apps   a1 :10

App a2 falls on the very second of i3, a3 on that of i4: neither is before its item.
"""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_core.data import batching
from mfn_core.data.batch import Batch
from mfn_core.data.batching import batches, collate
from mfn_core.data.held_out import held_out_events
from mfn_core.data.histories import Histories
from mfn_core.data.sequences import build_histories
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.schema import PAD, UNKNOWN
from tests.factories import app_log, item_log

NONE = -1
ANN, BOB, CAI = 0, 1, 2
T = 1_772_625_600  # 2026-03-04T12:00:00Z


def _vocabularies() -> Vocabularies:
    apps, items = pa.array(["a1", "a2", "a3", "a4"]), pa.array(["i1", "i2", "i3", "i4", "i5"])
    app_ids, item_ids = Vocabulary.fit(apps, np.arange(4, 0, -1)), Vocabulary.fit(items, np.arange(5, 0, -1))
    return Vocabularies(
        app_ids, Vocabulary.fit(pa.array(["work"]), np.array([1])), item_ids, Vocabulary.fit(pa.array(["news"]), np.array([1]))
    )


@pytest.fixture
def histories() -> Histories:
    apps = [("ann", f"a{number}", "work", f"2026-03-04T12:00:{second}") for number, second in ((1, 10), (2, 20), (3, 30), (4, 50))]
    items = [
        ("ann", f"i{number}", "news", f"2026-03-04T12:00:{second}") for number, second in ((1, "05"), (2, 15), (3, 20), (4, 30), (5, 40))
    ]
    apps += [("cai", "a1", "work", "2026-03-04T12:00:10")]
    items += [("bob", "i2", "news", "2026-03-04T12:00:10"), ("bob", "i9", "news", "2026-03-04T12:00:20")]
    return build_histories(app_log(apps), item_log(items), ["ann", "bob", "cai"], _vocabularies())


@pytest.fixture(autouse=True)
def exact_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded to the longest history and no further, for short literals."""
    monkeypatch.setattr(batching, "_LENGTH_STEP", 1)


def _collate(histories: Histories, rows: list[int], **changes) -> Batch:
    held_out_B = held_out_events(histories.micro.lengths)
    arguments = {"prefix": "train", "held_out_B": held_out_B, "max_macro_length": 9, "max_micro_length": 9} | changes
    return collate(histories, np.array(rows), **arguments)


def test_users_of_three_or_more_items_hold_out_two(histories: Histories) -> None:
    assert held_out_events(np.array([0, 1, 2, 3, 5])).tolist() == [0, 0, 0, 2, 2]


def test_train_reads_items_up_to_the_held_out_ones_and_all_apps(histories: Histories) -> None:
    batch = _collate(histories, [ANN, BOB, CAI])
    assert batch.micro_ids_BL.tolist() == [[2, 3, 4], [3, UNKNOWN, PAD], [PAD, PAD, PAD]]
    assert batch.macro_ids_BL.tolist() == [[2, 3, 4, 5], [PAD] * 4, [2, PAD, PAD, PAD]]
    assert batch.micro_lengths_B.tolist() == [3, 2, 0]
    assert batch.macro_lengths_B.tolist() == [4, 0, 1]


def test_a_window_too_short_for_all_apps_ends_with_those_before_the_last_item_to_learn(histories: Histories) -> None:
    # ann learns i2 and i3, and before i3 she had opened a1 alone: the first two apps, not the last two, which no item to learn has seen
    batch = _collate(histories, [ANN], max_macro_length=2)
    assert batch.macro_ids_BL.tolist() == [[2, 3]]
    assert batch.asof_BL.tolist() == [[0, 0, 1]]


def test_where_labels_are_read_from_the_batch_the_window_ends_with_the_latest_apps(histories: Histories) -> None:
    assert _collate(histories, [ANN], max_macro_length=2, latest_macro=True).macro_ids_BL.tolist() == [[4, 5]]


def test_a_user_without_an_item_to_learn_keeps_the_latest_apps() -> None:
    apps = [("dan", app, "work", f"2026-03-04T12:00:{second}") for app, second in (("a1", 10), ("a2", 20), ("a3", 30))]
    few = build_histories(app_log(apps), item_log([("dan", "i1", "news", "2026-03-04T12:00:15")]), ["dan"], _vocabularies())
    assert _collate(few, [0], max_macro_length=2).macro_ids_BL.tolist() == [[3, 4]]


def test_labels_are_told_each_id_and_how_often_from_before_the_window_too(histories: Histories) -> None:
    often = build_histories(
        app_log([("ann", app, "work", f"2026-03-04T12:00:0{second}") for second, app in enumerate(("a1", "a3", "a1", "a2", "a3"))]),
        item_log([]),
        ["ann"],
        _vocabularies(),
    )
    batch = _collate(often, [0], prefix="full", max_macro_length=1, max_ids=4)
    assert batch.macro_ids_BL.tolist() == [[4]]
    assert batch.macro_met_BM.tolist() == [[2, 3, 4, PAD]]
    assert batch.macro_met_counts_BM.tolist() == [[1, 1, 2, 0]]  # the first a1 lies beyond four events
    assert (batch.micro_met_BM.tolist(), batch.micro_met_counts_BM.tolist()) == ([[PAD]], [[0]])


def test_labels_are_told_categories_and_times_from_before_the_window_too(histories: Histories) -> None:
    batch = _collate(histories, [ANN, CAI], prefix="full", max_macro_length=1, max_ids=1)
    assert (batch.macro_times_BL - T).tolist() == [[50], [10]]
    assert batch.macro_past_times_BM.where(batch.macro_past_times_BM == 0, batch.macro_past_times_BM - T).tolist() == [
        [10, 20, 30, 50],
        [10, 0, 0, 0],
    ]
    assert batch.macro_past_categories_BM.tolist() == [[2, 2, 2, 2], [2, PAD, PAD, PAD]]


def test_a_robot_is_told_by_its_latest_events(histories: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_COUNTED", 2)
    assert (_collate(histories, [ANN], prefix="full", max_ids=9).macro_past_times_BM - T).tolist() == [[30, 50]]


def test_ids_for_labels_are_told_where_they_are_asked_for(histories: Histories) -> None:
    assert _collate(histories, [ANN, BOB]).micro_met_BM.tolist() == [[PAD], [PAD]]
    assert _collate(histories, [ANN, BOB]).macro_past_categories_BM.tolist() == [[PAD], [PAD]]
    told = _collate(histories, [ANN, BOB], max_ids=9)
    assert told.micro_met_BM.tolist() == [[2, 3, 4], [PAD, UNKNOWN, 3]]  # not the held-out ones
    assert told.micro_met_counts_BM.tolist() == [[1, 1, 1], [0, 1, 1]]


def test_train_learns_the_next_known_item_inside_the_prefix(histories: Histories) -> None:
    # bob's second item is unknown: nothing to learn; ann's fourth is held out
    assert _collate(histories, [ANN, BOB, CAI]).targets_BL.tolist() == [[3, 4, PAD], [PAD, PAD, PAD], [PAD, PAD, PAD]]


def test_asof_is_the_last_app_strictly_before_the_next_item(histories: Histories) -> None:
    # ann: i2 at :15 sees a1; i3 at :20 sees a1, not a2 of the same second; the query sees all four.
    # bob has no apps. cai has no items, and the query at position 0 sees the one app.
    assert _collate(histories, [ANN, BOB, CAI]).asof_BL.tolist() == [[0, 0, 3], [NONE, NONE, NONE], [0, NONE, NONE]]


def test_the_query_time_hides_apps_at_or_after_it(histories: Histories) -> None:
    assert _collate(histories, [ANN], query_time=T + 30).asof_BL.tolist() == [[0, 0, 1]]


def test_validation_ranks_the_last_item_but_one_from_what_is_strictly_before_it(histories: Histories) -> None:
    batch = _collate(histories, [ANN], prefix="validation")
    assert batch.micro_ids_BL.tolist() == [[2, 3, 4]]
    assert batch.targets_BL.tolist() == [[PAD, PAD, 5]]
    assert batch.macro_ids_BL.tolist() == [[2, 3]]  # a3 falls on the target's second
    assert batch.asof_BL.tolist() == [[0, 0, 1]]


def test_test_ranks_the_last_item_from_what_is_strictly_before_it(histories: Histories) -> None:
    batch = _collate(histories, [ANN], prefix="test")
    assert batch.micro_ids_BL.tolist() == [[2, 3, 4, 5]]
    assert batch.targets_BL.tolist() == [[PAD, PAD, PAD, 6]]
    assert batch.macro_ids_BL.tolist() == [[2, 3, 4]]
    assert batch.asof_BL.tolist() == [[0, 0, 1, 2]]


def test_ranking_ignores_the_query_time(histories: Histories) -> None:
    assert _collate(histories, [ANN], prefix="test", query_time=T).asof_BL.tolist() == [[0, 0, 1, 2]]


def test_a_target_outside_the_vocabulary_stays_unknown_when_ranked() -> None:
    items = [("ann", name, "news", f"2026-03-04T12:00:0{second}") for second, name in enumerate(["i1", "i2", "new"])]
    histories = build_histories(None, item_log(items), ["ann"], _vocabularies())
    assert _collate(histories, [0], prefix="test").targets_BL.tolist() == [[PAD, UNKNOWN]]


def test_full_reads_everything_and_has_no_targets(histories: Histories) -> None:
    batch = _collate(histories, [ANN, CAI], prefix="full", held_out_B=None)
    assert batch.micro_ids_BL.tolist() == [[2, 3, 4, 5, 6], [PAD] * 5]
    assert batch.macro_ids_BL.tolist() == [[2, 3, 4, 5], [2, PAD, PAD, PAD]]
    assert batch.asof_BL.tolist() == [[0, 0, 1, 2, 3], [0, NONE, NONE, NONE, NONE]]
    assert not batch.targets_BL.any()


def test_times_and_categories_are_those_of_the_events(histories: Histories) -> None:
    batch = _collate(histories, [BOB, CAI])
    assert batch.micro_times_BL.tolist() == [[T + 10, T + 20], [0, 0]]
    assert batch.micro_categories_BL.tolist() == [[2, 2], [PAD, PAD]]
    assert batch.macro_times_BL.tolist() == [[0], [T + 10]]


def test_only_the_latest_events_are_read_and_asof_moves_with_the_window(histories: Histories) -> None:
    batch = _collate(histories, [ANN], prefix="full", max_macro_length=2, max_micro_length=3)
    assert batch.micro_ids_BL.tolist() == [[4, 5, 6]]
    assert batch.macro_ids_BL.tolist() == [[4, 5]]
    # the next items saw two, three and (the query) four apps; the first two are outside the window
    assert batch.asof_BL.tolist() == [[NONE, 0, 1]]


def test_the_query_time_counts_inside_the_window(histories: Histories) -> None:
    batch = _collate(histories, [ANN], prefix="full", max_macro_length=2, max_micro_length=1, query_time=T + 31)
    assert batch.asof_BL.tolist() == [[0]]


def test_the_query_time_is_told_to_everybody(histories: Histories) -> None:
    assert _collate(histories, [ANN, CAI], prefix="full", query_time=T + 31).query_time_B.tolist() == [T + 31, T + 31]


def test_without_a_query_time_it_is_that_of_the_latest_event_that_is_read(histories: Histories) -> None:
    # ann's last app is at :50, her last item at :40; bob's last item at :20; cai's one app at :10
    assert _collate(histories, [ANN, BOB, CAI], prefix="full").query_time_B.tolist() == [T + 50, T + 20, T + 10]
    # ranking ann's last item, the latest event before it is the item and the app of :30
    assert _collate(histories, [ANN], prefix="test").query_time_B.tolist() == [T + 30]


def test_a_batch_of_empty_histories_is_one_column_wide() -> None:
    histories = build_histories(None, None, ["ann"], _vocabularies())
    batch = _collate(histories, [0], prefix="full")
    assert batch.macro_ids_BL.tolist() == batch.micro_ids_BL.tolist() == [[PAD]]
    assert batch.asof_BL.tolist() == [[NONE]]


def test_padded_lengths_are_rounded_up_within_the_limit(histories: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_LENGTH_STEP", 8)
    batch = _collate(histories, [ANN, CAI], prefix="full", max_micro_length=5)
    assert batch.macro_ids_BL[1].tolist() == [2, PAD, PAD, PAD, PAD, PAD, PAD, PAD]
    assert batch.micro_ids_BL.shape == batch.asof_BL.shape == batch.targets_BL.shape == (2, 5)
    assert _collate(histories, [CAI]).macro_ids_BL.tolist() == [[2]]


def test_labels_follow_their_users_and_missing_ones_are_marked(histories: Histories) -> None:
    activity_B, attributes_BA = np.array([1, 0, -1], np.int8), np.array([[0, 3], [1, -1], [2, 5]], np.int32)
    batch = _collate(histories, [CAI, ANN, BOB], activity_B=activity_B, attributes_BA=attributes_BA)
    assert torch.equal(batch.activity_B.nan_to_num(nan=-9), torch.tensor([-9.0, 1.0, 0.0]))
    assert batch.attributes_BA.tolist() == [[2, 5], [0, 3], [1, -1]]


def test_without_labels_everything_is_unlabelled(histories: Histories) -> None:
    batch = _collate(histories, [ANN])
    assert batch.activity_B.isnan().all()
    assert batch.attributes_BA.shape == (1, 0)


def test_indices_are_int64_and_activity_float32(histories: Histories) -> None:
    batch = _collate(histories, [ANN], attributes_BA=np.zeros((3, 1), np.int32))
    types = {name: tensor.dtype for name, tensor in vars(batch).items()}
    assert types.pop("activity_B") == torch.float32
    met = [f"{view}_{part}_BM" for view in ("macro", "micro") for part in ("met", "met_counts")]
    assert {types.pop(name) for name in met} == {torch.int32}  # kept for all users at once
    assert set(types.values()) == {torch.int64}


def test_ranking_a_user_without_held_out_items_is_a_mistake(histories: Histories) -> None:
    with pytest.raises(AssertionError, match="held-out"):
        _collate(histories, [ANN, BOB], prefix="validation")


_seconds = st.integers(0, 12)
_user_events = st.lists(st.tuples(st.sampled_from(["ann", "bob", "cai"]), _seconds), max_size=30)


@settings(max_examples=60, deadline=None)
@given(app_events=_user_events, item_events=_user_events, max_length=st.integers(1, 6))
def test_no_training_input_is_a_held_out_item_or_an_app_not_before_its_target(app_events, item_events, max_length) -> None:
    """Every event carries a number of its own, so that a batch can be traced back to the log."""
    apps = [(user, f"a{number:02d}", "work", f"2026-03-04T12:00:{second:02d}") for number, (user, second) in enumerate(app_events)]
    items = [(user, f"i{number:02d}", "news", f"2026-03-04T12:00:{second:02d}") for number, (user, second) in enumerate(item_events)]
    names = [pa.array([f"{kind}{number:02d}" for number in range(30)]) for kind in "ai"]
    app_ids, item_ids = (Vocabulary.fit(tokens, np.arange(30, 0, -1)) for tokens in names)
    base = _vocabularies()
    vocabularies = Vocabularies(app_ids, base.macro_category, item_ids, base.micro_category)
    histories = build_histories(app_log(apps), item_log(items), ["ann", "bob", "cai"], vocabularies)
    held_out = {
        item
        for user in ("ann", "bob", "cai")
        if len(mine := sorted((time, item) for owner, item, _, time in items if owner == user)) >= 3
        for _, item in mine[-2:]
    }
    held_out_ids = set(item_ids.encode(pa.array(sorted(held_out), pa.string())).tolist())

    batch = _collate(histories, [ANN, BOB, CAI], max_macro_length=max_length, max_micro_length=max_length)

    assert not held_out_ids & set(batch.micro_ids_BL.flatten().tolist())
    assert not held_out_ids & set(batch.targets_BL.flatten().tolist())
    for user in range(3):
        for position in range(int(batch.micro_lengths_B[user]) - 1):
            target_time = int(batch.micro_times_BL[user, position + 1])
            before = [time for time in batch.macro_times_BL[user, : int(batch.macro_lengths_B[user])].tolist() if time < target_time]
            assert int(batch.asof_BL[user, position]) == len(before) - 1


def test_batches_hold_every_position_once() -> None:
    lengths = np.arange(1000) % 37
    found = np.concatenate(list(batches(lengths, 64, seed=3, epoch=1, shuffle=True)))
    assert sorted(found.tolist()) == list(range(1000))


def test_shuffled_batches_hold_users_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 5000)
    padded = sum(len(rows) * lengths[rows].max() for rows in batches(lengths, 64, shuffle=True))
    assert padded < 1.1 * lengths.sum()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.arange(500) % 11

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(list(batches(lengths, 32, seed=seed, epoch=epoch, shuffle=True))).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)


def test_unshuffled_batches_run_from_long_to_short_with_ties_in_place() -> None:
    assert [rows.tolist() for rows in batches(np.array([1, 3, 2, 3]), 3, shuffle=False)] == [[1, 3, 2], [0]]


def test_no_users_make_no_batches() -> None:
    assert list(batches(np.array([], np.int64), 3, shuffle=True)) == []
