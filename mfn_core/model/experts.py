"""Four ways to look at both views at once; each gives what R members say, of width F.

A member, as an ensemble has them, is one of R independent copies of the same small network, R being a leading axis of every weight:
their mean is steadier than one.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.model.affinity import CategoryAffinity
from mfn_core.model.alignment import root_share
from mfn_core.model.dropout import ByteDropout
from mfn_core.model.evidence import NUM_VOLUMES, Evidence

_COUNT_DROPOUT = 0.5
_CATEGORY_DROPOUT = 0.2
_BINS = 16
_FARTHEST = 4.0  # standard deviations: a rare category lies far from its mean


@dataclass(frozen=True)
class Sizes:
    """What the experts need to know of the evidence."""

    state_dim: int  # S
    num_macro_categories: int  # G
    num_micro_categories: int  # K


@dataclass(frozen=True)
class ReaderInput:
    """Evidence of B users with the category counts that this pass may see, and what aligns their categories."""

    evidence: Evidence
    macro_counts_BG: Tensor
    micro_counts_BK: Tensor
    affinity: CategoryAffinity

    @cached_property
    def affinity_BGK(self) -> Tensor:
        """C of these users, made when first asked for: not every reader does. No label teaches it."""
        with torch.no_grad():
            return self.affinity(self.evidence.macro.categories, self.evidence.micro.categories)

    @cached_property
    def macro_share_BG(self) -> Tensor:
        """Square root of each category's share of the user's app events."""
        return root_share(self.macro_counts_BG)

    @cached_property
    def micro_share_BK(self) -> Tensor:
        """Square root of each category's share of the user's item events."""
        return root_share(self.micro_counts_BK)


def thinned(counts_BC: Tensor) -> Tensor:
    """Counts with a fifth of the events left out at random, more or less: what another week might have shown."""
    kept = torch.empty_like(counts_BC).uniform_(1 - 2 * _CATEGORY_DROPOUT, 1)
    return torch.floor(counts_BC * kept + torch.rand_like(counts_BC))


class Copies(nn.Module):
    """R linear layers side by side."""

    def __init__(self, num_members: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members, in_dim, out_dim).uniform_(-1, 1) / in_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(num_members, 1, out_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, B, out]; from [B, in], the same for every member, or [R, B, in]."""
        return inputs @ self.weight + self.bias


