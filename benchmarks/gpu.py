"""A training step on a GPU: that it equals the CPU's, then users a second by every way that it can be taken.

Called by ``python -m benchmarks.step --device cuda``. Every way runs in a process of its own and within the time that is left; one that
fails is a note in the record, and the others go on.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import TimeoutError as LateError
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.stepping import SteppedLearner, operations_per_user, peak_operations_per_s, seconds_per_user
from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.dataset import Dataset
from mfn_core.model import losses, masked
from mfn_core.training import graphs
from mfn_core.training.learner import Learner
from mfn_core.training.lessons import train_labels
from mfn_core.training.resident import ResidentHistories, Rows

FIGURES = ("gpu_users_per_s_sampled_b256", "gpu_users_per_s_full_50k", "gpu_fraction_fused_roofline_b4096")
_TOLERANCE = 1e-3  # relative, of the loss and of the gradient in float32
_WARM_UP_EPOCHS = 12  # until a graph of nearly every shape is recorded
_MOST_WARM_UP, _LEAST_STEPS = 1500, 24
_OPERATIONS_STEPS = 4
_NEGATIVES = 1024
_LONGEST = 120.0  # seconds a way may take
_COUNTS = NetworkConfig(transition_window=1, num_successors=1)  # the tables of counts take part in no step, and long to count


def measure(
    folder: Path, device: str, budget: float, batch_sizes: Sequence[int]
) -> tuple[dict[str, float | None], dict[str, Any], list[str]]:
    """Figures, raw rounds and notes.

    Args:
        folder: of a dataset.
        device: cuda; cpu for a test of this benchmark.
        budget: seconds in all.
        batch_sizes: users a step.
    """
    began = time.monotonic()
    rounds, notes = taken({"equality": partial(hold_against_cpu, folder, device)}, budget)
    if not rounds:
        return dict.fromkeys(FIGURES), rounds, [*notes, "the step is not the CPU's, so nothing was measured"]
    more, failed = taken(ways(str(folder), device, batch_sizes), budget - (time.monotonic() - began))
    rounds |= more
    figures: dict[str, float | None] = {
        "gpu_users_per_s_sampled_b256": _figure(rounds, "sampled_b256_graph", "users_per_s"),
        "gpu_users_per_s_full_50k": _figure(rounds, "full_b256_graph", "users_per_s"),
        "gpu_fraction_fused_roofline_b4096": _figure(rounds, "full_b4096_graph", "fraction"),
    }
    notes += [*failed, f"measured within {time.monotonic() - began:.0f} s"]
    return figures, rounds, notes


def ways(folder: str, device: str, batch_sizes: Sequence[int]) -> dict[str, Callable[[], Any]]:
    """What is measured, the most wanted first."""
    steps = {
        f"{loss}_b{size}_{mode}": partial(measure_step, folder, device, size, _NEGATIVES if loss == "sampled" else None, mode == "graph")
        for mode in ("graph", "eager")
        for size in batch_sizes
        for loss in ("full", "sampled")
    }
    wanted = [name for name in ("full_b256_graph", "sampled_b256_graph", "full_b4096_graph") if name in steps]
    ordered = [*wanted, "losses", *(name for name in steps if name not in wanted)]
    return {name: steps.get(name, partial(measure_losses, device)) for name in ordered}


def taken(each: Mapping[str, Callable[[], Any]], budget: float) -> tuple[dict[str, Any], list[str]]:
    """Results by name, and a note for every way that failed or came too late; each in a process that is ended when its time is up."""
    rounds: dict[str, Any] = {}
    notes: list[str] = []
    ends = time.monotonic() + budget
    for name, way in each.items():
        left = min(ends - time.monotonic(), _LONGEST)
        if left <= 0:
            notes.append(f"{name}: not measured, the {budget:.0f} s were over")
            continue
        try:
            with get_context("spawn").Pool(1) as pool:
                rounds[name] = pool.apply_async(way).get(left)
            print(f"{name}: {rounds[name]}", flush=True)
        except LateError:
            notes.append(f"{name}: not measured, not done after {left:.0f} s")
        except Exception as error:  # a way that fails is a result, named in the record: the others go on
            notes.append(f"{name}: failed with {type(error).__name__}: {error}"[:400])
    print(*notes, sep="\n", flush=True)
    return rounds, notes


def measure_step(folder: str, device: Any, batch_size: int, num_negatives: int | None, is_recorded: bool) -> dict[str, float]:
    """Users a second, operations a user, and their share of what matrix products reach here, in bfloat16."""
    dataset = Dataset.open(Path(folder))
    config = TrainingConfig(device=device, precision="bfloat16", batch_size=batch_size, num_negatives=num_negatives)
    learner = SteppedLearner(dataset, _COUNTS, config)
    steps_per_epoch = -(-len(dataset) // batch_size)
    if not is_recorded:
        graphs._STEPS_BEFORE_RECORDING = 10**9
    operations = operations_per_user(learner, _OPERATIONS_STEPS)
    warm_up = min(_WARM_UP_EPOCHS * steps_per_epoch, _MOST_WARM_UP)
    seconds = seconds_per_user(learner, max(2 * steps_per_epoch, _LEAST_STEPS), warm_up if is_recorded else steps_per_epoch)
    peak = peak_operations_per_s(device, torch.bfloat16, size=8192 if device == "cuda" else 512)
    return {
        "users_per_s": 1 / seconds,
        "ms_per_step": 1000 * seconds * batch_size,
        "gflop_per_user": operations / 1e9,
        "peak_tflops": peak / 1e12,
        "fraction": operations / seconds / peak,
        "graphs": learner.resident_steps.num_graphs if learner.resident_steps else 0,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
    }


def hold_against_cpu(folder: Path, device: Any) -> dict[str, float]:
    """Loss and gradient of one batch on the CPU, as it trains there, and on the device, in float32 without dropout.

    Returns:
        Relative errors, of the loss and of the gradient of all parameters as one vector.

    Raises:
        AssertionError: one is more than the tolerance.
    """
    dataset = Dataset.open(folder)
    ours, theirs = _loss_and_gradient(dataset, device, is_resident=True), _loss_and_gradient(dataset, "cpu", is_resident=False)
    errors = {
        "loss": abs(ours[0] - theirs[0]) / abs(theirs[0]),
        "gradient": ((ours[1] - theirs[1]).norm() / theirs[1].norm()).item(),
    }
    assert max(errors.values()) <= _TOLERANCE, f"a step on {device} is not the CPU's: relative errors {errors}, limit {_TOLERANCE}"
    return errors


def _loss_and_gradient(dataset: Dataset, device: Any, *, is_resident: bool) -> tuple[float, Tensor]:
    network_config = _COUNTS.model_copy(update={"dropout": 0.0})
    learner = Learner(dataset, network_config, TrainingConfig(device=device, precision="float32", batch_size=256))
    positions = np.arange(min(256, len(learner.rows)))
    batch, num_targets = learner.collate(positions), None
    if is_resident:
        batch, num_targets = _resident_batch(dataset, network_config, learner.rows[positions], learner.device)
    loss = learner.losses(batch, num_targets).total
    loss.backward()
    gradients = [parameter.grad.flatten().cpu() for parameter in learner.network.parameters() if parameter.grad is not None]
    return loss.item(), torch.cat(gradients)


def _resident_batch(dataset: Dataset, config: NetworkConfig, rows: Rows, device: torch.device) -> tuple[Batch, int]:
    histories = ResidentHistories(dataset, config, *train_labels(dataset), device)
    shape = histories.shape(rows)
    return histories.batch(torch.from_numpy(rows).to(device), shape), shape.num_targets


def measure_losses(device: Any, num_positions: int = 10_240, num_items: int = 50_002, width: int = 128) -> dict[str, float]:
    """Milliseconds of the full cross-entropy alone, forward and backward: ours by the scores held at a time, and torch's own."""
    query_PD, weight_ND = (torch.randn(size, width, device=device, requires_grad=True) for size in (num_positions, num_items))
    bias_N = torch.zeros(num_items, device=device, requires_grad=True)
    target_P = torch.randint(2, num_items, (num_positions,), device=device)
    counted_P = torch.ones(num_positions, dtype=torch.bool, device=device)

    def by_chunks(exponent: int) -> Tensor:
        masked._MAX_SCORES_PER_CHUNK = 2**exponent
        return masked.masked_cross_entropy(query_PD, weight_ND, bias_N, target_P, counted_P)

    rivals: dict[str, Callable[[], Tensor]] = {f"masked_2^{exponent}": partial(by_chunks, exponent) for exponent in (24, 26, 28, 30)}
    rivals["catalogue"] = lambda: losses.catalogue_cross_entropy(query_PD, weight_ND, bias_N, target_P)
    if hasattr(functional, "linear_cross_entropy"):  # torch 2.13
        rivals["torch"] = lambda: functional.linear_cross_entropy(
            query_PD, weight_ND, target_P, linear_bias=bias_N, options=torch.nn.LinearCrossEntropyOptions()
        )
    return {name: _milliseconds(rival, device, [query_PD, weight_ND, bias_N]) for name, rival in rivals.items()}


def _milliseconds(loss_of: Callable[[], Tensor], device: str, leaves: Sequence[Tensor], rounds: int = 7) -> float:
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of()
        torch.autograd.grad(loss, leaves)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[2:])


def _figure(rounds: Mapping[str, Any], way: str, key: str) -> float | None:
    return rounds[way][key] if way in rounds else None


def described(options: Namespace) -> list[str]:
    """What a reader must know of every such record."""
    return [
        torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU here: not measured",
        f"{options.users} simulated users, {options.events} events in either view in the mean, {options.items} items, "
        f"{_NEGATIVES} negatives where sampled; the default network in bfloat16",
        "graph: recorded steps; eager: the same steps, launched kernel by kernel",
        "roofline: the operations of the products that a step needs, no padding, at the rate of a product of 8192 x 8192 in bfloat16",
    ]
