"""The benchmark of a GPU's step, on a CPU: what it compares, what it measures, what it does with a way that fails."""

import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, record, step
from benchmarks.synthetic import Size, write_dataset
from mfn_core.training.learner import Learner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("gpu") / "dataset", Size(users=300, events=6, items=50, categories=4))


def test_a_step_on_resident_histories_equals_one_on_a_collated_batch(folder: Path):
    errors = gpu.hold_against_cpu(folder, "cpu")
    assert max(errors.values()) < 1e-5


def test_a_step_of_other_weights_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch):
    made = []

    def changed(*arguments) -> Learner:
        made.append(Learner(*arguments))
        if len(made) == 2:
            with torch.no_grad():
                made[1].network.items.bias[2:5] += 1
        return made[-1]

    monkeypatch.setattr(gpu, "Learner", changed)
    with pytest.raises(AssertionError, match="a step on cpu is not the CPU's"):
        gpu.hold_against_cpu(folder, "cpu")


def test_a_way_that_fails_or_takes_too_long_is_a_note_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "_LONGEST", 10.0)
    each = {"broken": partial(int, "x"), "late": partial(time.sleep, 60), "good": partial(sum, [1, 2])}
    rounds, notes = gpu.taken(each, budget=100)
    assert rounds == {"good": 3}
    assert notes == [
        "broken: failed with ValueError: invalid literal for int() with base 10: 'x'",
        "late: not measured, not done after 10 s",
    ]


def test_when_the_time_is_up_the_rest_is_named():
    assert gpu.taken({"good": partial(sum, [1, 2])}, budget=0) == ({}, ["good: not measured, the 0 s were over"])


def test_the_wanted_figures_come_first_then_the_losses_alone():
    assert list(gpu.ways("folder", "cuda", (256, 4096)))[:5] == [
        "full_b256_graph", "sampled_b256_graph", "full_b4096_graph", "losses", "sampled_b4096_graph",
    ]  # fmt: skip


@pytest.mark.parametrize("num_negatives", [None, 10])
def test_a_step_is_measured(folder: Path, num_negatives: int | None):
    measured = gpu.measure_step(str(folder), "cpu", 64, num_negatives, is_recorded=False)
    assert measured["users_per_s"] > 0
    assert 0 < measured["fraction"] < 1


def test_every_loss_is_timed():
    assert {"masked_2^24", "catalogue"} <= gpu.measure_losses("cpu", num_positions=8, num_items=20, width=4).keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_nothing_is_recorded_as_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["step.py", "--device", "cuda", "--users", "20", "--events", "6", "--items", "50"])
    step.main()
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["figures"] == dict.fromkeys(gpu.FIGURES)
    assert content["notes"][0] == "no GPU here: not measured"
