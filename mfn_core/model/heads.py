"""What is read off the user representation and the hidden states: the three downstream tasks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_core.model.dropout import ByteDropout
from mfn_core.model.encoder import gather_events


class ClassificationHead(nn.Module):
    """A two-layer perceptron on u: logits of an attribute's classes, or the one logit of activity."""

    def __init__(self, *, width: int, num_logits: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), ByteDropout(dropout), nn.Linear(width, num_logits))

    def forward(self, user_BD: Tensor) -> Tensor:
        """Logits [B, num_logits]."""
        return self.layers(user_BD)


class CatalogueBias(nn.Module):
    """A bias per entry; beside it an entry is scored by the embedding that events of it are read with."""

    def __init__(self, num_ids: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_ids))

    def start_from(self, share_N: NDArray[np.float64]) -> None:
        """Set the biases to the log of the entries' shares of the events."""
        with torch.no_grad():
            self.bias.copy_(torch.from_numpy(np.log(share_N) - np.log(share_N).mean()))


class NextItemQuery(nn.Module):
    """q_t = LayerNorm(h_l,t + g W h_g,asof(t)), to be multiplied with the item table.

    asof(t) is the last app event strictly before the item to be predicted; without one the second term is zero.
    The scalar g starts at 0: the macro view joins as far as it helps. The query does not read the user representation
    u: u pools the whole history, so at every position but the last it has seen the answer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.macro = nn.Linear(width, width, bias=False)
        self.macro_gate = nn.Parameter(torch.zeros(()))
        self.norm = nn.LayerNorm(width)

    def forward(self, micro_BPD: Tensor, macro_hidden_BLD: Tensor, asof_BP: Tensor) -> Tensor:
        """Queries [B, P, D] of P positions per user.

        Args:
            micro_BPD: Micro hidden states at the positions.
            macro_hidden_BLD: All macro hidden states.
            asof_BP: Position of the last app event before each target, -1 where there is none.
        """
        macro_BPD = gather_events(macro_hidden_BLD, asof_BP.clamp(min=0)) * (asof_BP >= 0)[:, :, None]
        return self.joined(micro_BPD, macro_BPD)

    def joined(self, micro: Tensor, macro: Tensor) -> Tensor:
        """Queries [..., D] from states of both views, macro zero where there is none."""
        return self.norm(micro + self.macro_gate * self.macro(macro))
