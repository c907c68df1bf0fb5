"""Where an event stands in the history, told by rotation (rotary position embedding, Su et al. 2021)."""

import torch
from torch import Tensor, nn

_LONGEST_WAVE = 10_000.0


class RotaryPosition(nn.Module):
    """Turns queries and keys by their position, so that their product depends on the distance of two events alone.

    Departs from the source, whose Transformer adds position vectors. Distances are the same wherever a window begins, how many
    events follow, and however much padding there is. A learned table has none of this: counted from the latest event, as left-padded
    recommenders do, its entry of the latest event never meets a next-item target in training, yet asks for every prediction.
    """

    def __init__(self, *, head_width: int, max_length: int) -> None:
        super().__init__()
        assert head_width % 2 == 0, f"a head of width {head_width} cannot be rotated in pairs"
        frequencies = _LONGEST_WAVE ** (-torch.arange(0, head_width, 2) / head_width)
        angles_LW = torch.outer(torch.arange(max_length), frequencies)
        self.register_buffer("cosines_LW", angles_LW.cos(), persistent=False)
        self.register_buffer("sines_LW", angles_LW.sin(), persistent=False)
        self.cosines_LW: Tensor
        self.sines_LW: Tensor

    def of_first(self, num_events: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [L, head width / 2] of the first events, in the type of what is turned."""
        return self.cosines_LW[:num_events].to(dtype), self.sines_LW[:num_events].to(dtype)

    def turns(self, num_events: int) -> Tensor:
        """What turns the first events' pairs, as complex numbers [L, head width / 2]."""
        return torch.complex(self.cosines_LW[:num_events], self.sines_LW[:num_events])


def neighbours(head_width: int, num_heads: int, device: torch.device) -> Tensor:
    """The order of the rows of ``num_heads`` projections in which the two of a pair are neighbours, hence one complex number."""
    return torch.arange(num_heads * head_width, device=device).view(num_heads, 2, head_width // 2).mT.flatten()


def as_pairs(vectors: Tensor) -> Tensor:
    """Float32 vectors [..., W] whose pairs are neighbours, as complex numbers [..., W / 2] in the same memory."""
    return torch.view_as_complex(vectors.unflatten(-1, (-1, 2)))


def rotate_into(vectors: Tensor, cosines: Tensor, sines: Tensor, out: Tensor, *, back: bool = False) -> None:
    """Vectors [..., L, head width], turned, or turned back, into a tensor of their shape: the first half and the second make the pairs.

    Outside of autograd, whose gradient is to turn back, and in place of three passes by two.
    """
    sign = -1 if back else 1
    half = vectors.shape[-1] // 2
    first, second = vectors[..., :half], vectors[..., half:]
    torch.mul(first, cosines, out=out[..., :half])
    torch.mul(second, cosines, out=out[..., half:])
    out[..., :half].addcmul_(second, sines, value=-sign)
    out[..., half:].addcmul_(first, sines, value=sign)
