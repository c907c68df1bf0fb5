"""Steps of the product's training loop, timed, or counted in floating-point operations."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.batching import batches
from mfn_core.data.dataset import Dataset
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.sampled import EVERYTHING, Sampling
from mfn_core.schema import UNKNOWN
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
    """Floating-point operations that the default network's step needs, see ``operations_of``; the mean over the first steps."""
    assert isinstance(run._network, MacroMicroFusionNetwork), "the step of the paper preset is not counted"
    order = batches(run._lengths, run._batch_size, seed=run._config.seed, epoch=1, shuffle=True)
    taken = [run._collate(positions) for positions in islice(order, steps)]
    return sum(operations_of(run._network, batch, run._sampling) for batch in taken) / sum(len(batch.rows_B) for batch in taken)


def operations_of(network: MacroMicroFusionNetwork, batch: Batch, sampling: Sampling = EVERYTHING) -> int:
    """Operations of the matrix products that a step needs, however it is computed: once forward and twice backward.

    A product and its sum are two. Padding, what causality hides and what is computed a second time are not in it.
    """
    forward = _operations_of_view(network.macro, batch.macro_lengths_B) + _operations_of_view(network.micro, batch.micro_lengths_B)
    forward += 2 * network.next_item.macro.weight.numel() * int(batch.micro_lengths_B.sum())
    catalogues = ((network.micro, sampling.items, batch.targets_BL), (network.macro, sampling.apps, batch.macro_ids_BL[:, 1:]))
    for view, sampler, targets_BL in catalogues:
        table = view.embedding.ids
        num_scored = table.num_embeddings - (UNKNOWN + 1) if sampler is None else sampler.num_negatives + 1
        forward += 2 * table.embedding_dim * num_scored * int((targets_BL > UNKNOWN).sum())
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
