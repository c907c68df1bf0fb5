"""A training step on a GPU: that it equals the CPU's, then users a second by every way that it can be taken.

Called by ``python -m benchmarks.step --device cuda``. Every way runs in a process of its own and within the time that is left; one that
fails is a note in the record, and the others go on. What is known is kept after every way: whoever stops the benchmark loses one.
"""

import logging
import os
import re
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

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

Precision = Literal["float32", "bfloat16"]
FIGURES = ("gpu_users_per_s_sampled_b256", "gpu_users_per_s_full_50k", "gpu_fraction_fused_roofline_b4096")
# Relative, of the loss and of the gradient. Bfloat16, which is what is timed, goes its own ways through the layers and the losses.
_TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 0.2}
_WARM_UP_EPOCHS = 12  # until a graph of nearly every shape is recorded
_MOST_WARM_UP, _LEAST_STEPS = 1500, 24
_NEGATIVES = 1024
_LONGEST = 120.0  # seconds a way may take
_GONE_AFTER = 10.0  # seconds that a process which was killed is waited for
_PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
_COUNTS = NetworkConfig(transition_window=1, num_successors=1)  # the tables of counts take part in no step, and long to count


class Keep(Protocol):
    """Takes figures, raw rounds and notes, those of all ways so far."""

    def __call__(self, figures: dict[str, float | None], rounds: dict[str, Any], notes: Sequence[str], *, is_last: bool) -> None: ...


class DiedError(Exception):
    """A process ended without an answer."""


def measure(folder: Path, device: str, budget: float, batch_sizes: Sequence[int], keep: Keep) -> None:
    """Every way in turn.

    Args:
        folder: of a dataset.
        device: cuda; cpu for a test of this benchmark.
        budget: seconds in all.
        batch_sizes: users a step.
        keep: is told after every way.
    """
    began = time.monotonic()
    rounds: dict[str, Any] = {}
    notes = _version_notes()

    def tell(*, is_last: bool = False) -> None:
        is_shown = all(f"equality_{precision}" in rounds for precision in _TOLERANCES)
        figures = {
            "gpu_users_per_s_sampled_b256": _figure(rounds, "sampled_b256_graph", "users_per_s"),
            "gpu_users_per_s_full_50k": _figure(rounds, "full_b256_graph", "users_per_s"),
            "gpu_fraction_fused_roofline_b4096": _figure(rounds, "full_b4096_graph", "fraction"),
        }
        told = [*notes, f"measured within {time.monotonic() - began:.0f} s"]
        keep(figures if is_shown else dict.fromkeys(figures), rounds, told, is_last=is_last)

    tell()
    _prove(folder, device, budget, rounds, notes, tell)
    if "cpu_step" in rounds and "equality_float32" not in rounds:
        notes.append("the step was not shown to be the CPU's, so nothing was measured")
    else:
        if "equality_bfloat16" not in rounds:
            notes.append(
                "the timed steps, which are in bfloat16, were not shown to be the CPU's: their rounds are kept, and are no figures"
            )
        take(ways(str(folder), device, batch_sizes), budget - (time.monotonic() - began), rounds, notes, tell)
    tell(is_last=True)


def _prove(folder: Path, device: str, budget: float, rounds: dict[str, Any], notes: list[str], tell: Callable[[], None]) -> None:
    """Whether a step on the device is the CPU's, in two thirds of the budget at most, and two minutes a precision."""
    with TemporaryDirectory(prefix="mfn-cpu-step-") as scratch:
        reference = Path(scratch) / "step.pt"
        take({"cpu_step": partial(keep_cpu_step, folder, reference)}, budget, rounds, notes, tell, longest=budget / 3)
        if "cpu_step" in rounds:
            held = {f"equality_{precision}": partial(hold_against_cpu, folder, device, precision, reference) for precision in _TOLERANCES}
            take(held, budget / 3, rounds, notes, tell)


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


