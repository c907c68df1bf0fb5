"""Causal self-attention, by whatever way the device does fastest."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mfn_core.model.rotary import RotaryPosition, as_pairs, neighbours, rotate_into

_MAX_SCORES_PER_BLOCK = 2**22  # of whole users: what a CPU has at hand at a time
# Not cuDNN's, which torch 2.13 prefers on sm_90 with cuDNN beyond 9.15: it builds a plan for every new number of users and events, which
# takes longer than many steps, and batches have many lengths.
_FUSED_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class SelfAttention(nn.Module):
    """Multi-head attention of every event to itself and to earlier ones.

    Histories are right-padded, so no valid event is later than any padding: causality alone keeps padding out. Without dropout on the
    attention weights: drawing B x heads x L x L random numbers costs more than the attention itself, and the layer drops out the
    output anyway.
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        assert width % num_heads == 0, f"{num_heads} heads do not divide width {width}"
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, states_BLD: Tensor, position: RotaryPosition) -> Tensor:
        """New states [B, L, D]."""
        on_cpu = states_BLD.device.type == "cpu"
        if on_cpu and not torch.is_grad_enabled():
            return self.output(PairwiseAttention(self, position)(states_BLD))
        attend = attend_blockwise if on_cpu else attend_fused
        return self.output(attend(self.queries_keys_values(states_BLD), self.num_heads, position))

    @torch.no_grad()
    def of_event(self, states_BLD: Tensor, event_B: Tensor, position: RotaryPosition) -> Tensor:
        """What ``forward`` gives for one event of each user, [B, D], without what it computes for the others, and without gradients.

        The mean of values is the value of the mean state, so that no event's own value is computed.
        """
        num_events, width = states_BLD.shape[1:]
        weights, biases = self.queries_keys_values.weight.chunk(3), self.queries_keys_values.bias.chunk(3)
        order = neighbours(width // self.num_heads, self.num_heads, states_BLD.device)
        queries_BD = functional.linear(gather_event(states_BLD, event_B), weights[0][order], biases[0][order]).float()
        keys_BLD = functional.linear(states_BLD, weights[1][order], biases[1][order]).float()
        turns_LD = position.turns(num_events).repeat(1, self.num_heads)
        turned_BLD = torch.view_as_real(as_pairs(keys_BLD) * turns_LD).flatten(2)
        queries_BHW = torch.view_as_real(as_pairs(queries_BD) * turns_LD[event_B]).flatten(1).unflatten(1, (self.num_heads, -1))
        is_own_HH1 = torch.eye(self.num_heads, dtype=queries_BHW.dtype, device=queries_BHW.device)[:, :, None]
        # Every head's query over the width of all heads, zero at the others': keys stay where they are.
        scores_BHL = (queries_BHW[:, :, None] * is_own_HH1).flatten(2) @ turned_BLD.mT
        is_later_BL = torch.arange(num_events, device=event_B.device) > event_B[:, None]
        scale = (width // self.num_heads) ** -0.5
        weights_BHL = (scale * scores_BHL).masked_fill(is_later_BL[:, None], -torch.inf).softmax(2)
        mean_HBD = (weights_BHL.to(states_BLD.dtype) @ states_BLD).transpose(0, 1)
        values_HDW = weights[2].unflatten(0, (self.num_heads, -1)).mT
        attended_BD = (mean_HBD @ values_HDW).transpose(0, 1).flatten(1) + biases[2]
        return self.output(attended_BD)


class PairwiseAttention:
    """What ``attend_blockwise`` gives, outside of autograd, by a layer's projections as they are when this is made.

    Each pair is turned as one complex number, in one pass in place of four.
    """

    def __init__(self, layer: SelfAttention, position: RotaryPosition) -> None:
        weight, bias = layer.queries_keys_values.weight, layer.queries_keys_values.bias
        width = weight.shape[1]
        head_width = width // layer.num_heads
        turned = neighbours(head_width, 2 * layer.num_heads, weight.device)
        order = torch.cat([turned, torch.arange(2 * width, 3 * width, device=weight.device)])
        scale = torch.tensor([head_width**-0.5, 1.0], device=weight.device).view(2, 1, 1, 1, 1)
        self._num_heads = layer.num_heads
        self._weight, self._bias = weight[order], bias[order]
        self._turns_2LW = scale * position.turns(len(position.cosines_LW))  # those of the queries also divide, as ``_turns``

    def __call__(self, states_BLD: Tensor) -> Tensor:
        """Means [B, L, D] of the values, before the layer's output."""
        projected_BLX = functional.linear(states_BLD, self._weight, self._bias)
        split = projected_BLX.unflatten(2, (3, self._num_heads, -1)).permute(2, 0, 3, 1, 4)
        heads_3BHLW = torch.empty(split.shape, device=split.device)
        turns_2LW = self._turns_2LW[..., : states_BLD.shape[1], :]
        torch.mul(as_pairs(split[:2].float()), turns_2LW, out=as_pairs(heads_3BHLW[:2]))
        heads_3BHLW[2].copy_(split[2])
        return _attended(heads_3BHLW.to(projected_BLX.dtype))


def gather_event(states_BLD: Tensor, event_B: Tensor) -> Tensor:
    """State [B, D] of one event of each user."""
    return states_BLD.gather(1, event_B[:, None, None].expand(-1, 1, states_BLD.shape[2])).squeeze(1)


def attend_fused(projected_BLX: Tensor, num_heads: int, position: RotaryPosition) -> Tensor:
    """By the device's own kernel; arguments and result as in ``attend_blockwise``."""
    turns = position.of_first(projected_BLX.shape[1], projected_BLX.dtype)
    turned_2BHLW, values_BHLW = _TurnedHeads.apply(projected_BLX, num_heads, *turns)
    queries_BHLW, keys_BHLW = turned_2BHLW
    with sdpa_kernel(_FUSED_KERNELS):
        attended_BHLW = functional.scaled_dot_product_attention(queries_BHLW, keys_BHLW, values_BHLW, is_causal=True)
    return attended_BHLW.transpose(1, 2).flatten(2)


class _TurnedHeads(torch.autograd.Function):
    """Queries and keys turned at once, and the gradient written where the projection's belongs: a GPU's step is as long as its kernels."""

    @staticmethod
    def forward(ctx: Any, projected_BLX: Tensor, num_heads: int, cosines_LW: Tensor, sines_LW: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys [2, B, H, L, W], and the values [B, H, L, W] where they were."""
        split = projected_BLX.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
        # The heads of an event side by side, as they are wanted behind the kernel: it lays out its result as its queries are.
        turned_2BHLW = split.new_empty(2, *projected_BLX.shape[:2], num_heads, split.shape[-1]).transpose(2, 3)
        rotate_into(split[:2], cosines_LW, sines_LW, turned_2BHLW)
        ctx.save_for_backward(cosines_LW, sines_LW)
        return turned_2BHLW, split[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradient of the argument, in its layout."""
        turned_2BHLW, values_BHLW = gradients
        num_users, num_heads, num_events, head_width = values_BHLW.shape
        result = turned_2BHLW.new_empty(num_users, num_events, 3, num_heads, head_width)
        split = result.permute(2, 0, 3, 1, 4)
        cosines_LW, sines_LW = ctx.saved_tensors
        rotate_into(turned_2BHLW, cosines_LW, sines_LW, split[:2], back=True)
        split[2].copy_(values_BHLW)
        return result.flatten(2), None, None, None


def attend_blockwise(projected_BLX: Tensor, num_heads: int, position: RotaryPosition) -> Tensor:
    """Users block by block, each by matrix products; on a CPU the fused kernel is slower, in bfloat16 several times.

    Args:
        projected_BLX: queries, keys and values side by side, X = 3 D; within each the heads side by side.
        num_heads: divides D.
        position: turns queries and keys.

    Returns:
        [B, L, D], of the type of the argument.
    """
    num_events = projected_BLX.shape[1]
    cosines_LW, sines_LW = position.cosines_LW[:num_events], position.sines_LW[:num_events]
    return _BlockwiseAttention.apply(projected_BLX, num_heads, cosines_LW, sines_LW)


class _BlockwiseAttention(torch.autograd.Function):
    """Keeps queries, keys and values for the way back, not the weights: computing them again is cheaper than reading them."""

    @staticmethod
    def forward(ctx: Any, projected_BLX: Tensor, num_heads: int, cosines_LW: Tensor, sines_LW: Tensor) -> Tensor:
        """See ``attend_blockwise``."""
        with torch.autocast("cpu", enabled=False):
            split = projected_BLX.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
            heads_3BHLW = projected_BLX.new_empty(split.shape)
            turns = _turns(cosines_LW, sines_LW, split.shape[-1], split.dtype)
            rotate_into(split[:2], *turns, heads_3BHLW[:2])
            heads_3BHLW[2].copy_(split[2])
            attended_BLD = _attended(heads_3BHLW)
        ctx.save_for_backward(heads_3BHLW, cosines_LW, sines_LW)
        return attended_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BLD: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of queries, keys and values, in the layout of the argument."""
        heads_3BHLW, cosines_LW, sines_LW = ctx.saved_tensors
        _, num_users, num_heads, num_events, head_width = heads_3BHLW.shape
        result = heads_3BHLW.new_empty(num_users, num_events, 3, num_heads, head_width)
        split = result.permute(2, 0, 3, 1, 4)
        turned_2BHLW = torch.empty_like(heads_3BHLW[:2])
        gradient_BHLW = gradient_BLD.unflatten(2, (num_heads, head_width)).transpose(1, 2)
        for users in _blocks(heads_3BHLW):
            queries, keys, values = heads_3BHLW[:, users].flatten(1, 2)
            gradient = gradient_BHLW[users].flatten(0, 1)
            weights = _weights(queries, keys)
            split[2, users].copy_((weights.mT @ gradient).unflatten(0, (-1, num_heads)))
            # The softmax's own derivative: w * (g - sum of w * g).
            scores = torch.ops.aten._softmax_backward_data(gradient @ values.mT, weights, -1, weights.dtype)
            torch.bmm(scores, keys, out=turned_2BHLW[0, users].flatten(0, 1))
            torch.bmm(scores.mT, queries, out=turned_2BHLW[1, users].flatten(0, 1))
        cosines, sines = _turns(cosines_LW, sines_LW, head_width, result.dtype)
        rotate_into(turned_2BHLW, cosines, sines, split[:2], back=True)
        return result.flatten(2), None, None, None


def _turns(cosines_LW: Tensor, sines_LW: Tensor, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Those of queries and of keys; the queries' also divide the products by the root of the head width."""
    scale = cosines_LW.new_tensor([head_width**-0.5, 1.0]).view(2, 1, 1, 1, 1)
    return (scale * cosines_LW).to(dtype), (scale * sines_LW).to(dtype)


def _attended(heads_3BHLW: Tensor) -> Tensor:
    """Means [B, L, D] of the values, by turned queries and keys."""
    _, num_users, num_heads, num_events, head_width = heads_3BHLW.shape
    attended_BLHW = heads_3BHLW.new_empty(num_users, num_events, num_heads, head_width)
    for users in _blocks(heads_3BHLW):
        queries, keys, values = heads_3BHLW[:, users].flatten(1, 2)
        weighted = _weights(queries, keys) @ values
        attended_BLHW[users].transpose(1, 2).copy_(weighted.unflatten(0, (-1, num_heads)))
    return attended_BLHW.flatten(2)


def _blocks(heads_3BHLW: Tensor) -> list[slice]:
    _, num_users, num_heads, num_events, _ = heads_3BHLW.shape
    size = max(1, _MAX_SCORES_PER_BLOCK // (num_heads * num_events**2))
    return [slice(start, start + size) for start in range(0, num_users, size)]


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention weights [users x heads, L, L], nothing above the diagonal."""
    num_events = queries.shape[1]
    later = queries.new_full((num_events, num_events), -torch.inf).triu_(1)
    return torch.baddbmm(later, queries, keys.mT).softmax(-1)
