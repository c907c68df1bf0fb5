"""Steps of the product's training loop, timed, or counted in floating-point operations."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from mfn_core.config import TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.sampled import EVERYTHING, Sampling
from mfn_core.schema import FIRST_KNOWN, UNKNOWN
from mfn_core.training.determinism import deterministic
from mfn_core.training.feed import Rows
from mfn_core.training.journal import Journal
from mfn_core.training.learner import Learner

WARM_UP_STEPS = 4


class StepsDoneError(Exception):
    """All steps are taken."""


class SteppedLearner(Learner):
    """The learner of the product, which stops after some steps; the first of them are warm-up and not in ``timed``."""

    timed: list[Rows]  # the users of each step, as positions in the rows
    taken = 0
    _warm_up, _limit = 0, 0
    _at_start: Callable[[], None] = staticmethod(lambda: None)

    @property
    def users(self) -> int:
        """Of the steps after the warm-up."""
        return sum(len(positions) for positions in self.timed)

    def take(self, steps: int, at_start: Callable[[], None], warm_up: int = WARM_UP_STEPS) -> None:
        """Take ``steps`` after the warm-up, before which ``at_start`` is called."""
        self.timed, self.taken, self._warm_up, self._limit, self._at_start = [], 0, warm_up, warm_up + steps, at_start
        journal = Journal(TrainingConfig(), lambda _: None)
        with deterministic(self.device), suppress(StepsDoneError):
            for epoch in count(1):
                self.learn(epoch, journal)

    def steps(self, order: Iterable[Rows]) -> Iterator[Tensor]:
        """Those of the product, counted."""
        listed = list(order)
        for positions, losses in zip(listed, super().steps(listed), strict=True):
            self.taken += 1
            if self.taken > self._warm_up:
                self.timed.append(positions)
            yield losses
            if self.taken == self._warm_up:
                self._at_start()
            if self.taken == self._limit:
                raise StepsDoneError


def seconds_per_user(
    learner: SteppedLearner, steps: int, warm_up: int = WARM_UP_STEPS, at_start: Callable[[], None] = lambda: None
) -> float:
    """Of training, batches included; ``at_start`` is called after the warm-up."""
    began = 0.0

    def start() -> None:
        nonlocal began
        at_start()
        _finish(learner.device)
        began = time.perf_counter()

    learner.take(steps, start, warm_up)
    _finish(learner.device)
    return (time.perf_counter() - began) / learner.users


def operations_per_user(learner: SteppedLearner) -> float:
    """Floating-point operations that the steps that were timed need, see ``operations_of``; in the default network."""
    assert isinstance(learner.network, MacroMicroFusionNetwork), "the step of the paper preset is not counted"
    network, sampling = learner.network, learner.sampling
    return sum(operations_of(network, learner.collate(positions), sampling) for positions in learner.timed) / learner.users


def operations_of(network: MacroMicroFusionNetwork, batch: Batch, sampling: Sampling = EVERYTHING) -> int:
    """Operations of the matrix products that a step needs, however it is computed: once forward and twice backward.

    A product and its sum are two. Padding, what causality hides and what is computed a second time are not in it.
    """
    forward = _operations_of_view(network.macro, batch.macro_lengths_B) + _operations_of_view(network.micro, batch.micro_lengths_B)
    forward += 2 * network.next_item.macro.weight.numel() * int(batch.micro_lengths_B.sum())
    catalogues = ((network.micro, sampling.items, batch.targets_BL), (network.macro, sampling.apps, batch.macro_ids_BL[:, 1:]))
    for view, sampler, targets_BL in catalogues:
        table = view.embedding.ids
        num_scored = table.num_embeddings - FIRST_KNOWN if sampler is None else sampler.num_negatives + 1
        forward += 2 * table.embedding_dim * num_scored * int((targets_BL > UNKNOWN).sum())
    return 3 * forward


def _operations_of_view(encoder: ViewEncoder, lengths_B: Tensor) -> int:
    weights = sum(module.weight.numel() for module in encoder.modules() if isinstance(module, nn.Linear))
    width, seen = encoder.embedding.ids.embedding_dim, int((lengths_B * (lengths_B + 1)).sum()) // 2
    return 2 * weights * int(lengths_B.sum()) + 4 * width * len(encoder.layers) * seen


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