def take(
    each: Mapping[str, Callable[[], Any]],
    budget: float,
    rounds: dict[str, Any],
    notes: list[str],
    tell: Callable[[], None] = lambda: None,
    longest: float | None = None,
) -> None:
    """Results by name into ``rounds``, and into ``notes`` every way that failed, died or came too late.

    Args:
        each: ways by name, each taken in a process that is ended when its time is up.
        budget: seconds for all.
        rounds: results.
        notes: what went wrong.
        tell: is called after every way.
        longest: seconds a way may take; None: two minutes.
    """
    ends = time.monotonic() + budget
    for name, way in each.items():
        left = min(ends - time.monotonic(), _LONGEST if longest is None else longest)
        if left <= 0:
            notes.append(f"{name}: not measured, the {budget:.0f} s were over")
            continue
        try:
            rounds[name] = _in_process(way, left)
            print(f"{name}: {rounds[name]}", flush=True)
        except (TimeoutError, DiedError) as error:
            notes.append(f"{name}: not measured, {error}"[:400])
            print(notes[-1], flush=True)
        tell()


def _in_process(way: Callable[[], Any], seconds: float) -> Any:
    """What the way answers.

    A pool would do but for one thing: it does not hear that its process died, and waits for the answer until the time is up.

    Raises:
        DiedError: it failed, or its process ended.
        TimeoutError: it is not done; its process is ended.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(way, theirs), daemon=True)
    process.start()
    theirs.close()  # or the end of the process would not be the end of the pipe
    try:
        if not ours.poll(seconds):
            raise TimeoutError(f"not done after {seconds:.0f} s")
        is_answered, answer = ours.recv()
    except EOFError:
        process.join(_GONE_AFTER)
        raise DiedError(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join(_GONE_AFTER)
        ours.close()
    if not is_answered:
        raise DiedError(answer)
    return answer


def _answer(way: Callable[[], Any], answers: Connection) -> None:
    try:
        answer = True, way()
    except Exception as error:  # a way that fails is a result, named in the record: the others go on
        answer = False, f"it failed with {type(error).__name__}: {error}"
    answers.send(answer)


def measure_step(folder: str, device: Any, batch_size: int, num_negatives: int | None, is_recorded: bool) -> dict[str, float]:
    """Users a second, operations a user, and their share of what matrix products reach here, in bfloat16.

    Raises:
        RuntimeError: steps are to be recorded, and none is on a GPU.
    """
    dataset = Dataset.open(Path(folder))
    config = TrainingConfig(device=device, precision="bfloat16", batch_size=batch_size, num_negatives=num_negatives)
    with _warnings() as told:
        learner = SteppedLearner(dataset, _COUNTS, config)
    steps_per_epoch = -(-len(dataset) // batch_size)
    if not is_recorded:
        graphs._STEPS_BEFORE_RECORDING = 10**9
    warm_up = min(_WARM_UP_EPOCHS * steps_per_epoch, _MOST_WARM_UP) if is_recorded else steps_per_epoch
    before: list[tuple[int, int]] = []
    with _warnings() as more:
        seconds = seconds_per_user(learner, max(2 * steps_per_epoch, _LEAST_STEPS), warm_up, lambda: before.append(_recorded(learner)))
    num_graphs, num_replays = _recorded(learner)
    if is_recorded and device == "cuda" and num_graphs == 0:
        raise RuntimeError(f"no step was recorded as a CUDA graph: {'; '.join(told + more) or 'no warning says why'}")
    operations = operations_per_user(learner)
    peak = peak_operations_per_s(device, torch.bfloat16, size=8192 if device == "cuda" else 512)
    return {
        "users_per_s": 1 / seconds,
        "ms_per_step": 1000 * seconds * batch_size,
        "gflop_per_user": operations / 1e9,
        "peak_tflops": peak / 1e12,
        "fraction": operations / seconds / peak,
        "graphs": num_graphs,
        "graphs_recorded_while_timed": num_graphs - before[0][0],
        "share_of_steps_replayed": (num_replays - before[0][1]) / len(learner.timed),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
        "peak_reserved_gib": torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else 0.0,  # what graphs hold is in it
    }


@contextmanager
def _warnings() -> Generator[list[str]]:
    """What training warns of inside."""
    told: list[str] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger("mfn_core.training")
    handler.emit = lambda record: told.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


def _recorded(learner: Learner) -> tuple[int, int]:
    """Graphs and replays so far."""
    steps = learner.resident_steps
    return (steps.num_graphs, steps.num_replays) if steps else (0, 0)


def keep_cpu_step(folder: Path, reference: Path) -> dict[str, float]:
    """Loss and gradient of one batch on the CPU, as it trains there in float32 but without dropout, into a file."""
    began = time.monotonic()
    loss_and_gradient = _loss_and_gradient(Dataset.open(folder), "cpu", "float32", is_resident=False)
    torch.save(loss_and_gradient, reference)
    return {"loss": loss_and_gradient[0], "seconds": time.monotonic() - began}


def hold_against_cpu(folder: Path, device: Any, precision: Precision, reference: Path) -> dict[str, float]:
    """The same batch on the device.

    Returns:
        Relative errors, of the loss and of the gradient of all parameters as one vector.

    Raises:
        AssertionError: one is more than the tolerance, or no number.
    """
    _true_float32(device)
    loss, gradient = torch.load(reference)
    ours = _loss_and_gradient(Dataset.open(folder), device, precision, is_resident=True)
    errors = {"loss": abs(ours[0] - loss) / abs(loss), "gradient": ((ours[1] - gradient).norm() / gradient.norm()).item()}
    is_near = all(error <= _TOLERANCES[precision] for error in errors.values())
    assert is_near, f"a step on {device} in {precision} is not the CPU's: relative errors {errors}, limit {_TOLERANCES[precision]}"
    return errors


def _true_float32(device: str) -> None:
    """No TensorFloat-32: NVIDIA's containers allow it by TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, and it is as rough as the tolerance."""
    if device == "cuda":
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # read by the libraries when they start
        torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def _loss_and_gradient(dataset: Dataset, device: Any, precision: Any, *, is_resident: bool) -> tuple[float, Tensor]:
    network_config = _COUNTS.model_copy(update={"dropout": 0.0})
    learner = Learner(dataset, network_config, TrainingConfig(device=device, precision=precision, batch_size=256))
    positions = np.arange(min(256, len(learner.rows)))
    batch, num_targets = learner.collate(positions), None
    if is_resident:
        batch, num_targets = _resident_batch(dataset, network_config, learner.rows[positions], learner.device)
    with learner.autocast():
        loss = learner.losses(batch, num_targets).total
    loss.backward()
    gradients = [parameter.grad.flatten().cpu() for parameter in learner.network.parameters() if parameter.grad is not None]
    return loss.item(), torch.cat(gradients)


