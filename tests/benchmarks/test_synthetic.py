"""The simulated datasets of the benchmarks, and the steps that are measured on them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import stepping
from benchmarks.stepping import WARM_UP_STEPS, SteppedLearner, operations_of, operations_per_user, seconds_per_user
from benchmarks.synthetic import Size, write_dataset
from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from tests.batches import ANNA, NOBODY, batch_of, tiny_network

SMALL = NetworkConfig(width=16, num_layers=1, num_heads=2, num_alignment_filters=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("synthetic") / "dataset", Size(users=300, events=6, items=50, categories=4))


def learner_of(folder: Path, **network) -> SteppedLearner:
    training = TrainingConfig(device="cpu", batch_size=32, precision="float32")
    return SteppedLearner(Dataset.open(folder), SMALL.model_copy(update=network), training)


def test_a_dataset_has_the_size_that_was_asked_for(folder: Path):
    dataset = Dataset.open(folder)
    micro = dataset.histories.micro
    assert len(dataset) == 300
    assert (micro.lengths.min(), micro.lengths.max()) == (3, 9)
    assert len(dataset.vocabularies.micro_id.tokens) == 50
    assert (micro.ids.min(), micro.categories.max()) == (2, 5)


def test_events_are_in_the_order_of_time_and_before_the_cut(folder: Path):
    dataset = Dataset.open(folder)
    micro = dataset.histories.micro
    gaps = np.delete(np.diff(micro.times), micro.offsets[1:-1] - 1)
    assert (gaps >= 0).all()
    assert micro.times.max() < dataset.cut


def test_the_same_seed_draws_the_same_dataset(folder: Path, tmp_path: Path):
    again = Dataset.open(write_dataset(tmp_path / "again", Size(users=300, events=6, items=50, categories=4)))
    assert np.array_equal(again.histories.micro.times, Dataset.open(folder).histories.micro.times)


def test_users_of_the_warm_up_are_not_counted(folder: Path):
    learner = learner_of(folder)
    at_start = []
    learner.take(2, lambda: at_start.append(learner.users))
    assert at_start == [0]
    assert learner.taken == WARM_UP_STEPS + 2
    assert 32 < learner.users <= 64


def test_operations_grow_with_the_width_of_the_products(folder: Path):
    narrow, wide = learner_of(folder), learner_of(folder, width=32)
    for learner in (narrow, wide):
        learner.take(1, lambda: None)
    assert 0 < operations_per_user(narrow) < operations_per_user(wide)


def test_operations_are_counted_of_the_batches_that_are_timed(folder: Path):
    learner = learner_of(folder)
    learner.take(2, lambda: None, warm_up=3)
    timed = [learner.collate(positions) for positions in learner.timed]
    assert len(timed) == 2
    counted = sum(operations_of(learner.network, batch) for batch in timed)
    assert operations_per_user(learner) == counted / learner.users


def test_operations_are_those_of_the_events_the_targets_and_the_events_that_are_seen():
    """Width 8, two layers, eight items and eight apps; Anna has 3 apps and 4 items, 2 and 3 of which are targets."""
    network = tiny_network()
    hidden = network.macro.layers[0].feed_forward[0].out_features
    layers = 2 * (2 * (4 * 8 * 8 + 2 * 8 * hidden) * (3 + 4) + 4 * 8 * ((1 + 2 + 3) + (1 + 2 + 3 + 4)))
    joined = 2 * 8 * 8 * 4
    scores = 2 * 8 * 8 * (2 + 3)
    assert operations_of(network, batch_of(ANNA, NOBODY)) == 3 * (layers + joined + scores)


def test_the_seconds_of_the_steps_are_shared_by_their_users(folder: Path, monkeypatch: pytest.MonkeyPatch):
    learner, clock = learner_of(folder), iter([10.0, 16.0])
    monkeypatch.setattr(stepping, "time", SimpleNamespace(perf_counter=clock.__next__))
    assert seconds_per_user(learner, 1) == 6.0 / learner.users
