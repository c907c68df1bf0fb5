"""When steps are recorded, and what happens where they cannot be; the recording itself needs a GPU."""

import contextlib
import logging
import weakref

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.model.builder import build_network
from mfn_core.model.losses import joint_loss, sequence_loss
from mfn_core.training import graphs
from mfn_core.training.determinism import deterministic
from mfn_core.training.graphs import GraphedStep, ResidentSteps
from mfn_core.training.journal import Journal
from mfn_core.training.learner import Learner
from mfn_core.training.resident import ResidentHistories, Shape
from mfn_core.training.sampling import sampling_of
from tests.factories import app_log, dataset_of, item_log, patterned_dataset

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
    assert (take.num_graphs, take.num_replays) == (1, 2)
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


class Full(Told):
    """A GPU with room for no step beside a recorded one; for none at all where ``is_hopeless``."""

    def __init__(self, is_hopeless=False):
        super().__init__()
        self.is_hopeless, self.graphs, self.activations = is_hopeless, weakref.WeakSet(), weakref.WeakSet()

    def step(self, shape, rows_B):
        activations = torch.zeros(2)
        self.activations.add(activations)
        if self.graphs or self.is_hopeless:
            self.calls.append(("no room", shape))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        assert len(self.activations) == 1, "the failed step keeps its memory"
        return super().step(shape, rows_B)

    def record(self, step, rows_B):
        replay = super().record(step, rows_B)
        self.graphs.add(replay)
        return replay


def test_a_step_that_finds_no_room_beside_recorded_ones_is_taken_once_more_without_them(monkeypatch, caplog):
    full = Full()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: full.calls.append(("empty", len(full.graphs))))
    take = GraphedStep(full.step, full.record)
    with caplog.at_level(logging.WARNING):
        for shape in (SHORT, SHORT, SHORT, LONG, SHORT, LONG, LONG, LONG):
            assert take(shape, ROWS) is ROWS
    assert full.calls == [
        ("step", SHORT), ("step", SHORT), ("record", [3, 4]), ("replay", [3, 4]), ("no room", LONG), ("empty", 0), ("step", LONG),
        ("step", SHORT), ("step", LONG), ("step", LONG), ("step", LONG),
    ]  # fmt: skip
    assert take.num_graphs == 0
    (message,) = [record.getMessage() for record in caplog.records]
    assert "beside 1 recorded steps" in message
    assert "micro_length=16" in message
    assert "Tried to allocate 2.00 GiB" in message


def test_a_step_without_room_where_nothing_is_recorded_is_an_error():
    full = Full(is_hopeless=True)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        GraphedStep(full.step, full.record)(SHORT, ROWS)
    assert full.calls == [("no room", SHORT)]


def test_a_step_that_finds_no_room_the_second_time_either_is_an_error():
    full = Full()
    take = GraphedStep(full.step, full.record)
    for _ in range(3):
        take(SHORT, ROWS)
    full.is_hopeless = True
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        take(LONG, ROWS)
    assert full.calls[-2:] == [("no room", LONG)] * 2


DATASET = patterned_dataset()
NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2, dropout=0.0)
TRAINING = TrainingConfig(batch_size=16, device="cpu", precision="float32", weight_decay=0.01)


def losses_of(learner):
    journal = Journal(TRAINING, lambda progress: None)
    with deterministic(learner.device):
        return [learner.learn(epoch, journal).losses for epoch in (1, 2, 3)]