def _resident_batch(dataset: Dataset, config: NetworkConfig, rows: Rows, device: torch.device) -> tuple[Batch, int]:
    histories = ResidentHistories(dataset, config, *train_labels(dataset), device)
    shape = histories.shape(rows)
    return histories.batch(torch.from_numpy(rows).to(device), shape), shape.num_targets


def measure_losses(device: Any, num_positions: int = 10_240, num_items: int = 50_002, width: int = 128) -> dict[str, float | str]:
    """Milliseconds of the full cross-entropy alone, forward and backward: ours by the scores held at a time, and torch's own.

    Or why there is no figure.
    """
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


def _milliseconds(loss_of: Callable[[], Tensor], device: str, leaves: Sequence[Tensor], rounds: int = 7) -> float | str:
    times: list[float] = []
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = loss_of()
            torch.autograd.grad(loss, leaves)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - began))
    except Exception as error:  # the others go on
        return f"failed with {type(error).__name__}: {error}"[:400]
    return statistics.median(times[2:])


def _figure(rounds: Mapping[str, Any], way: str, key: str) -> float | None:
    return rounds[way][key] if way in rounds else None


def described(options: Namespace) -> list[str]:
    """What a reader must know of every such record."""
    return [
        _device() if torch.cuda.is_available() else "no GPU here: not measured",
        f"{options.users} simulated users, {options.events} events in either view in the mean, {options.items} items, "
        f"{_NEGATIVES} negatives where sampled; the default network in bfloat16",
        "graph: recorded steps, but for the share that the rounds tell; eager: the same steps, launched kernel by kernel",
        "roofline: the operations of the products that the timed steps need, without padding, at the rate of a product of 8192 x 8192 in "
        "bfloat16",
    ]


def _device() -> str:
    try:
        name = torch.cuda.get_device_name()
    except RuntimeError as error:  # the ways will say so too, each for itself
        name = f"a GPU that does not answer ({error})"
    return f"{name}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def _version_notes() -> list[str]:
    """Any torch is measured, but one that the project does not ask for is named: what it lacks shows in the ways."""
    asked = re.search(r"torch>=(\d+\.\d+)", _PYPROJECT.read_text(encoding="utf-8"))
    assert asked, f"{_PYPROJECT} asks for no torch"
    here = ".".join(torch.__version__.split(".")[:2])
    return [] if here == asked[1] else [f"torch {torch.__version__} here, where the project asks for {asked[1]}"]
