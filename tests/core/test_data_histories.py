"""What may be asked of the histories of many users."""

import numpy as np
import pytest

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
