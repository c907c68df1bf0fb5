"""The benchmark of a GPU's step, on a CPU: what it compares, what it measures, what it does with a way that fails."""

import json
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, record, step
from benchmarks.stepping import SteppedLearner
from benchmarks.synthetic import Size, write_dataset
from mfn_core.training.learner import Learner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("gpu") / "dataset", Size(users=300, events=6, items=50, categories=4))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Path:
    reference = folder.parent / "cpu.pt"
    gpu.keep_cpu_step(folder, reference)
    return reference


def test_a_step_on_resident_histories_equals_one_on_a_collated_batch(folder: Path, reference: Path):
    assert max(gpu.hold_against_cpu(folder, "cpu", "float32", reference).values()) < 1e-5
    assert 1e-5 < gpu.hold_against_cpu(folder, "cpu", "bfloat16", reference)["gradient"] < 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("change", [100.0, float("nan")])
def test_a_step_of_other_weights_is_found(folder: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, change: float, precision: str):
    def changed(*arguments) -> Learner:
        learner = Learner(*arguments)
        with torch.no_grad():
            learner.network.items.bias[2:5] += change
        return learner

    monkeypatch.setattr(gpu, "Learner", changed)
    with pytest.raises(AssertionError, match=f"a step on cpu in {precision} is not the CPU's"):
        gpu.hold_against_cpu(folder, "cpu", precision, reference)


def test_a_gradient_that_is_no_number_is_found_beside_a_loss_that_is_one(folder: Path, reference: Path, monkeypatch: pytest.MonkeyPatch):
    loss, gradient = torch.load(reference)
    monkeypatch.setattr(gpu, "_loss_and_gradient", lambda *_, **__: (loss, gradient * float("nan")))
    with pytest.raises(AssertionError, match="is not the CPU's"):
        gpu.hold_against_cpu(folder, "cpu", "float32", reference)


def test_a_way_that_fails_dies_or_takes_too_long_is_a_note_and_the_others_go_on():
    each = {
        "broken": partial(int, "x"),
        "dead": partial(os._exit, 3),
        "killed": partial(signal.raise_signal, signal.SIGKILL),
        "late": partial(time.sleep, 60),
        "good": partial(sum, [1, 2]),
    }
    rounds, notes, told = {}, [], []
    began = time.monotonic()
    gpu.take(each, 100, rounds, notes, lambda: told.append((len(rounds), len(notes))), longest=15)
    assert time.monotonic() - began < 60, "the ends of processes are not waited for"
    assert rounds == {"good": 3}
    assert notes == [
        "broken: not measured, it failed with ValueError: invalid literal for int() with base 10: 'x'",
        "dead: not measured, its process ended with exit code 3",
        "killed: not measured, its process ended with exit code -9",
        "late: not measured, not done after 15 s",
    ]
    assert told == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 4)]


def test_when_the_time_is_up_the_rest_is_named():
    rounds, notes = {}, []
    gpu.take({"good": partial(sum, [1, 2])}, 0, rounds, notes)
    assert (rounds, notes) == ({}, ["good: not measured, the 0 s were over"])


def measured_where(monkeypatch: pytest.MonkeyPatch, **failures: Exception) -> list:
    """What is kept, after every way, of a measurement in which ways of these names fail."""
    kept = []
    monkeypatch.setattr(gpu, "ways", lambda *arguments: {name: partial(str, name) for name in ("full_b256_graph", "losses")})

    def in_process(way, seconds):
        name = "cpu_step" if way.func is gpu.keep_cpu_step else f"equality_{way.args[2]}" if way.func is gpu.hold_against_cpu else ""
        if name in failures:
            raise failures[name]
        return {"users_per_s": 7.0}

    def keep(figures, rounds, notes, *, is_last):
        kept.append((figures["gpu_users_per_s_full_50k"], [*rounds], notes, is_last))

    monkeypatch.setattr(gpu, "_in_process", in_process)
    gpu.measure(Path("folder"), "cpu", 100, (256,), keep)
    return kept


PROOF = ["cpu_step", "equality_float32", "equality_bfloat16"]


