"""How near a training step comes to what the machine can do: the product's loop, its operations counted.

    python -m benchmarks.step                   # this CPU: benchmarks/results/step.json
    python -m benchmarks.step --device cuda     # a GPU: first that its step equals the CPU's, then benchmarks/results/gpu.json

Full cross-entropy over all items at every position. The roofline is what a matrix product of 4096 x 4096 reaches on this machine in the
same type. Needs torch, numpy, pandas, pyarrow and pydantic alone; without a GPU the second says so and records nothing as measured.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import in_process, write
from benchmarks.stepping import operations_per_user, peak_operations_per_s, seconds_per_user, stepped_run
from benchmarks.synthetic import Size, write_dataset
from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.training import loop

_TOLERANCE = 1e-3  # relative, of the losses and of the gradient's norm in float32
_GPU_BATCHES = (256, 4096)
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
    figures: dict[str, float | None] = {}
    for number in range(options.rounds):
        rounds.append({})
        for precision, name in (("float32", "fp32"), ("bfloat16", "bf16")):
            measured = in_process(measure_step, str(folder), "cpu", precision, options.batch_size, options.steps, options.threads).value
            rounds[-1] |= {f"{key}_{name}": value for key, value in measured.items()}
        print(f"round {number + 1} of {options.rounds}: {rounds[-1]}", flush=True)
    for name in ("fp32", "bf16"):
        middle = {key: statistics.median(each[f"{key}_{name}"] for each in rounds) for key in ("fraction", "users_per_s", "peak_tflops")}
        figures |= {f"mfn_step_fraction_{name}_roofline": middle["fraction"], f"mfn_step_users_per_s_{name}": middle["users_per_s"]}
        figures[f"roofline_tflops_{name}"] = middle["peak_tflops"]
    write("step", figures, rounds, _LIBRARIES, _notes(options, f"{options.batch_size} users a step, {options.threads} threads"))


def on_gpu(folder: Path, options: argparse.Namespace) -> None:
    """Users a second at two batch sizes, after the GPU's step was held against the CPU's."""
    figures: dict[str, float | None] = dict.fromkeys(
        ("gpu_users_per_s_sampled_b256", "gpu_users_per_s_full_50k", "gpu_fraction_fused_roofline_b4096")
    )
    rounds: dict[str, Any] = {}
    if torch.cuda.is_available():
        rounds["equality"] = hold_against_cpu(folder, "cuda")
        for batch_size in _GPU_BATCHES:
            rounds[f"b{batch_size}"] = measure_step(str(folder), "cuda", "bfloat16", batch_size, options.steps, None)
        figures["gpu_users_per_s_full_50k"] = rounds["b256"]["users_per_s"]
        figures["gpu_fraction_fused_roofline_b4096"] = rounds["b4096"]["fraction"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU here: not measured"
    write("gpu", figures, rounds, _LIBRARIES, [device, *_notes(options, "the network has no sampled loss: that figure is not measured")])


def measure_step(folder: str, device: Any, precision: Any, batch_size: int, steps: int, threads: int | None) -> dict[str, float]:
    """Users a second, operations a user, and their share of the roofline, in one precision."""
    from mfn_core.training import worker

    worker._keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    dataset = Dataset.open(Path(folder))
    config = TrainingConfig(device=device, precision=precision, batch_size=batch_size)
    seconds = seconds_per_user(stepped_run(dataset, NetworkConfig(), config), steps)
    operations = operations_per_user(stepped_run(dataset, NetworkConfig(), config), steps)
    peak = peak_operations_per_s(device, getattr(torch, precision))
    return {
        "users_per_s": 1 / seconds,
        "gflop_per_user": operations / 1e9,
        "peak_tflops": peak / 1e12,
        "fraction": operations / seconds / peak,
    }


def hold_against_cpu(folder: Path, device: Any) -> dict[str, float]:
    """Losses and gradient norm of the first batch on the CPU and on the device, in float32 without dropout.

    Raises:
        AssertionError: they differ by more than the tolerance.
    """
    found: list[tuple[float, float]] = []
    for place in ("cpu", device):
        dataset = Dataset.open(folder)
        run = stepped_run(dataset, NetworkConfig(dropout=0.0), TrainingConfig(device=place, precision="float32", batch_size=256))
        run._network.eval()  # the readers of labels have a dropout of their own
        batch = run._collate(torch.arange(256).numpy()).to(run.device)
        losses = loop._Run._losses(run, batch)
        losses.total.backward()
        gradients = [parameter.grad.norm() for parameter in run._network.parameters() if parameter.grad is not None]
        found.append((losses.total.item(), torch.stack([each.cpu() for each in gradients]).norm().item()))
    errors = {name: abs(theirs - ours) / abs(ours) for name, ours, theirs in zip(("loss", "gradient"), *found, strict=True)}
    assert max(errors.values()) <= _TOLERANCE, f"a step on {device} is not the CPU's: relative errors {errors}, limit {_TOLERANCE}"
    return errors


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
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=256, help="on the CPU")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
