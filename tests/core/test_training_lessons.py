"""Who of a dataset's users teaches something."""

import pytest

from mfn_core.errors import InsufficientDataError
from mfn_core.training.lessons import learnable_rows
from tests.factories import app_log, dataset_of, item_log

USERS = ["ann", "bob"]
NOBODY_TRAINS = dict.fromkeys(USERS, "test")
APPS = app_log([("ann", "mail", "work", "2026-03-04T12:00:00"), ("ann", "bank", "money", "2026-03-04T12:00:30")])


def test_where_there_are_app_logs_alone_a_next_app_teaches() -> None:
    assert learnable_rows(dataset_of(APPS, item_log([]), users=USERS, split=NOBODY_TRAINS)).tolist() == [0]


def test_beside_an_item_log_a_next_item_teaches() -> None:
    items = item_log([("bob", f"i{minute}", "news", f"2026-03-04T12:0{minute}:00") for minute in range(4)])  # the last two are held out
    assert learnable_rows(dataset_of(APPS, items, users=USERS, split=NOBODY_TRAINS)).tolist() == [1]


def test_users_of_whom_nothing_can_be_learned_are_refused() -> None:
    with pytest.raises(InsufficientDataError, match="none of the dataset's 2 users has two events or a label"):
        learnable_rows(dataset_of(app_log([]), item_log([]), users=USERS, split=NOBODY_TRAINS))
