"""The figures of the audit, on two users of which the second is dishonest by choice."""

from dataclasses import replace

import numpy as np
import pytest

from mfn_core.data.dataset import Shard
from mfn_core.data.summary import Summary, summarize
from mfn_core.data.window import Window
from tests.factories import app_log, dataset_of, item_log

T = 1_772_625_600  # 2026-03-04T12:00:00Z
WINDOW = Window(T + 3600, 7, "")
APPS = app_log([("ann", "mail", "work", "2026-03-04T12:00:00"), ("ann", "bank", "money", "2026-03-04T12:00:30")])
ITEMS = item_log([("ann", f"i{minute}", "news", f"2026-03-04T12:0{minute}:10") for minute in range(4)])


@pytest.fixture
def shard() -> Shard:
    """ann has 2 apps and 4 items, of which 2 are held out; bob has nothing."""
    dataset = dataset_of(APPS, ITEMS, users=["ann", "bob"], split={"ann": "train", "bob": "test"})
    return Shard(dataset.histories, dataset.split_B, np.array([1, 0], np.int8), np.array([T + 7200, -1]), dataset.attributes_BA)


def _summary(shard: Shard) -> Summary:
    return summarize([shard], WINDOW)


def test_an_honest_shard_is_counted(shard: Shard) -> None:
    expected = {"users": 2, "train_users": 1, "test_users": 1, "active_users": 1, "empty_users": 1}
    assert _summary(shard) == Summary(**expected, macro_events=2, micro_events=4, held_out_events=2)


def test_a_test_target_that_its_user_had_met_is_counted_once(shard: Shard) -> None:
    ids = np.array([3, 2, 3, 3], np.int32)
    returning = replace(shard, histories=replace(shard.histories, micro=replace(shard.histories.micro, ids=ids)))
    assert _summary(returning).returning_targets == 1
    assert _summary(returning).returning_share == 1  # of ann alone: bob has nothing held out


def test_where_nothing_is_held_out_no_share_returns() -> None:
    assert Summary().returning_share is None


def test_shards_add_up(shard: Shard) -> None:
    assert summarize([shard, shard], WINDOW).micro_events == 8


def test_no_shard_is_nothing() -> None:
    assert summarize([], WINDOW) == Summary()


def test_unknown_is_counted_over_training_events(shard: Shard) -> None:
    ids = np.array([1, 2, 1, 1], np.int32)  # the last two are held out
    unknown = replace(shard, histories=replace(shard.histories, micro=replace(shard.histories.micro, ids=ids)))
    assert _summary(unknown).unknown_share == 1 / 4


def test_padding_inside_a_history_is_counted(shard: Shard) -> None:
    padded = replace(shard, histories=replace(shard.histories, macro=replace(shard.histories.macro, categories=np.array([0, 2], np.int32))))
    assert _summary(padded).null_events == 1


def test_an_event_at_the_cut_is_counted(shard: Shard) -> None:
    late = replace(shard, histories=replace(shard.histories, macro=replace(shard.histories.macro, times=np.array([T, T + 3600]))))
    assert _summary(late).events_after_cut == 1


def test_an_app_not_before_its_target_is_a_leak(shard: Shard) -> None:
    counts = np.array([2, 2, 2, 2], np.int32)  # bank opened at :30, the first item came at :10
    assert _summary(replace(shard, histories=replace(shard.histories, macro_before=counts))).leaks == 1


@pytest.mark.parametrize("time", [T + 3599, T + 3600 + 7 * 86_400])
def test_a_label_outside_the_horizon_is_a_leak(shard: Shard, time: int) -> None:
    assert _summary(replace(shard, activity_time_B=np.array([time, -1]))).leaks == 1