def learns_the_same_from_resident_histories(network, training=TRAINING, dataset=DATASET):
    collated, resident = (Learner(dataset, network, training) for _ in range(2))
    resident.keep_histories()
    for ours, theirs in zip(losses_of(resident), losses_of(collated), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_on_resident_histories_is_learned_what_is_learned_on_collated_batches(preset):
    learns_the_same_from_resident_histories(NETWORK.model_copy(update={"preset": preset}))


def test_so_it_is_with_sampled_negatives():
    learns_the_same_from_resident_histories(NETWORK, TRAINING.model_copy(update={"num_negatives": 6}))


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("absent", ["macro", "micro"])
def test_so_it_is_on_one_log(preset, absent):
    events = [(user, f"x{position}", "c", f"2026-05-0{position + 1}T00:00:00") for user in "abcdef" for position in range(4)]
    logs = app_log([] if absent == "macro" else events), item_log([] if absent == "micro" else events)
    dataset = dataset_of(*logs, users="abcdef", activity=dict.fromkeys("abc", 0) | dict.fromkeys("def", 1))
    learns_the_same_from_resident_histories(NETWORK.model_copy(update={"preset": preset}), dataset=dataset)


def test_a_step_whose_gradients_find_no_room_has_changed_nothing_and_is_taken_once_more(monkeypatch):
    straight, learner = (Learner(DATASET, NETWORK, TRAINING) for _ in range(2))
    for each in (straight, learner):
        each.keep_histories()
    taken = [losses_N.tolist() for losses_N in straight.resident_steps([straight.rows[:16], straight.rows[16:32]])]
    steps = learner.resident_steps
    take = GraphedStep(steps._take, lambda step, rows_B: lambda rows_B: rows_B)
    take._graphs[LONG] = lambda rows_B: rows_B
    steps._take = take
    backward, calls = torch.Tensor.backward, []

    def no_room_the_second_time(loss):
        backward(loss)
        calls.append(loss)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "backward", no_room_the_second_time)
    assert [losses_N.tolist() for losses_N in steps([learner.rows[:16], learner.rows[16:32]])] == taken
    assert len(calls) == 3
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(learner.network.parameters(), straight.network.parameters(), strict=True))


def test_after_the_optimizer_a_step_asks_for_no_more_memory(monkeypatch):
    learner = Learner(DATASET, NETWORK, TRAINING)
    done, after = [], []
    monkeypatch.setattr(learner.adam, "step", done.append)
    stack = torch.stack

    def stacked(tensors):
        after.extend(done)
        return stack(tensors)

    monkeypatch.setattr(torch, "stack", stacked)
    learner.step(learner.collate(np.arange(4)))
    assert (len(done), after) == (1, [])


class NoAutocast(contextlib.nullcontext):
    """The meta device has none."""

    def __init__(self, *arguments, **settings):
        super().__init__()


@pytest.mark.parametrize("num_negatives", [None, 6], ids=["full", "sampled"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_step_off_the_cpu_reads_no_value_back_and_no_shape_depends_on_one(monkeypatch, preset, num_negatives):
    monkeypatch.setattr(torch, "autocast", NoAutocast)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    meta = torch.device("meta")  # where there are no values: whatever asks for one fails
    config = NETWORK.model_copy(update={"preset": preset, "dropout": 0.2})
    network = build_network(config, DATASET.vocabularies, DATASET.attribute_classes).to(meta)
    sampling, _ = sampling_of(network, DATASET, TRAINING.model_copy(update={"num_negatives": num_negatives}), meta)
    histories = ResidentHistories(DATASET, config, DATASET.activity_B, DATASET.attributes_BA, meta)
    rows = np.arange(16)
    shape = histories.shape(rows)
    batch = histories.batch(torch.from_numpy(rows).to(meta), shape)
    loss_of = sequence_loss if preset == "default" else joint_loss
    loss_of(network, batch, TRAINING, sampling, shape.num_targets).total.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)


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


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def on_gpu(network=NETWORK, **update):
    return Learner(DATASET, network, TRAINING.model_copy(update={"device": "cuda", **update}))


@needs_gpu
def test_recorded_steps_learn_what_steps_without_a_graph_learn(monkeypatch):
    recorded = on_gpu()
    first = losses_of(recorded)
    assert recorded.resident_steps.num_graphs > 0
    monkeypatch.setattr(graphs, "_STEPS_BEFORE_RECORDING", 1_000_000)
    for ours, theirs in zip(first, losses_of(on_gpu()), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@needs_gpu
def test_recorded_steps_draw_other_negatives_and_dropout_every_time():
    learner = on_gpu(NETWORK.model_copy(update={"dropout": 0.2}), num_negatives=6)
    learner.adam.step = lambda loss: loss.backward()  # the weights stay
    rows = [learner.rows[:16]] * 8
    assert len({losses.cpu()[0].item() for losses in learner.resident_steps(rows)}) == 8


@needs_gpu
def test_a_gpu_learns_what_a_cpu_learns():
    for ours, theirs in zip(losses_of(on_gpu()), losses_of(Learner(DATASET, NETWORK, TRAINING)), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@needs_gpu
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_step_on_a_gpu_never_waits_for_it(preset):
    learner = on_gpu(NETWORK.model_copy(update={"preset": preset}))
    rows = learner.rows[:16]
    steps = learner.resident_steps([rows, rows])
    next(steps)  # the optimizer makes its state
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
