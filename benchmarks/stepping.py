"""Steps of the product's training loop, timed, or counted in floating-point operations."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.dataset import Dataset
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.losses import Losses
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.schema import UNKNOWN
from mfn_core.training import loop

WARM_UP_STEPS = 4


class StepsDoneError(Exception):
    """All steps are taken."""


class SteppedRun(loop._Run):
    """A run of the product that stops after some steps; the first of them are warm-up and not in ``users``."""

    users = 0
    _step, _limit = 0, 0
    _at_start: Callable[[], None] = staticmethod(lambda: None)
    _at_step: Callable[[Batch], None] = staticmethod(lambda _: None)

    def take(self, steps: int, at_start: Callable[[], None] = lambda: None, at_step: Callable[[Batch], None] = lambda _: None) -> None:
        """Take ``steps`` after the warm-up, before which ``at_start`` is called; each of their batches is shown to ``at_step``."""
        self.users, self._step, self._limit = 0, 0, WARM_UP_STEPS + steps
        self._at_start, self._at_step = at_start, at_step
        with loop._deterministic(self.device):
            for epoch in range(1, 1_000_000):
                try:
                    self._learn(epoch, time.monotonic())
                except StepsDoneError:
                    return

    def _losses(self, batch: Batch) -> Losses:
        if self._step == self._limit:
            raise StepsDoneError
        if self._step == WARM_UP_STEPS:
            self._at_start()
        if self._step >= WARM_UP_STEPS:
            self.users += len(batch.rows_B)
            self._at_step(batch)
        self._step += 1
        return super()._losses(batch)


def seconds_per_user(run: SteppedRun, steps: int) -> float:
    """Of training, batches included."""
    began = 0.0

    def start() -> None:
        nonlocal began
        _finish(run.device)
        began = time.perf_counter()

    run.take(steps, start)
    _finish(run.device)
    return (time.perf_counter() - began) / run.users


def operations_per_user(run: SteppedRun, steps: int) -> float:
    """Floating-point operations that the default network's step needs, see ``operations_of``."""
    network, total = run._network, 0
    assert isinstance(network, MacroMicroFusionNetwork), "the step of the paper preset is not counted"

    def count(batch: Batch) -> None:
        nonlocal total
        total += operations_of(network, batch)

    run.take(steps, at_step=count)
    return total / run.users


def operations_of(network: MacroMicroFusionNetwork, batch: Batch) -> int:
    """Operations of the matrix products that a step needs, however it is computed: full cross-entropy, once forward and twice backward.

    A product and its sum are two. Padding, what causality hides and what is computed a second time are not in it.
    """
    forward = _operations_of_view(network.macro, batch.macro_lengths_B) + _operations_of_view(network.micro, batch.micro_lengths_B)
    forward += 2 * network.next_item.macro.weight.numel() * int(batch.micro_lengths_B.sum())
    for catalogue, targets_BL in ((network.items, batch.targets_BL), (network.apps, batch.macro_ids_BL[:, 1:])):
        forward += 2 * catalogue.weight[UNKNOWN + 1 :].numel() * int((targets_BL > UNKNOWN).sum())
    return 3 * forward


def _operations_of_view(encoder: ViewEncoder, lengths_B: Tensor) -> int:
    weights = sum(module.weight.numel() for module in encoder.modules() if isinstance(module, nn.Linear))
    width, seen = encoder.embedding.ids.embedding_dim, int((lengths_B * (lengths_B + 1)).sum()) // 2
    return 2 * weights * int(lengths_B.sum()) + 4 * width * len(encoder.layers) * seen


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
