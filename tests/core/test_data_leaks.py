"""The leak proof passes honest shards and stops each kind of dishonest one."""

from dataclasses import replace

import numpy as np
import pytest

from mfn_core.data import fitting
from mfn_core.data.dataset import Dataset, Shard
from mfn_core.data.fitting import count_training_events, encode_again, fit_vocabularies
from mfn_core.data.histories import ViewHistories
from mfn_core.data.leaks import LeakProof, check_shard, prove_no_leak
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.data.window import DAY, Window
from mfn_core.errors import LeakError
from tests.factories import app_log, dataset_of, item_log

T = 1_772_625_600  # 2026-03-04T12:00:00Z
CUT = T + 3600
APPS = app_log([("ann", "mail", "work", "2026-03-04T12:00:00"), ("ann", "bank", "money", "2026-03-04T12:00:30")])
ITEMS = item_log(
    [("ann", f"i{minute}", "news", f"2026-03-04T12:0{minute}:10") for minute in range(4)] + [("bob", "i0", "film", "2026-03-04T12:30:00")]
)


@pytest.fixture
def dataset() -> Dataset:
    return dataset_of(APPS, ITEMS, users=["ann", "bob"])


@pytest.fixture
def vocabularies(dataset: Dataset) -> Vocabularies:
    return fitted(dataset)


def fitted(dataset: Dataset) -> Vocabularies:
    return fit_vocabularies(dataset.vocabularies, count_training_events([dataset.histories], dataset.vocabularies), 1)


@pytest.fixture
def shard(dataset: Dataset, vocabularies: Vocabularies) -> Shard:
    """ann is active an hour after the cut, bob is not."""
    return Shard(
        histories=encode_again(dataset.histories, dataset.vocabularies, vocabularies),
        split_B=np.array([0, 0], np.int8),
        activity_B=np.array([1, 0], np.int8),
        activity_time_B=np.array([CUT + 3600, -1]),
        attributes_BA=np.empty((2, 0), np.int32),
    )


def _prove(shard: Shard, vocabularies: Vocabularies, horizon_days: int | None = 7) -> dict[str, LeakProof]:
    return prove_no_leak(check_shard(shard, Window(CUT, horizon_days, ""), vocabularies), vocabularies)


def _changed_macro(shard: Shard, **changes) -> Shard:
    return replace(shard, histories=replace(shard.histories, macro=replace(shard.histories.macro, **changes)))


def test_the_proof_gives_the_closest_call_of_each_task(shard: Shard, vocabularies: Vocabularies) -> None:
    assert _prove(shard, vocabularies) == {
        "activity": LeakProof(T + 1800, CUT + 3600),
        "attribute": LeakProof(T + 1800, None),
        "recommendation": LeakProof(T, T + 10),  # i0 follows mail by ten seconds; i1 follows bank by forty
    }


def test_held_out_items_are_unknown_to_the_vocabulary(vocabularies: Vocabularies) -> None:
    assert vocabularies.micro_id.tokens.to_pylist() == ["i0", "i1"]
    assert vocabularies.micro_id.counts.tolist() == [0, 0, 2, 1]
    assert dict(zip(vocabularies.micro_category.tokens.to_pylist(), vocabularies.micro_category.known_counts(), strict=True)) == {
        "news": 2,
        "film": 1,
    }


def test_coding_again_keeps_everything_but_the_ids(dataset: Dataset, shard: Shard) -> None:
    assert shard.histories.micro.ids.tolist() == [2, 3, 1, 1, 2]
    assert np.array_equal(shard.histories.micro.times, dataset.histories.micro.times)


def test_an_event_at_the_cut_is_a_leak(shard: Shard, vocabularies: Vocabularies) -> None:
    leaky = _changed_macro(shard, times=np.array([T, CUT]))
    with pytest.raises(LeakError, match="user 'ann' has an app event at 2026-03-04T13:00:00"):
        _prove(leaky, vocabularies)


