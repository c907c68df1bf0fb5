"""The trivial rivals, by hand."""

import tracemalloc

import numpy as np
import pytest

from mfn_core.data.histories import ViewHistories
from mfn_core.evaluation import baselines
from mfn_core.evaluation.baselines import base_rate, class_shares, popularity_ranks

#                  PAD UNKNOWN  2  3  4  5
COUNTS = np.array([0, 0, 9, 5, 5, 1])
LAST_OF_ALL = 6


def histories(*ids_by_user):
    offsets = np.append(0, np.cumsum([len(ids) for ids in ids_by_user])).astype(np.int64)
    ids = np.concatenate(ids_by_user).astype(np.int32)
    return ViewHistories(offsets, ids, np.zeros_like(ids), np.arange(len(ids), dtype=np.int64))


def ranks(*ids_by_user, dropped=1, mask_seen=True):
    micro = histories(*ids_by_user)
    return popularity_ranks(micro, np.arange(len(ids_by_user)), COUNTS, dropped=dropped, mask_seen=mask_seen).tolist()


def test_the_most_popular_item_is_first():
    assert ranks([5, 2]) == [0]


def test_equally_popular_items_share_the_middle_of_their_ranks():
    assert ranks([5, 3]) == [1.5]


def test_a_seen_rival_gives_up_its_place():
    assert ranks([2, 3]) == [0.5]
    assert ranks([4, 3]) == [1.0]


def test_an_item_seen_twice_gives_up_one_place():
    assert ranks([2, 2, 5]) == [2]


def test_a_target_that_was_seen_before_still_competes():
    assert ranks([3, 3]) == [1.5]


def test_without_masking_seen_items_compete():
    assert ranks([2, 3], mask_seen=False) == [1.5]


def test_the_validation_target_is_the_last_but_one_and_what_follows_it_is_not_seen():
    assert ranks([4, 5, 2], dropped=2) == [2]


def test_an_unknown_target_stands_behind_every_item():
    assert ranks([2, 1]) == [LAST_OF_ALL]


def test_unknown_items_are_no_rivals():
    assert ranks([1, 1, 2]) == [0]


def test_users_do_not_see_each_others_items():
    assert ranks([2, 3], [5, 3], [2, 4, 3]) == [0.5, 1.5, 0.0]


@pytest.mark.parametrize("events_at_once", [1, 3, 5])
def test_users_of_all_parts_keep_their_place(events_at_once, monkeypatch):
    monkeypatch.setattr(baselines, "_EVENTS_AT_ONCE", events_at_once)
    assert ranks([2, 3], [5, 3], [2, 4, 3], [5, 2]) == [0.5, 1.5, 0.0, 0.0]


def test_what_many_users_have_met_is_never_held_at_once(monkeypatch):
    monkeypatch.setattr(baselines, "_EVENTS_AT_ONCE", 1000)
    micro = histories(*[[2, 4, 3] * 100] * 1000)
    tracemalloc.start()
    popularity_ranks(micro, np.arange(1000), COUNTS, dropped=1, mask_seen=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < micro.ids.nbytes  # at once it takes sixteen times as much


def test_only_the_asked_rows_are_ranked():
    micro = histories([2, 3], [5, 2])
    assert popularity_ranks(micro, np.array([1]), COUNTS, dropped=1, mask_seen=True).tolist() == [0]


def test_the_base_rate_is_of_the_labelled():
    assert base_rate(np.array([1, 0, 0, -1, 0])) == 0.25


def test_class_shares_are_of_the_labelled():
    assert class_shares(np.array([2, 0, 2, -1, 2]), 3).tolist() == [0.25, 0, 0.75]


def test_without_a_label_classes_are_equally_likely():
    assert base_rate(np.array([-1])) == 0.5
    assert class_shares(np.array([-1]), 2).tolist() == [0.5, 0.5]
