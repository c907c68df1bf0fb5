"""What RecBole is given and how what it says is ranked, on histories of a few events. RecBole itself is not needed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.recbole import atomic_files
from benchmarks.recbole.atomic_files import NOT_KNOWN
from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.evaluation import evaluator
from mfn_core.schema import UNKNOWN
from tests.factories import app_log, dataset_of, item_log

PAD_UNKNOWN = [9.0, 9.0]  # scores that nobody may be recommended for


def histories(**items_of_users):
    """A dataset of the items that each user met, in this order."""
    met = [(user, item, hour) for user, items in items_of_users.items() for hour, item in enumerate(items)]
    events = [(user, item, "goods", f"2026-05-01T{hour:02d}:00:00") for user, item, hour in met]
    return dataset_of(app_log([]), item_log(events), users=list(items_of_users))


@pytest.fixture
def dataset():
    """Internal ids by count, then by name: a 2, b 3, c 4, d 5. User u3 has nothing held out, u4 no events."""
    return histories(u1=["b", "a", "c"], u2=["a", "b", "a", "d"], u3=["a", "b"], u4=[])


def without(dataset, item):
    """The same histories where the vocabulary had lacked the item."""
    micro = dataset.histories.micro
    micro = replace(micro, ids=np.where(micro.ids == item, UNKNOWN, micro.ids).astype(np.int32))
    return replace(dataset, histories=replace(dataset.histories, micro=micro))


def lines(path):
    return path.read_text().splitlines()


# Export.


def test_events_are_written_in_order_by_row_internal_id_and_position(dataset, tmp_path):
    assert lines(atomic_files.export(dataset, tmp_path / "shop")) == [
        "user_id:token\titem_id:token\ttimestamp:float",
        *["0\t3\t0", "0\t2\t1", "0\t4\t2"],
        *["1\t2\t0", "1\t3\t1", "1\t2\t2", "1\t5\t3"],
        *["2\t2\t0", "2\t3\t1"],
    ]


def test_the_file_is_where_recbole_looks_for_it(dataset, tmp_path):
    assert atomic_files.export(dataset, tmp_path / "new" / "shop") == tmp_path / "new" / "shop" / "shop.inter"


def test_an_item_outside_the_vocabulary_is_left_out_and_the_others_keep_their_positions(dataset, tmp_path):
    assert lines(atomic_files.export(without(dataset, 2), tmp_path / "shop"))[1:] == ["0\t3\t0", "0\t4\t2", "1\t3\t1", "1\t5\t3", "2\t3\t1"]


def test_only_a_dataset_with_a_recommendation_can_be_exported(tmp_path):
    no_items = dataset_of(app_log([("u1", "chess", "games", "2026-05-01T00:00:00")]), item_log([]), users=["u1"])
    with pytest.raises(ConfigError, match="left out by the test"):
        atomic_files.export(no_items, tmp_path / "shop")


def test_without_a_held_out_event_there_is_nothing_to_rank(tmp_path):
    with pytest.raises(InsufficientDataError, match="0 users have held-out events, 1 is needed"):
        atomic_files.export(histories(u1=["a", "b"]), tmp_path / "shop")


# The split.


@pytest.mark.parametrize(
    ("row", "position", "split"),
    [
        (0, 1, 1),  # three events: the second is already the validation target
        (0, 2, 2),
        (1, 1, 0),
        (1, 2, 1),
        (1, 3, 2),
        (2, 1, 0),  # two events: nothing is held out
    ],
)
def test_the_last_event_is_for_the_test_and_the_one_before_for_validation(dataset, row, position, split):
    assert atomic_files.split_of_targets(dataset, np.array([row]), np.array([position])) == [split]


# Ranks.


def ranks(dataset, scores, *, split="test", mask_seen=True, rows=(0, 1)):
    scores_BN = torch.tensor([PAD_UNKNOWN + row for row in scores])
    return atomic_files.target_ranks(dataset, np.array(rows), scores_BN, split=split, mask_seen=mask_seen).tolist()


def test_a_target_ranks_behind_what_scores_higher_and_was_not_seen(dataset):
    # u1 met b and a before c: of the higher ones d alone is a rival. u2 met a and b before d: c is one.
    assert ranks(dataset, [[0.9, 0.8, 0.1, 0.7], [0.9, 0.8, 0.7, 0.1]]) == [1, 1]


def test_seen_items_are_rivals_where_the_mask_is_off(dataset):
    assert ranks(dataset, [[0.9, 0.8, 0.1, 0.7], [0.9, 0.8, 0.7, 0.1]], mask_seen=False) == [3, 3]


def test_validation_ranks_the_last_but_one_by_what_stands_before_it(dataset):
    # u1: target a, only b was met. u2: target a, met before itself, and b; it competes all the same.
    assert ranks(dataset, [[0.1, 0.9, 0.8, 0.7], [0.5, 0.9, 0.8, 0.1]], split="validation") == [2, 1]


def test_a_tie_counts_half_and_constant_scores_rank_in_the_middle(dataset):
    assert ranks(dataset, [[0.0, 0.0, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0]]) == [0.5, 0.5]
    assert ranks(dataset, [[0.0, 0.0, 0.0, 0.0]], mask_seen=False, rows=[1]) == [1.5]


def test_items_that_the_model_does_not_know_stand_behind_all_others(dataset):
    assert ranks(dataset, [[NOT_KNOWN, 0.2, 0.1, NOT_KNOWN], [0.3, 0.2, 0.1, NOT_KNOWN]]) == [0, 1]


def test_a_target_outside_the_vocabulary_ranks_behind_the_whole_catalogue(dataset):
    assert ranks(without(dataset, 4), [[0.9, 0.8, 0.1, 0.7]], rows=[0]) == [6]


# Scores.


def test_the_table_is_what_the_evaluator_measures(dataset):
    table = atomic_files.scores_table(dataset, np.array([0, 7], np.float32), split="test", mask_seen=True)
    # Popularity: a 4 times, b 3, c and d once each; both targets tie with the one other item that their user has not met.
    assert table.to_pydict() == {"user_id": ["u1", "u2"], "rank": [0, 7], "baseline_rank": [0.5, 0.5]}
    figures = evaluator.figures_of("recommendation", table)(np.arange(2))
    assert figures["hr@5"] == 0.5
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / np.log2(9)) / 2)
