"""Dropout whose random numbers do not dominate a training step on a CPU."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

_BYTE_VALUES = 256
_BYTES_PER_DRAW = 8
_LARGE = 2**16  # values: where drawing anew costs more than what dropout is for
_POOL_SEED = 20210419


class ByteDropout(nn.Module):
    """Dropout decided by one random byte per element, so the probability is a multiple of 1/256.

    The CPU generator is serial: drawing a float per element took 24 ms for [256, 50, 200] on two cores, a byte
    per element (eight out of one 64-bit draw) 3 ms. For a large tensor that is still as long as a matrix product: it takes
    consecutive decisions, from a random place on, out of at least twice as many that are drawn once. Other devices use the built-in
    kernel at the same probability.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.num_dropped_values = min(round(probability * _BYTE_VALUES), _BYTE_VALUES - 1)

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, each zeroed or scaled up in training, untouched in evaluation."""
        if not self.training or self.num_dropped_values == 0:
            return values
        if values.device.type != "cpu":
            return functional.dropout(values, self.num_dropped_values / _BYTE_VALUES)
        return values * self._factors(values)

    def added(self, residual: Tensor, values: Tensor) -> Tensor:
        """The residual and what dropout leaves of the values, of the same shape and type: on a CPU in one pass."""
        if not self.training or self.num_dropped_values == 0 or values.device.type != "cpu":
            return residual + self(values)
        return torch.addcmul(residual, values, self._factors(values))

    def _factors(self, values: Tensor) -> Tensor:
        """What each value is multiplied by: 0, or the inverse of the probability to be kept."""
        size = values.numel()
        if size < _LARGE:
            return _draw(self.num_dropped_values, size, values.dtype, None).view(values.shape)
        pool = _pool(self.num_dropped_values, 2 ** (2 * size - 1).bit_length(), values.dtype)
        start = int(torch.randint(len(pool) - size + 1, ()))
        return pool[start : start + size].view(values.shape)

    def extra_repr(self) -> str:
        """The probability in use, for ``print(network)``."""
        return f"p={self.num_dropped_values / _BYTE_VALUES:.4f}"


@lru_cache(maxsize=32)  # histories of many lengths: a pool that is put aside is drawn again
def _pool(num_dropped_values: int, size: int, dtype: torch.dtype) -> Tensor:
    """Factors of a generator of its own: the same whenever a run reaches them, so that a resumed run goes on as it would have."""
    return _draw(num_dropped_values, size, dtype, torch.Generator().manual_seed(_POOL_SEED))


def _draw(num_dropped_values: int, size: int, dtype: torch.dtype, generator: torch.Generator | None) -> Tensor:
    draws = torch.empty(-(-size // _BYTES_PER_DRAW), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    kept = draws.view(torch.uint8)[:size] >= num_dropped_values
    return (kept * (_BYTE_VALUES / (_BYTE_VALUES - num_dropped_values))).to(dtype)
