"""How near a training step comes to what the machine can do: the product's loop, its operations counted.

    python -m benchmarks.step                   # this CPU: benchmarks/results/step.json
    python -m benchmarks.step --device cuda     # a GPU (gpu.py): first that its step equals the CPU's, then benchmarks/results/gpu.json

On the CPU full cross-entropy over all items at every position. The roofline is what a matrix product of 4096 x 4096 reaches on this
machine in the same type. Needs torch, numpy, pandas, pyarrow and pydantic alone; without a GPU the second says so and records nothing as
measured.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu
from benchmarks.record import in_process, write
from benchmarks.rounds import of_step, typical
from benchmarks.stepping import SteppedLearner, operations_per_user, peak_operations_per_s, seconds_per_user
from benchmarks.synthetic import Size, write_dataset
from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset

_GPU_BATCHES = (256, 1024, 4096, 8192)
_LIBRARIES = ("torch", "numpy", "pyarrow")


def main() -> None:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="mfn-step-") as scratch:
        size = Size(users=options.users, events=options.events, items=options.items)
        folder = write_dataset(Path(scratch) / "dataset", size)
        measure = on_gpu if options.device == "cuda" else on_cpu
        measure(folder, options)


def on_cpu(folder: Path, options: argparse.Namespace) -> None:
    """Fractions of both rooflines."""
    rounds: list[dict[str, float]] = []
    for number in range(options.rounds):
        rounds.append({})
        for precision, name in (("float32", "fp32"), ("bfloat16", "bf16")):
            measured = in_process(measure_step, str(folder), "cpu", precision, options.batch_size, options.steps, options.threads).value
            rounds[-1] |= {f"{key}_{name}": value for key, value in measured.items()}
        print(f"round {number + 1} of {options.rounds}: {rounds[-1]}", flush=True)
    notes = _notes(options, f"{options.batch_size} users a step, {options.threads} threads")
    write("step", typical(of_step(rounds)), rounds, _LIBRARIES, notes)


def on_gpu(folder: Path, options: argparse.Namespace) -> None:
    """Users a second by every way to take a step; nothing, where there is no GPU."""
    about = gpu.described(options)

    def keep(figures: dict[str, float | None], rounds: dict[str, Any], notes: Sequence[str], *, is_last: bool = True) -> None:
        write("gpu", figures, rounds, _LIBRARIES, [*about, *notes], is_told=is_last)

    if torch.cuda.is_available():
        gpu.measure(folder, "cuda", options.budget, _GPU_BATCHES, keep)
    else:
        keep(dict.fromkeys(gpu.FIGURES), {}, [])


def measure_step(folder: str, device: Any, precision: Any, batch_size: int, steps: int, threads: int | None) -> dict[str, float]:
    """Users a second, operations a user, and their share of the roofline, in one precision."""
    from mfn_core.training import worker

    worker._keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    dataset = Dataset.open(Path(folder))
    config = TrainingConfig(device=device, precision=precision, batch_size=batch_size)
    learner = SteppedLearner(dataset, NetworkConfig(), config)
    seconds = seconds_per_user(learner, steps)
    operations = operations_per_user(learner)
    peak = peak_operations_per_s(device, getattr(torch, precision))
    return {
        "users_per_s": 1 / seconds,
        "gflop_per_user": operations / 1e9,
        "peak_tflops": peak / 1e12,
        "fraction": operations / seconds / peak,
    }


def _notes(options: argparse.Namespace, more: str) -> list[str]:
    return [
        f"{options.users} simulated users, {options.events} events in either view in the mean, {options.items} items; the default network, "
        f"{options.steps} steps a round; {more}",
        "operations are those of the matrix products that the step needs, once forward and twice backward, by their number, not by a "
        "counter: padding, what causality hides and what is computed a second time (the scores of the items) are not in them; "
        "before 2026-11-25 they were counted in the step itself with all of these in them",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--users", type=int, default=32_768)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=256, help="on the CPU")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=420.0, help="seconds on the GPU; ways that no time is left for are noted")
    return parser


if __name__ == "__main__":
    main()
