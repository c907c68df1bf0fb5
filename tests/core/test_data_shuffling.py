"""Macro histories of other users, and nothing else changed."""

from dataclasses import replace

import numpy as np
import pytest

from mfn_core.data.dataset import Dataset
from mfn_core.data.shuffling import shuffle_macro, write_dataset
from tests.factories import app_log, dataset_of, item_log, patterned_dataset

SPLIT = {"ann": "train", "bob": "train", "cai": "test", "dan": "test", "eve": "validation", "flo": "train"}
APPS = app_log(
    [
        ("ann", "mail", "work", "2026-05-01T08:00:00"),
        ("ann", "bank", "money", "2026-05-01T10:00:00"),
        ("bob", "maps", "travel", "2026-05-01T09:30:00"),
        ("cai", "mail", "work", "2026-05-01T07:00:00"),
        ("dan", "bank", "money", "2026-05-01T11:00:00"),
        ("dan", "maps", "travel", "2026-05-01T12:00:00"),
        ("eve", "game", "fun", "2026-05-01T06:00:00"),
    ]
)
ITEMS = item_log(
    [
        ("ann", "a", "news", "2026-05-01T09:00:00"),
        ("ann", "b", "news", "2026-05-01T09:30:00"),
        ("ann", "c", "news", "2026-05-01T11:00:00"),
        ("bob", "a", "news", "2026-05-01T09:00:00"),
        ("bob", "b", "news", "2026-05-01T10:00:01"),
        ("flo", "c", "news", "2026-05-01T12:00:00"),
    ]
)


@pytest.fixture
def dataset():
    return dataset_of(
        APPS, ITEMS, users=list(SPLIT), split=SPLIT, activity={"ann": 1, "bob": 0}, attributes={"colour": {"cai": "red", "dan": "blue"}}
    )


def apps_of(dataset):
    macro = dataset.histories.macro
    names = dataset.vocabularies.macro_id.decode(macro.ids).tolist()
    return {user: names[macro.offsets[row] : macro.offsets[row + 1]] for row, user in enumerate(dataset.histories.user_ids)}


def test_two_of_a_split_swap_and_one_alone_keeps_the_own(dataset):
    assert apps_of(shuffle_macro(dataset, seed=0)) == {
        "ann": ["maps"],
        "bob": ["mail", "bank"],
        "cai": ["bank", "maps"],
        "dan": ["mail"],
        "eve": ["game"],
        "flo": [],
    }


def test_categories_and_times_move_with_their_apps(dataset):
    macro = shuffle_macro(dataset, seed=0).histories.macro
    assert macro.offsets.tolist() == [0, 1, 3, 5, 6, 7, 7]
    categories = dataset.vocabularies.macro_category.decode(macro.categories).tolist()
    assert categories == ["travel", "work", "money", "money", "travel", "work", "fun"]
    seconds = macro.times - macro.times.min()
    assert (seconds / 3600).tolist() == [3.5, 2, 4, 5, 6, 1, 0]


def test_app_events_before_an_item_event_are_counted_anew(dataset):
    assert dataset.histories.macro_before.tolist() == [1, 1, 2, 0, 1, 0]
    # ann now has maps at 9:30, which is not before her item of 9:30; bob mail at 8:00 and bank at 10:00
    assert shuffle_macro(dataset, seed=0).histories.macro_before.tolist() == [0, 0, 1, 1, 2, 0]


def test_labels_items_splits_and_vocabularies_stay(dataset):
    shuffled = shuffle_macro(dataset, seed=0)
    assert shuffled.histories.micro is dataset.histories.micro
    for name in ("split_B", "activity_B", "activity_time_B", "attributes_BA", "vocabularies", "facts", "held_out_B"):
        assert getattr(shuffled, name) is getattr(dataset, name)
    assert apps_of(dataset)["ann"] == ["mail", "bank"]


def test_among_many_nobody_keeps_their_own_and_nobodys_is_lost_or_crosses_a_split():
    users = [f"u{number}" for number in range(60)]
    apps = [(user, f"app of {user}", "any", "2026-05-01T08:00:00") for user in users]
    split = {user: ("train", "validation", "test")[number % 3] for number, user in enumerate(users)}
    shuffled = apps_of(shuffle_macro(dataset_of(app_log(apps), item_log([]), users=users, split=split), seed=3))
    donors = {user: name.removeprefix("app of ") for user, (name,) in shuffled.items()}
    assert sorted(donors.values()) == sorted(users)
    assert all(user != donor and split[user] == split[donor] for user, donor in donors.items())


def test_the_seed_decides():
    dataset = patterned_dataset()
    first, again, other = (shuffle_macro(dataset, seed).histories.macro.ids for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_a_macro_view_nothing_is_shuffled():
    dataset = dataset_of(app_log([]), ITEMS, users=list(SPLIT), split=SPLIT)
    assert len(shuffle_macro(dataset, seed=0).histories.macro.ids) == 0


def test_a_written_dataset_is_opened_as_it_was(dataset, tmp_path):
    shuffled = shuffle_macro(dataset, seed=0)
    write_dataset(shuffled, tmp_path / "shuffled")
    opened = Dataset.open(tmp_path / "shuffled")
    assert apps_of(opened) == apps_of(shuffled)
    assert opened.histories.macro_before.tolist() == [0, 0, 1, 1, 2, 0]
    assert opened.facts == dataset.facts
    assert (opened.split_B.tolist(), opened.activity_B.tolist()) == ([0, 0, 2, 2, 1, 0], [1, 0, -1, -1, -1, -1])
    assert opened.attributes_BA.tolist() == [[-1], [-1], [1], [0], [-1], [-1]]


def test_a_dataset_of_several_shards_is_written_as_one(dataset, tmp_path):
    sharded = replace(dataset, facts=replace(dataset.facts, num_shards=4))
    write_dataset(sharded, tmp_path / "whole")
    opened = Dataset.open(tmp_path / "whole")
    assert (opened.facts.num_shards, len(opened)) == (1, 6)
