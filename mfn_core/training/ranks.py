"""Several processes that train one network together, each on a share of every batch.

A step of W processes is the step of one: every process takes the users r, r + W, r + 2W … of the batch, weighs each of its losses by
the part of the step's targets that it holds, and the gradients are summed over all before anything looks at them. So loss, clipping, Adam
and the moving average are those of one process with the whole batch, to rounding; dropout, and negatives where a catalogue is sampled, are
drawn by each for itself. The first process alone validates, decides when to stop, and writes; the others are told.
"""

import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from mfn_core.data.batch import Batch
from mfn_core.errors import ConfigError
from mfn_core.model.losses import Share
from mfn_core.schema import UNKNOWN
from mfn_core.training.progress import Stop

NOBODY = -1
# The others wait for the first while it validates. A process that has died is noticed otherwise: connections break, and its parent sees it.
_LONGEST_WAIT = timedelta(days=7)


class Ranks:
    """This process among those that train together.

    Args:
        rank: of this process, from 0.
        size: W, the number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        assert 0 <= rank < size
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, rank: int, size: int, rendezvous: Path, device: torch.device) -> "Ranks":
        """Meet the others; returns when all are there.

        Args:
            rank: of this process.
            size: number of processes.
            rendezvous: a file on a disk that all of them see, not there before the first comes.
            device: what they train on: a GPU each (this process's becomes the current one), or the CPU.

        Raises:
            ConfigError: there are fewer GPUs than processes.
        """
        is_cuda = device.type == "cuda"
        if is_cuda:
            if (found := torch.cuda.device_count()) < size:
                raise ConfigError(
                    f"{size} training processes, but torch sees {found} GPU(s) here, and each takes one; start as many as there are"
                )
            torch.cuda.set_device(rank)
        else:
            torch.set_num_threads(max(1, torch.get_num_threads() // size))
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # they are on one machine: nobody else may connect
            os.environ.setdefault(variable, "lo" if sys.platform == "linux" else "lo0")
        address = f"file://{rendezvous.resolve()}"
        distributed.init_process_group(
            "nccl" if is_cuda else "gloo", init_method=address, rank=rank, world_size=size, timeout=_LONGEST_WAIT
        )
        return cls(rank, size)

    @property
    def is_alone(self) -> bool:
        """Whether one process trains by itself."""
        return self.size == 1

    def own(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of a batch, of equal size in all of them: ``NOBODY`` fills it up."""
        own = positions[self.rank :: self.size]
        return np.append(own, NOBODY) if len(own) * self.size < len(positions) else own

    def share(self, batch: Batch) -> Share | None:
        """What part of the step's targets the batch holds; None: all of them."""
        if self.is_alone:
            return None
        is_next_item_BL, is_next_app_BL = batch.targets_BL > UNKNOWN, batch.macro_ids_BL[:, 1:] > UNKNOWN
        of_users = (batch.activity_B.isfinite(), *(batch.attributes_BA >= 0).unbind(1))
        counts = torch.stack([mask.sum() for mask in (is_next_item_BL, is_next_app_BL, *of_users)]).double()
        parts = counts / self.summed(counts.clone()).clamp(min=1)
        next_item, next_app, activity, *attributes = parts.float().unbind()
        return Share(next_item, next_app, activity, attributes, 1 / self.size, gathered)

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place of the values."""
        if not self.is_alone:
            distributed.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Every process has the sum of all processes' dense gradients after; the same parameters have one in each of them."""
        if self.is_alone:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        summed = self.summed(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, values in zip(gradients, summed.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))

    def told(self, stopped: Stop | None) -> Stop | None:
        """What the first process says of the run: whether it has stopped, and by what. The others are not heard."""
        if self.is_alone:
            return stopped
        said: list[Any] = [stopped]
        distributed.broadcast_object_list(said)
        return said[0]


ALONE = Ranks()


def gathered(values_BX: Tensor) -> Tensor:
    """The rows of all processes, the first's first; gradients find their way back to the process that a row came from."""
    return _Gathered.apply(values_BX)


class _Gathered(torch.autograd.Function):
    """Torch's own collective drops the gradient: the loss would be right, and what is learned from it would not."""

    @staticmethod
    def forward(ctx: Any, values_BX: Tensor) -> Tensor:
        """See ``gathered``."""
        parts = [torch.empty_like(values_BX) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values_BX.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_X: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The sum of what all processes' losses ask of this one's rows."""
        summed = gradient_X.contiguous()
        distributed.all_reduce(summed)
        return summed.chunk(distributed.get_world_size())[distributed.get_rank()]