def test_what_is_known_is_kept_after_every_way(monkeypatch: pytest.MonkeyPatch):
    kept = measured_where(monkeypatch)
    everything = [*PROOF, "full_b256_graph", "losses"]
    assert [rounds for _, rounds, _, _ in kept] == [*(everything[:length] for length in range(6)), everything]
    assert [figure for figure, *_ in kept] == [None] * 4 + [7.0] * 3
    assert [is_last for *_, is_last in kept] == [False] * 6 + [True]


def test_without_the_proof_in_float32_nothing_is_measured(monkeypatch: pytest.MonkeyPatch):
    figure, rounds, notes, _ = measured_where(monkeypatch, equality_float32=gpu.DiedError("its process ended with exit code -11"))[-1]
    assert (figure, rounds) == (None, ["cpu_step", "equality_bfloat16"])
    assert notes[:2] == [
        "equality_float32: not measured, its process ended with exit code -11",
        "the step was not shown to be the CPU's, so nothing was measured",
    ]


@pytest.mark.parametrize(
    ("failed", "proven"),
    [("equality_bfloat16", ["cpu_step", "equality_float32"]), ("cpu_step", [])],
    ids=["bfloat16 is too far from the CPU", "the CPU is too slow"],
)
def test_where_the_rest_of_the_proof_lacks_all_is_measured_and_no_figure(monkeypatch: pytest.MonkeyPatch, failed: str, proven: list[str]):
    figure, rounds, notes, _ = measured_where(monkeypatch, **{failed: TimeoutError("not done after 33 s")})[-1]
    assert (figure, rounds) == (None, [*proven, "full_b256_graph", "losses"])
    assert notes[:2] == [
        f"{failed}: not measured, not done after 33 s",
        "the timed steps, which are in bfloat16, were not shown to be the CPU's: their rounds are kept, and are no figures",
    ]


def test_a_torch_that_the_project_does_not_ask_for_is_named(monkeypatch: pytest.MonkeyPatch):
    assert gpu._version_notes() == []
    monkeypatch.setattr(torch, "__version__", "2.8.0+cu128")
    assert gpu._version_notes() == ["torch 2.8.0+cu128 here, where the project asks for 2.13"]


def test_the_wanted_figures_come_first_then_the_losses_alone():
    assert list(gpu.ways("folder", "cuda", (256, 4096)))[:5] == [
        "full_b256_graph", "sampled_b256_graph", "full_b4096_graph", "losses", "sampled_b4096_graph",
    ]  # fmt: skip


@pytest.mark.parametrize("num_negatives", [None, 10])
def test_a_step_is_measured(folder: Path, num_negatives: int | None):
    measured = gpu.measure_step(str(folder), "cpu", 64, num_negatives, is_recorded=False)
    assert measured["users_per_s"] > 0
    assert measured["gflop_per_user"] > 0
    assert measured["peak_tflops"] > 0
    # May pass 1 here: the roofline is that of bfloat16, which a CPU without its instructions computes more slowly than float32.
    reached_tflops = measured["gflop_per_user"] * measured["users_per_s"] / 1000
    assert measured["fraction"] == pytest.approx(reached_tflops / measured["peak_tflops"])
    assert (measured["graphs"], measured["share_of_steps_replayed"]) == (0, 0.0)
    assert (measured["peak_gib"], measured["peak_reserved_gib"]) == (0.0, 0.0)


def test_steps_that_were_to_be_recorded_and_were_not_are_no_figure(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def on_cpu(*arguments) -> SteppedLearner:
        logging.getLogger("mfn_core.training.graphs").warning("steps are not recorded: %s", "no capture here")
        return SteppedLearner(arguments[0], arguments[1], arguments[2].model_copy(update={"device": "cpu"}))

    monkeypatch.setattr(gpu, "SteppedLearner", on_cpu)
    monkeypatch.setattr(gpu, "_WARM_UP_EPOCHS", 1)
    with pytest.raises(RuntimeError, match="no step was recorded as a CUDA graph: steps are not recorded: no capture here"):
        gpu.measure_step(str(folder), "cuda", 64, None, is_recorded=True)


def test_one_loss_that_fails_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu.losses, "catalogue_cross_entropy", fail)
    measured = gpu.measure_losses("cpu", num_positions=8, num_items=20, width=4)
    assert measured["catalogue"] == "failed with RuntimeError: out of memory"
    assert measured["masked_2^24"] > 0


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
