"""Dropout whose random numbers do not dominate a training step on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_BYTE_VALUES = 256
_BYTES_PER_DRAW = 8


class ByteDropout(nn.Module):
    """Dropout decided by one random byte per element, so the probability is a multiple of 1/256.

    The CPU generator is serial: drawing a float per element took 24 ms for [256, 50, 200] on two cores, a byte
    per element (eight out of one 64-bit draw) 3 ms. Other devices use the built-in kernel at the same probability.
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
        num_draws = -(-values.numel() // _BYTES_PER_DRAW)
        draws = torch.empty(num_draws, dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.uint8)[: values.numel()].view(values.shape) >= self.num_dropped_values
        return values * (keep * (_BYTE_VALUES / (_BYTE_VALUES - self.num_dropped_values))).to(values.dtype)

    def extra_repr(self) -> str:
        """The probability in use, for ``print(network)``."""
        return f"p={self.num_dropped_values / _BYTE_VALUES:.4f}"
