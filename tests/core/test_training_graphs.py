"""When steps are recorded, and what happens where they cannot be; the recording itself needs a GPU."""

import logging

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.training import graphs, loop
from mfn_core.training.graphs import GraphedStep, ResidentSteps
from mfn_core.training.resident import ResidentHistories, Shape
from tests.factories import patterned_dataset

SHORT, LONG = Shape(2, 8, 8, 16), Shape(2, 8, 16, 32)
ROWS = torch.tensor([3, 4])
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def record_early(monkeypatch):
    monkeypatch.setattr(graphs, "_STEPS_BEFORE_RECORDING", 2)


class Told:
    """Who was asked for what, in order."""

    def __init__(self):
        self.calls = []

    def step(self, shape, rows_B):
        self.calls.append(("step", shape))
        return rows_B

    def record(self, step, rows_B):
        self.calls.append(("record", rows_B.tolist()))

        def replay(rows_B):
            self.calls.append(("replay", rows_B.tolist()))
            return rows_B

        return replay


def test_a_shape_is_recorded_after_some_steps_and_replayed_from_then_on():
    told = Told()
    take = GraphedStep(told.step, told.record)
    for shape in (SHORT, SHORT, LONG, SHORT, SHORT, LONG):
        take(shape, ROWS)
    assert told.calls == [
        ("step", SHORT), ("step", SHORT), ("step", LONG), ("record", [3, 4]), ("replay", [3, 4]), ("replay", [3, 4]), ("step", LONG),
    ]  # fmt: skip


def test_where_recording_fails_one_warning_says_why_and_every_step_is_taken(caplog):
    told = Told()

    def record(step, rows_B):
        raise RuntimeError("operation not permitted when stream is capturing")

    take = GraphedStep(told.step, record)
    with caplog.at_level(logging.WARNING):
        for shape in (SHORT, SHORT, SHORT, LONG, LONG, LONG):
            take(shape, ROWS)
    assert told.calls == [("step", SHORT)] * 3 + [("step", LONG)] * 3
    (message,) = [record.getMessage() for record in caplog.records]
    assert "RuntimeError at Shape(num_users=2" in message
    assert "operation not permitted when stream is capturing" in message


DATASET = patterned_dataset()
NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2, dropout=0.0)
TRAINING = TrainingConfig(batch_size=16, device="cpu", precision="float32", weight_decay=0.01)


def run_of(folder, network, training):
    return loop._Run(DATASET, network, training, folder, lambda progress: None)


def losses_of(run):
    with loop._deterministic(run.device):
        return [run._learn(epoch, 0.0) for epoch in (1, 2, 3)]


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_run_on_resident_histories_learns_what_the_same_run_on_collated_batches_learns(tmp_path, preset):
    network = NETWORK.model_copy(update={"preset": preset})
    collated, resident = (run_of(tmp_path / name, network, TRAINING) for name in ("collated", "resident"))
    histories = ResidentHistories(DATASET, network, resident._activity_B, resident._attributes_BA, CPU)
    resident._resident_steps = ResidentSteps(histories, resident._step, CPU)
    for ours, theirs in zip(losses_of(resident), losses_of(collated), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


def test_so_does_a_run_with_sampled_negatives(tmp_path):
    training = TRAINING.model_copy(update={"num_negatives": 6})
    collated, resident = (run_of(tmp_path / name, NETWORK, training) for name in ("collated", "resident"))
    histories = ResidentHistories(DATASET, NETWORK, resident._activity_B, resident._attributes_BA, CPU)
    resident._resident_steps = ResidentSteps(histories, resident._step, CPU)
    for ours, theirs in zip(losses_of(resident), losses_of(collated), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


def test_every_user_is_learned_from_once_an_epoch():
    class Histories:
        def shape(self, rows):
            return Shape(len(rows), 8, 8, 8)

        def batch(self, rows_B, shape):
            return rows_B.tolist(), shape.num_users

    taken = []
    steps = ResidentSteps(Histories(), lambda batch, num_targets: taken.append((batch, num_targets)) or torch.zeros(6), CPU)
    assert len(list(steps([np.array([4, 2]), np.array([7])]))) == 2
    assert taken == [(([4, 2], 2), 8), (([7], 1), 8)]
