"""Processes that train together take the steps that one would: real processes, joined by a file, over gloo."""

import json
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.errors import ConfigError
from mfn_core.training import journal, tally
from mfn_core.training.journal import Journal
from mfn_core.training.learner import Learner
from mfn_core.training.loop import follow, train
from mfn_core.training.ranks import ALONE, NOBODY, Ranks
from tests.batches import ANNA, BORIS, batch_of
from tests.batches import NOBODY as WITHOUT_EVENTS
from tests.factories import patterned_dataset

# Dropout is drawn by each process for itself: without it two processes compute what one does.
NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2, dropout=0.0)
PAPER = NETWORK.model_copy(update={"preset": "paper"})
# 13 users a step: one process has seven of them, the other six.
TRAINING = TrainingConfig(batch_size=13, device="cpu", precision="float32", gradient_clip=1e9, mutual_information_weight=0.5)


class RecordedLearner(Learner):
    """Keeps the gradients of its first step."""

    gradients: dict[str, torch.Tensor]

    def step(self, batch, num_targets=None):
        losses = super().step(batch, num_targets)
        if not hasattr(self, "gradients"):
            named = self.network.named_parameters()
            self.gradients = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
        return losses


def learn(network: NetworkConfig, ranks: Ranks, folder: Path) -> None:
    """One epoch; the gradients of its first step, its mean losses and the weights after it."""
    learner = RecordedLearner(patterned_dataset(), network, TRAINING, ranks)
    losses = learner.learn(1, Journal(TRAINING, lambda _: None)).losses
    torch.save((learner.gradients, losses, learner.network.state_dict()), folder / f"{ranks.rank}.pt")


def learn_as(rank: int, size: int, network: NetworkConfig, folder: Path) -> None:
    learn(network, Ranks.join(rank, size, folder / "rendezvous", torch.device("cpu")), folder)


def train_as(rank: int, size: int, folder: Path) -> None:
    """Two runs of one epoch: the first process has no time for the one, the second none for the other. The first reports every step."""
    ranks = Ranks.join(rank, size, folder / "rendezvous", torch.device("cpu"))
    tally._WINDOW, journal._SECONDS_BETWEEN_REPORTS = 2, 5.0 * rank
    for late in range(2):
        minutes = 1e-6 if rank == late else 600.0
        training = TRAINING.model_copy(update={"max_epochs": 1, "head_epochs": 1, "max_minutes": minutes})
        run = patterned_dataset(), NETWORK, training, folder / f"{late}-late-{rank}"
        if rank == 0:
            train(*run, lambda _: None, ranks=ranks)
        else:
            follow(*run, ranks)


def together(target, *arguments) -> None:
    """Have two processes do it, and end well."""
    context = get_context("spawn")
    processes = [context.Process(target=target, args=(rank, 2, *arguments), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.fixture(scope="module", params=[NETWORK, PAPER], ids=["default", "paper"])
def learned(request, tmp_path_factory):
    """What one process learns, and what each of two does."""
    alone, shared = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    together(learn_as, request.param, shared)
    learn(request.param, ALONE, alone)
    return torch.load(alone / "0.pt"), *(torch.load(shared / f"{rank}.pt") for rank in range(2))


def test_the_gradients_are_those_of_one_process(learned):
    (one, _, _), *others = learned
    for together, _, _ in others:
        assert together.keys() == one.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(together[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_the_losses_of_an_epoch_are_those_of_one_process(learned):
    (_, one, _), *others = learned
    for _, together, _ in others:
        assert together == pytest.approx(one, rel=1e-4)


def test_all_processes_end_in_the_same_weights_bit_for_bit(learned):
    _, (_, _, first), (_, _, second) = learned
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_clock_of_the_first_process_cuts_the_epoch_of_both(tmp_path):
    together(train_as, tmp_path)
    results = [json.loads((tmp_path / f"{late}-late-0" / "result.json").read_text()) for late in range(2)]
    assert [(result["stopped"], result["history"][0]["step"]) for result in results] == [("max_minutes", 2), ("max_epochs", 4)]


def test_a_batch_is_dealt_out_in_turn_and_filled_up_to_equal_parts():
    positions = np.array([7, 3, 5, 1, 2])
    assert Ranks(0, 2).own(positions).tolist() == [7, 5, 2]
    assert Ranks(1, 2).own(positions).tolist() == [3, 1, NOBODY]
    assert ALONE.own(positions).tolist() == [7, 3, 5, 1, 2]


def test_a_process_beyond_a_small_batch_has_nobody():
    assert [Ranks(rank, 3).own(np.array([4])).tolist() for rank in range(3)] == [[4], [NOBODY], [NOBODY]]


def test_who_fills_up_a_batch_has_neither_events_nor_labels():
    filled = batch_of(ANNA, BORIS).only(torch.tensor([True, False]))
    wanted = batch_of(ANNA, WITHOUT_EVENTS)
    for name in ("macro_ids_BL", "macro_lengths_B", "micro_categories_BL", "micro_lengths_B", "targets_BL", "asof_BL", "attributes_BA"):
        assert getattr(filled, name).tolist() == getattr(wanted, name).tolist(), name
    assert filled.activity_B.isnan().tolist() == [False, True]


def test_a_process_takes_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ConfigError, match=r"2 training processes, but torch sees 1 GPU\(s\) here, and each takes one; start as many as there are"
    ):
        Ranks.join(0, 2, tmp_path / "rendezvous", torch.device("cuda"))
