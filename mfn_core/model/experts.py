"""Four ways to look at both views at once; each gives R readings of width F.

A reading is one of R independent copies of the same small network, R being a leading axis of every weight: their mean is steadier
than one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.model.dropout import ByteDropout
from mfn_core.model.evidence import NUM_VOLUMES, Evidence

_COUNT_DROPOUT = 0.5
_CATEGORY_DROPOUT = 0.2


@dataclass(frozen=True)
class Sizes:
    """What the experts need to know of the evidence."""

    state_dim: int  # S
    num_macro_categories: int  # G
    num_micro_categories: int  # K


@dataclass(frozen=True)
class Reading:
    """Evidence of B users with the category counts that this pass may see, and the alignment of the views."""

    evidence: Evidence
    macro_counts_BG: Tensor
    micro_counts_BK: Tensor
    affinity_BGK: Tensor

    @property
    def macro_share_BG(self) -> Tensor:
        """Square root of each category's share of the user's app events."""
        return root_share(self.macro_counts_BG)

    @property
    def micro_share_BK(self) -> Tensor:
        """Square root of each category's share of the user's item events."""
        return root_share(self.micro_counts_BK)


def root_share(counts_BC: Tensor) -> Tensor:
    """Square root of each category's share of the events; 0 for an empty history."""
    return (counts_BC / counts_BC.sum(1, keepdim=True).clamp(min=1)).sqrt()


def thinned(counts_BC: Tensor) -> Tensor:
    """Counts with a fifth of the events left out at random, more or less: what another week might have shown."""
    kept = torch.empty_like(counts_BC).uniform_(1 - 2 * _CATEGORY_DROPOUT, 1)
    return torch.floor(counts_BC * kept + torch.rand_like(counts_BC))


class Copies(nn.Module):
    """R linear layers side by side."""

    def __init__(self, num_readings: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_readings, in_dim, out_dim).uniform_(-1, 1) / in_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(num_readings, 1, out_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, B, out]; from [B, in], the same for every reading, or [R, B, in]."""
        return inputs @ self.weight + self.bias


class ConcatenationExpert(nn.Module):
    """MLP[u_g; u_l]: what the views tell side by side."""

    def __init__(self, sizes: Sizes, *, num_readings: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        self.first = Copies(num_readings, 2 * sizes.state_dim, 2 * width)
        self.second = Copies(num_readings, 2 * width, width)

    def forward(self, reading: Reading) -> Tensor:
        """[R, B, F]."""
        states = torch.cat([reading.evidence.macro.state_BS, reading.evidence.micro.state_BS], 1)
        hidden = functional.gelu(self.first(_dropped(states, self.dropout, len(self.first.weight))))
        return self.second(self.dropout(hidden))


class ProductExpert(nn.Module):
    """W LN(W_g [u_g; shares] * W_l [u_l; shares]): what holds where both views say something."""

    def __init__(self, sizes: Sizes, *, num_readings: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout / 2)
        self.macro = Copies(num_readings, sizes.state_dim + sizes.num_macro_categories, 2 * width)
        self.micro = Copies(num_readings, sizes.state_dim + sizes.num_micro_categories, 2 * width)
        self.output = Copies(num_readings, 2 * width, width)

    def forward(self, reading: Reading) -> Tensor:
        """[R, B, F]."""
        num_readings = len(self.output.weight)
        macro = torch.cat([reading.evidence.macro.state_BS, 3 * reading.macro_share_BG], 1)
        micro = torch.cat([reading.evidence.micro.state_BS, 3 * reading.micro_share_BK], 1)
        macro, micro = (_dropped(states, self.dropout, num_readings) for states in (macro, micro))
        return self.output(normalized(self.macro(macro) * self.micro(micro)))


class AlignmentExpert(nn.Module):
    """Row and column filters over two channels of the category pairs: M_u = C * O, and O alone.

    C is the affinity of the categories and O = sqrt(n_g / sum n_g) sqrt(n_l / sum n_l)^T how much the user is in both. Kernels are as
    wide as the matrix, because the order of categories is arbitrary (see ``alignment.AlignmentConvolution``).
    """

    def __init__(self, sizes: Sizes, *, num_readings: int, width: int, num_filters: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        num_macro, num_micro = sizes.num_macro_categories, sizes.num_micro_categories
        self.rows = nn.Parameter(torch.randn(num_readings, 2, num_micro, num_filters))
        self.columns = nn.Parameter(torch.randn(num_readings, 2, num_macro, num_filters))
        self.output = Copies(num_readings, (num_macro + num_micro) * num_filters, width)

    def forward(self, reading: Reading) -> Tensor:
        """[R, B, F]."""
        activity_BGK = reading.macro_share_BG[:, :, None] * reading.micro_share_BK[:, None, :]
        channels = torch.stack([reading.affinity_BGK * activity_BGK, activity_BGK], 1)
        rows = torch.einsum("bcgk,rckf->rbgf", channels, self.rows).flatten(2)
        columns = torch.einsum("bcgk,rcgf->rbkf", channels, self.columns).flatten(2)
        answers = functional.gelu(torch.cat([rows, columns], 2))
        return self.output(self.dropout(answers))


class CountExpert(nn.Module):
    """MLP of what a data scientist would try first: category counts and shares, volumes, recency."""

    def __init__(self, sizes: Sizes, *, num_readings: int, width: int) -> None:
        super().__init__()
        in_dim = 2 * NUM_VOLUMES + 2 * (sizes.num_macro_categories + sizes.num_micro_categories)
        self.input_dropout, self.dropout = ByteDropout(_COUNT_DROPOUT / 2), ByteDropout(_COUNT_DROPOUT)
        self.first = Copies(num_readings, in_dim, 2 * width)
        self.second = Copies(num_readings, 2 * width, width)

    def forward(self, reading: Reading) -> Tensor:
        """[R, B, F]."""
        macro, micro = reading.evidence.macro, reading.evidence.micro
        logs = [torch.log1p(counts) / 2 for counts in (reading.macro_counts_BG, reading.micro_counts_BK)]
        counts = torch.cat([macro.volumes_BV, micro.volumes_BV, *logs, reading.macro_share_BG, reading.micro_share_BK], 1)
        hidden = functional.gelu(self.first(_dropped(counts, self.input_dropout, len(self.first.weight))))
        return self.second(self.dropout(hidden))


def normalized(vectors: Tensor) -> Tensor:
    """LayerNorm without parameters."""
    return functional.layer_norm(vectors, vectors.shape[-1:])


def _dropped(inputs_BX: Tensor, dropout: ByteDropout, num_readings: int) -> Tensor:
    """[R, B, X]: every reading drops out others; [B, X] where nothing is dropped."""
    return dropout(inputs_BX.expand(num_readings, -1, -1)) if dropout.training else inputs_BX
