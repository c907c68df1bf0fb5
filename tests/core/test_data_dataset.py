"""A dataset on disk and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mfn_core.data.dataset import Dataset, DatasetFacts, Shard, shard_path, write_facts, write_shard
from mfn_core.data.histories import Histories
from mfn_core.errors import ArtifactError, ConfigError
from tests.factories import app_log, dataset_of, item_log, store_dataset

APPS = app_log([("ann", "mail", "work", "2026-03-04T12:00:00"), ("cai", "bank", "money", "2026-03-04T11:00:00")])
ITEMS = item_log(
    [("ann", f"i{hour}", "news", f"2026-03-04T1{hour}:00:00") for hour in range(3)] + [("bob", "i1", "film", "2026-03-04T12:00:00")]
)


@pytest.fixture
def dataset() -> Dataset:
    return dataset_of(
        APPS,
        ITEMS,
        users=["ann", "bob", "cai"],
        split={"ann": "train", "bob": "test", "cai": "validation"},
        activity={"ann": 1, "bob": 0},
        attributes={"colour": {"ann": "red", "cai": "blue"}},
    )


def _same_histories(left: Histories, right: Histories) -> bool:
    views = [(left.macro, right.macro), (left.micro, right.micro)]
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for one, other in views
        for name in ("offsets", "ids", "categories", "times")
    ) and np.array_equal(left.macro_before, right.macro_before)


def test_what_is_written_is_opened(dataset: Dataset, tmp_path: Path) -> None:
    opened = Dataset.open(store_dataset(dataset, tmp_path / "d"))
    assert _same_histories(opened.histories, dataset.histories)
    assert opened.histories.user_ids.tolist() == ["ann", "bob", "cai"]
    assert opened.facts == dataset.facts
    assert opened.split_B.tolist() == [0, 2, 1]
    assert opened.activity_B.tolist() == [1, 0, -1]
    assert opened.attributes_BA.tolist() == [[1], [-1], [0]]
    assert opened.held_out_B.tolist() == [2, 0, 0]
    assert opened.vocabularies.macro_id.tokens.to_pylist() == ["bank", "mail"]


def test_events_of_one_shard_are_read_in_place(dataset: Dataset, tmp_path: Path) -> None:
    opened = Dataset.open(store_dataset(dataset, tmp_path / "d"))
    assert not opened.histories.micro.times.flags.owndata
    assert not opened.histories.micro.times.flags.writeable


def test_more_events_than_a_file_can_count_are_refused_with_the_setting_that_spreads_them(dataset: Dataset, tmp_path: Path) -> None:
    histories = dataset.histories
    micro = replace(histories.micro, offsets=np.array([0, 0, 0, 2**31]))
    shard = Shard(replace(histories, micro=micro), dataset.split_B, dataset.activity_B, np.full(3, -1, np.int64), dataset.attributes_BA)
    with pytest.raises(ConfigError, match=r"one shard has 2,147,483,648 events of a view, at most 2,147,483,647 .*; raise num_shards"):
        write_shard(tmp_path / "shard.parquet", shard, ("colour",))


def test_shards_are_one_dataset_in_their_order(dataset: Dataset, tmp_path: Path) -> None:
    other = dataset_of(APPS, ITEMS, users=["cai", "ann"], activity={"ann": 1}, attributes={"colour": {"ann": "red", "cai": "blue"}})
    empty = dataset_of(APPS.slice(0, 0), ITEMS.slice(0, 0), users=[], attributes={"colour": {}})
    for number, part in enumerate((dataset, empty, other)):
        shard = Shard(part.histories, part.split_B, part.activity_B, part.activity_time_B, part.attributes_BA)
        write_shard(shard_path(tmp_path, number), shard, ("colour",))
    facts = DatasetFacts(dataset.cut, 7, {"colour": ("blue", "red")}, ("activity",), {}, 3)
    write_facts(tmp_path, facts, dataset.vocabularies)
    opened = Dataset.open(tmp_path)
    assert opened.histories.user_ids.tolist() == ["ann", "bob", "cai", "cai", "ann"]
    assert opened.histories.macro.offsets.tolist() == [0, 1, 1, 2, 3, 4]
    assert opened.histories.micro.offsets.tolist() == [0, 3, 4, 4, 4, 7]
    assert opened.activity_B.tolist() == [1, 0, -1, -1, 1]


def test_rows_of_a_split(dataset: Dataset) -> None:
    assert [dataset.rows_of(split).tolist() for split in ("train", "validation", "test")] == [[0], [2], [1]]


def _returning(num_returning: int) -> Dataset:
    """Five users of three items each, so many of whom had met the validation target, the middle one; all had met the test target."""
    middle = ["first" if user < num_returning else "new" for user in range(5)]
    items = [(f"u{user}", item) for user in range(5) for item in ("first", middle[user], "first")]
    events = [(user, item, "c", f"2026-03-04T12:{minute}:00") for minute, (user, item) in enumerate(items, start=10)]
    return dataset_of(app_log([]), item_log(events), users=[f"u{user}" for user in range(5)])


def test_seen_items_are_left_out_unless_more_than_a_fifth_of_the_validation_targets_return() -> None:
    assert (_returning(1).returning_share, _returning(1).masks_seen("auto")) == (0.2, True)
    assert (_returning(2).returning_share, _returning(2).masks_seen("auto")) == (0.4, False)


def test_seen_items_are_left_out_or_not_as_asked_whatever_returns() -> None:
    assert (_returning(5).masks_seen("on"), _returning(0).masks_seen("off")) == (True, False)


def test_where_nothing_is_held_out_nothing_returns(dataset: Dataset) -> None:
    nobody = replace(dataset, held_out_B=np.zeros(3, np.int8))
    assert (nobody.returning_share, nobody.masks_seen("auto")) == (0, True)


def test_a_missing_shard_is_named(dataset: Dataset, tmp_path: Path) -> None:
    folder = store_dataset(dataset, tmp_path / "d")
    shard_path(folder, 0).unlink()
    with pytest.raises(ArtifactError, match=r"shard-00000\.arrow cannot be read.*build it again"):
        Dataset.open(folder)


def test_a_truncated_shard_is_named(dataset: Dataset, tmp_path: Path) -> None:
    folder = store_dataset(dataset, tmp_path / "d")
    path = shard_path(folder, 0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match=r"shard-00000\.arrow cannot be read"):
        Dataset.open(folder)


@pytest.mark.parametrize("content", ["", "[]", '{"cut": 1}', '{"cut": 1, "surprise": 2, "attribute_classes": {}, "tasks": []}'])
def test_damaged_facts_are_named(dataset: Dataset, tmp_path: Path, content: str) -> None:
    folder = store_dataset(dataset, tmp_path / "d")
    (folder / "dataset.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"dataset\.json cannot be read"):
        Dataset.open(folder)
