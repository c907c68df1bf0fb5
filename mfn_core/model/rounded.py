"""Transformer layers whose weights are rounded to the type of their products all at once: for a GPU.

Autocast rounds weight by weight and takes every LayerNorm to float32 and back: a fifth of the calls of a step, and at the norms more passes
over the states, in float32, than the norm itself takes. What is rounded here beyond that are the norms' own weights; a CPU's norms take
states and weights of two types, and autocast leaves them alone.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from mfn_core.model.rotary import RotaryPosition


def pass_rounded(layers: nn.ModuleList, states_BLD: Tensor, position: RotaryPosition) -> Tensor:
    """States [B, L, D] behind the layers, which compute in the type of the states throughout."""
    names, weights = zip(*layers.named_parameters(), strict=True)
    rounded = dict(zip(names, _Rounded.apply(states_BLD.dtype, *weights), strict=True))
    with torch.autocast(states_BLD.device.type, enabled=False):
        for number, layer in enumerate(layers):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): weight for name, weight in rounded.items() if name.startswith(prefix)}
            states_BLD = functional_call(layer, own, (states_BLD, position))
    return states_BLD


class _Rounded(torch.autograd.Function):
    """Copies of tensors in another type: two kernels or three, however many tensors."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        """In the order of the arguments."""
        ctx.dtype = weights[0].dtype
        return _copied(weights, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients in the weights' own type."""
        return None, *_copied(gradients, ctx.dtype)


def _copied(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    torch._foreach_copy_(copies, tensors)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return copies
