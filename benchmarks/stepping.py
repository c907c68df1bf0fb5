"""Steps of the product's training loop, timed, or counted in floating-point operations."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.training import loop
from mfn_core.training.feed import Rows

WARM_UP_STEPS = 4


class StepsDoneError(Exception):
    """All steps are taken."""


class SteppedRun(loop._Run):
    """A run of the product that stops after some steps; the first of them are warm-up and not in ``users``."""

    users = 0
    _taken, _warm_up, _limit = 0, 0, 0
    _at_start: Callable[[], None] = staticmethod(lambda: None)

    def take(self, steps: int, at_start: Callable[[], None], warm_up: int = WARM_UP_STEPS) -> None:
        """Take ``steps`` after the warm-up, before which ``at_start`` is called."""
        self.users, self._taken, self._warm_up, self._limit, self._at_start = 0, 0, warm_up, warm_up + steps, at_start
        with loop._deterministic(self.device):
            for epoch in range(1, 1_000_000):
                try:
                    self._learn(epoch, time.monotonic())
                except StepsDoneError:
                    return

    def _steps(self, order: Iterator[Rows]) -> Iterator[Tensor]:
        listed = list(order)
        for positions, losses in zip(listed, super()._steps(iter(listed)), strict=True):
            self._taken += 1
            self.users += len(positions) if self._taken > self._warm_up else 0
            yield losses
            if self._taken == self._warm_up:
                self._at_start()
            if self._taken == self._limit:
                raise StepsDoneError


def seconds_per_user(run: SteppedRun, steps: int, warm_up: int = WARM_UP_STEPS) -> float:
    """Of training, batches included."""
    began = 0.0

    def start() -> None:
        nonlocal began
        _finish(run.device)
        began = time.perf_counter()

    run.take(steps, start, warm_up)
    _finish(run.device)
    return (time.perf_counter() - began) / run.users


def operations_per_user(run: SteppedRun, steps: int) -> float:
    """Floating-point operations of all matrix products, forward and backward; a fused product and sum counts two."""
    counter = FlopCounterMode(display=False)
    run.take(steps, counter.__enter__)
    counter.__exit__(None, None, None)
    return counter.get_total_flops() / run.users


def stepped_run(dataset: Dataset, network: NetworkConfig, training: TrainingConfig) -> SteppedRun:
    """A run that writes nothing: it never comes to the end of an epoch."""
    return SteppedRun(dataset, network, training, Path(tempfile.gettempdir()), lambda _: None)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_operations_per_s(device: str, dtype: torch.dtype, size: int = 4096, rounds: int = 5) -> float:
    """What a large matrix product reaches here: the best of some rounds."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(rounds + 1):  # the first is warm-up: it never is the best
        _finish(torch.device(device))
        began = time.perf_counter()
        product: Any = left @ right
        _finish(torch.device(device))
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
        del product
    return best
