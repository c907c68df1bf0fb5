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
        angles = torch.outer(torch.arange(max_length), frequencies)
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()], 2), persistent=False)
        self.turns: Tensor

    def forward(self, vectors: Tensor) -> Tensor:
        """Rotated vectors [B, L, ..., head width] in float32; neighbours make the pairs that turn.

        As complex numbers: a third of the time of sines and cosines by halves on a CPU.
        """
        num_events = vectors.shape[1]
        turns = torch.view_as_complex(self.turns[:num_events]).view(num_events, *[1] * (vectors.ndim - 3), -1)
        pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns).flatten(-2)