@pytest.mark.parametrize("time", [CUT - 1, CUT + 7 * DAY])
def test_a_label_outside_the_horizon_is_a_leak(shard: Shard, vocabularies: Vocabularies, time: int) -> None:
    with pytest.raises(LeakError, match=r"user 'ann' has activity 1.*labels come from \[2026-03-04T13:00:00"):
        _prove(replace(shard, activity_time_B=np.array([time, -1])), vocabularies)


def test_a_label_without_its_event_is_a_leak(shard: Shard, vocabularies: Vocabularies) -> None:
    with pytest.raises(LeakError, match="user 'bob' has activity 1"):
        _prove(replace(shard, activity_B=np.array([1, 1], np.int8)), vocabularies)


def test_a_label_without_a_horizon_is_a_leak(shard: Shard, vocabularies: Vocabularies) -> None:
    with pytest.raises(LeakError, match="user 'ann' has activity 1"):
        _prove(shard, vocabularies, horizon_days=None)


def test_an_app_at_the_targets_second_among_the_inputs_is_a_leak(shard: Shard, vocabularies: Vocabularies) -> None:
    leaky = _changed_macro(shard, times=np.array([T + 10, T + 30]))
    with pytest.raises(LeakError, match=r"the app event at 2026-03-04T12:00:10.*wrong side of the target at 2026-03-04T12:00:10"):
        _prove(leaky, vocabularies)


def test_an_asof_count_that_misses_an_app_is_found(shard: Shard, vocabularies: Vocabularies) -> None:
    blind = replace(shard, histories=replace(shard.histories, macro_before=np.array([1, 2, 1, 2, 0], np.int32)))
    with pytest.raises(LeakError, match="the app event at 2026-03-04T12:00:30"):
        _prove(blind, vocabularies)


def test_a_history_out_of_order_is_a_leak(shard: Shard, vocabularies: Vocabularies) -> None:
    with pytest.raises(LeakError, match="'ann' has an app event at 2026-03-04T12:00:30"):
        _prove(_changed_macro(shard, times=np.array([T + 30, T])), vocabularies)


def test_a_vocabulary_that_counts_held_out_events_is_a_leak(dataset: Dataset, shard: Shard) -> None:
    known = replace(shard, histories=dataset.histories)
    with pytest.raises(LeakError, match="the micro_id vocabulary counts 1 events of 'i2', but it has 0 training events"):
        _prove(known, dataset.vocabularies)


def test_training_events_are_counted_over_all_shards(shard: Shard, vocabularies: Vocabularies) -> None:
    checked = check_shard(shard, Window(CUT, 7, ""), vocabularies)
    with pytest.raises(LeakError, match="the macro_id vocabulary counts 1 events of 'bank', but it has 2 training events"):
        prove_no_leak(checked + checked, vocabularies)


@pytest.mark.parametrize(
    ("held_out", "complaint"),
    [
        (0, "the micro_id vocabulary counts 1 events of 'i2', but it has 0"),
        (1, "the micro_id vocabulary counts 1 events of 'i2', but it has 0"),
        (3, "the micro_category vocabulary counts 1 events of 'news', but it has 2"),
    ],
)
def test_a_fault_in_what_is_held_out_is_found(
    dataset: Dataset, shard: Shard, monkeypatch: pytest.MonkeyPatch, held_out: int, complaint: str
) -> None:
    monkeypatch.setattr(fitting, "held_out_events", lambda lengths: np.where(lengths > 3, held_out, 0).astype(np.int8))
    faulty = fitted(dataset)
    with pytest.raises(LeakError, match=complaint):
        _prove(replace(shard, histories=encode_again(dataset.histories, dataset.vocabularies, faulty)), faulty)


def test_a_fault_in_who_is_a_training_event_is_found(dataset: Dataset, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ViewHistories, "is_training", lambda view, held_out_B: np.ones(len(view.ids), np.bool_))
    faulty = fitted(dataset)
    with pytest.raises(LeakError, match="the micro_id vocabulary counts 1 events of 'i2', but it has 0"):
        _prove(replace(shard, histories=encode_again(dataset.histories, dataset.vocabularies, faulty)), faulty)