class ConcatenationExpert(nn.Module):
    """MLP[u_g; u_l]: what the views tell side by side."""

    def __init__(self, sizes: Sizes, *, num_members: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        self.first = Copies(num_members, 2 * sizes.state_dim, 2 * width)
        self.second = Copies(num_members, 2 * width, width)

    def forward(self, inputs: ReaderInput) -> Tensor:
        """[R, B, F]."""
        states = torch.cat([inputs.evidence.macro.state_BS, inputs.evidence.micro.state_BS], 1)
        hidden = functional.gelu(self.first(_dropped(states, self.dropout, len(self.first.weight))))
        return self.second(self.dropout(hidden))


class ProductExpert(nn.Module):
    """W LN(W_g [u_g; shares] * W_l [u_l; shares]): what holds where both views say something."""

    def __init__(self, sizes: Sizes, *, num_members: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout / 2)
        self.macro = Copies(num_members, sizes.state_dim + sizes.num_macro_categories, 2 * width)
        self.micro = Copies(num_members, sizes.state_dim + sizes.num_micro_categories, 2 * width)
        self.output = Copies(num_members, 2 * width, width)

    def forward(self, inputs: ReaderInput) -> Tensor:
        """[R, B, F]."""
        num_members = len(self.output.weight)
        macro = torch.cat([inputs.evidence.macro.state_BS, 3 * inputs.macro_share_BG], 1)
        micro = torch.cat([inputs.evidence.micro.state_BS, 3 * inputs.micro_share_BK], 1)
        macro, micro = (_dropped(states, self.dropout, num_members) for states in (macro, micro))
        return self.output(normalized(self.macro(macro) * self.micro(micro)))


class AlignmentExpert(nn.Module):
    """Row and column filters over two channels of the category pairs: M_u = C * O, and O alone.

    C is the affinity of the categories and O = sqrt(n_g / sum n_g) sqrt(n_l / sum n_l)^T how much the user is in both. Kernels are as
    wide as the matrix, because the order of categories is arbitrary (see ``alignment.AlignmentConvolution``).
    """

    def __init__(self, sizes: Sizes, *, num_members: int, width: int, num_filters: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        num_macro, num_micro = sizes.num_macro_categories, sizes.num_micro_categories
        self.rows = nn.Parameter(torch.randn(num_members, 2, num_micro, num_filters))
        self.columns = nn.Parameter(torch.randn(num_members, 2, num_macro, num_filters))
        self.output = Copies(num_members, (num_macro + num_micro) * num_filters, width)

    def forward(self, inputs: ReaderInput) -> Tensor:
        """[R, B, F]."""
        macro_BG, micro_BK, affinity_BGK = inputs.macro_share_BG, inputs.micro_share_BK, inputs.affinity_BGK
        # O has rank one: a filter of it is one number a user, and a category's own share stands before all that its filters give.
        rows = torch.einsum("bgk,rkf->rbgf", affinity_BGK * micro_BK[:, None], self.rows[:, 0]) + (micro_BK @ self.rows[:, 1])[:, :, None]
        columns = torch.einsum("bgk,rgf->rbkf", affinity_BGK * macro_BG[:, :, None], self.columns[:, 0])
        columns = columns + (macro_BG @ self.columns[:, 1])[:, :, None]
        filtered = [(macro_BG[:, :, None] * rows).flatten(2), (micro_BK[:, :, None] * columns).flatten(2)]
        answers = functional.gelu(torch.cat(filtered, 2))
        return self.output(self.dropout(answers))


class NumberEncoding(nn.Module):
    """Numbers as standard scores and, piecewise linear (Gorishniy et al. 2022), as how much of each bin between two quantiles they fill.

    A layer above can bend at every quantile, as a tree may split there. What the quantiles are is told by ``fit``.
    """

    def __init__(self, num_scored: int, num_binned: int) -> None:
        super().__init__()
        self.register_buffer("mean_X", torch.zeros(num_scored))
        self.register_buffer("deviation_X", torch.ones(num_scored))
        self.register_buffer("edges_VE", torch.zeros(num_binned, _BINS + 1))
        self.mean_X: Tensor
        self.deviation_X: Tensor
        self.edges_VE: Tensor

    @property
    def out_dim(self) -> int:
        """Width of what ``forward`` gives."""
        return len(self.mean_X) + len(self.edges_VE) * _BINS

    def fit(self, numbers_BX: Tensor) -> None:
        """Take mean, deviation and quantiles from these users; a number that is the same for all keeps its scale."""
        deviation_X = numbers_BX.std(0, correction=0)
        self.mean_X.copy_(numbers_BX.mean(0))
        self.deviation_X.copy_(torch.where(deviation_X > 1e-3, deviation_X, 1.0))
        shares_E = torch.linspace(0, 1, _BINS + 1, device=numbers_BX.device)
        self.edges_VE.copy_(torch.quantile(numbers_BX[:, : len(self.edges_VE)], shares_E, dim=0).T)

    def forward(self, numbers_BX: Tensor) -> Tensor:
        """[B, X + V bins]; the first V of the X numbers are binned, an empty bin counts as half full. Several scales: ``joint.py``."""
        scores_BX = ((numbers_BX - self.mean_X) / self.deviation_X).clamp(-_FARTHEST, _FARTHEST)
        starts_VE, widths_VE = self.edges_VE[..., :-1], self.edges_VE.diff(dim=-1)
        filled_BVE = (numbers_BX[:, : starts_VE.shape[-2], None] - starts_VE) / widths_VE.clamp(min=1e-6)
        centered_BVE = (filled_BVE.clamp(0, 1) - 0.5) * (widths_VE > 1e-6)
        return torch.cat([scores_BX, centered_BVE.flatten(-2)], -1)


class CountExpert(nn.Module):
    """MLP of what a data scientist would try first: volumes and recency, category counts and shares.

    Only the volumes are binned: their number does not grow with the categories.
    """

    def __init__(self, sizes: Sizes, *, num_members: int, width: int) -> None:
        super().__init__()
        num_volumes, num_categories = 2 * NUM_VOLUMES, sizes.num_macro_categories + sizes.num_micro_categories
        self.encoding = NumberEncoding(num_volumes + 2 * num_categories, num_volumes)
        self.input_dropout, self.dropout = ByteDropout(_COUNT_DROPOUT / 2), ByteDropout(_COUNT_DROPOUT)
        self.first = Copies(num_members, self.encoding.out_dim, 2 * width)
        self.second = Copies(num_members, 2 * width, width)

    def fit_encoding(self, inputs: ReaderInput) -> None:
        """Scale the inputs to these users."""
        self.encoding.fit(_numbers(inputs))

    def forward(self, inputs: ReaderInput) -> Tensor:
        """[R, B, F]."""
        encoded = self.encoding(_numbers(inputs))
        hidden = functional.gelu(self.first(_dropped(encoded, self.input_dropout, len(self.first.weight))))
        return self.second(self.dropout(hidden))


def _numbers(inputs: ReaderInput) -> Tensor:
    """[B, X], the volumes first."""
    macro, micro = inputs.evidence.macro, inputs.evidence.micro
    logs = [torch.log1p(counts) / 2 for counts in (inputs.macro_counts_BG, inputs.micro_counts_BK)]
    return torch.cat([macro.volumes_BV, micro.volumes_BV, *logs, inputs.macro_share_BG, inputs.micro_share_BK], 1)


def normalized(vectors: Tensor) -> Tensor:
    """LayerNorm without parameters."""
    return functional.layer_norm(vectors, vectors.shape[-1:])


def _dropped(inputs_BX: Tensor, dropout: ByteDropout, num_members: int) -> Tensor:
    """[R, B, X]: every member drops out others; [B, X] where nothing is dropped."""
    return dropout(inputs_BX.expand(num_members, -1, -1)) if dropout.training else inputs_BX
