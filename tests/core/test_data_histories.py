"""What may be asked of the histories of many users."""

import tracemalloc

import numpy as np
import pytest

from mfn_core.data import histories
from mfn_core.schema import UNKNOWN
from tests.batches import histories_of

HISTORIES = histories_of([2, 3, 4, 5], [], [6], [], [7, 8, 9], [])
HELD_OUT = np.array([2, 0, 0, 0, 1, 0], np.int8)


def test_the_last_events_of_each_user_that_are_held_out_are_no_training_events():
    assert HISTORIES.is_training(HELD_OUT).tolist() == [True, True, False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 3, [True, True, False]),
        (2, 3, [False]),
        (3, 6, [False, True, True]),
        (4, 5, [True]),
        (5, 8, [True, True, False]),
        (4, 4, []),
        (8, 8, []),
    ],
)
def test_some_events_alone_may_be_asked_about(start, stop, expected):
    assert HISTORIES.is_training(HELD_OUT, start, stop).tolist() == expected


def test_nobody_has_no_training_events():
    assert histories_of().is_training(np.empty(0, np.int8)).tolist() == []
    assert histories_of([], []).is_training(np.zeros(2, np.int8)).tolist() == []


MET = histories_of([5, 3, 5, 5, 4], [7], [2, 6, 2])
USERS = np.array([2, 0, 1])


def test_what_users_have_met_is_told_event_by_event():
    owner, ids = MET.met(USERS, dropped=0)
    assert owner.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2]
    assert ids.tolist() == [2, 6, 2, 5, 3, 5, 5, 4, 7]
    owner, ids = MET.met(USERS, dropped=2)
    assert (owner.tolist(), ids.tolist()) == ([0, 1, 1, 1], [2, 5, 3, 5])


def test_the_ids_that_users_have_met_are_padded_to_the_longest_history():
    assert MET.padded_ids(USERS, dropped=0).tolist() == [[2, 6, 2, 0, 0], [5, 3, 5, 5, 4], [7, 0, 0, 0, 0]]
    assert MET.padded_ids(USERS, dropped=2).tolist() == [[2, 0, 0], [5, 3, 5], [0, 0, 0]]


def test_of_histories_too_long_to_be_padded_each_id_comes_once(monkeypatch):
    monkeypatch.setattr(histories, "_MOST_PADDED", 14)  # three users of up to five events have 15 places
    assert MET.padded_ids(USERS, dropped=0).tolist() == [[2, 6, 0], [3, 4, 5], [7, 0, 0]]
    assert MET.padded_ids(USERS, dropped=1).tolist() == [[2, 6, 0, 0], [5, 3, 5, 5], [0, 0, 0, 0]]  # 12 places


def test_an_item_returns_where_it_was_met_before_the_last_events():
    assert MET.is_returning(np.array([2, 0]), dropped=1).tolist() == [True, False]
    assert MET.is_returning(np.array([2, 0]), dropped=2).tolist() == [False, True]


def test_of_an_unknown_item_nobody_can_tell_whether_it_returns():
    assert histories_of([UNKNOWN, UNKNOWN]).is_returning(np.array([0]), dropped=1).tolist() == [False]


def test_nobody_has_met_anything():
    assert MET.padded_ids(np.empty(0, np.int64), dropped=0).shape == (0, 1)
    assert MET.padded_ids(np.array([1]), dropped=5).tolist() == [[0]]


def test_beside_a_bot_of_a_hundred_thousand_events_nobody_takes_more_memory():
    micro = histories_of([2, 3, 4, 5] * 25_000, *([[2, 3]] * 127))
    tracemalloc.start()
    padded = micro.padded_ids(np.arange(128), dropped=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert padded[:3].tolist() == [[2, 3, 4, 5], [2, 0, 0, 0], [2, 0, 0, 0]]
    assert peak < 5_000_000  # bytes; 128 histories of 100,000 events would be 102 million
