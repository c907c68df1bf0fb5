"""Category-based semantic alignment of the two views, at the level of one user.

Events pooled per category give T_g [G, D] and T_l [K, D]; parallel co-attention (Lu et al. 2016) between them gives the
alignment matrix M_u [G, K]; a convolution over M_u gives the alignment vector m.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfn_core.schema import PAD, UNKNOWN


@dataclass(frozen=True)
class CategorySummary:
    """One view of B users by category, in vocabulary order; C stands for the G or K categories of the view.

    PAD's row is always absent; UNKNOWN is a category like any other, and that of all categories beyond the last row.
    """

    states_BCD: Tensor  # zero where absent
    counts_BC: Tensor  # float, events of the category
    presence_BC: Tensor  # float, 1 where the user has events of the category


def root_share(counts_BC: Tensor) -> Tensor:
    """Square root of each category's share of the user's events [B, C]; 0 for an empty history."""
    return (counts_BC / counts_BC.sum(1, keepdim=True).clamp(min=1)).sqrt()


class CategoryPooling(nn.Module):
    """Mean, per category, of one vector per event, then LayerNorm.

    The default network pools embeddings, as the figure does; the paper preset pools causal hidden states, which departs from it
    (docs/experiments.md, 2026-11-24, Labels from frozen encoders). Categories of ``num_categories`` or more, the rarest, are pooled as
    UNKNOWN: what is read from the rows grows with the product of both views'.
    """

    def __init__(self, *, num_categories: int, width: int) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.norm = nn.LayerNorm(width)

    def forward(self, events_BLD: Tensor, categories_BL: Tensor) -> CategorySummary:
        """Pools the events' vectors by category; padding (category PAD) is never pooled."""
        num_users, _, width = events_BLD.shape
        slots = self._slots(categories_BL)
        counts_BC = self._counted(slots, categories_BL)
        sums = counts_BC.new_zeros(counts_BC.numel(), width).index_add(0, slots, events_BLD.flatten(0, 1).float())
        presence_BC = (counts_BC > 0).float()
        means_BCD = sums.view(num_users, self.num_categories, width) / counts_BC.clamp(min=1)[:, :, None]
        return CategorySummary(self.norm(means_BCD) * presence_BC[:, :, None], counts_BC, presence_BC)

    def counts(self, categories_BL: Tensor) -> Tensor:
        """Events of each category [B, C], float."""
        return self._counted(self._slots(categories_BL), categories_BL)

    def _counted(self, slots: Tensor, categories_BL: Tensor) -> Tensor:
        valid = (categories_BL != PAD).flatten().float()
        counts = valid.new_zeros(len(categories_BL) * self.num_categories).index_add(0, slots, valid)
        return counts.view(-1, self.num_categories)

    def _slots(self, categories_BL: Tensor) -> Tensor:
        """Place of each event in all users' rows, end to end."""
        pooled_BL = torch.where(categories_BL < self.num_categories, categories_BL, UNKNOWN)
        return (pooled_BL + self.num_categories * torch.arange(len(categories_BL), device=categories_BL.device)[:, None]).flatten()


def masked_softmax(logits_BC: Tensor, presence_BC: Tensor) -> Tensor:
    """Softmax over the present entries; all zero, in value and gradient, where none is present."""
    masked = logits_BC.float().masked_fill(presence_BC == 0, torch.finfo(torch.float32).min)
    # A softmax whose entries are all masked is uniform, hence the second multiplication by presence.
    return masked.softmax(1) * presence_BC


class CoAttention(nn.Module):
    """Parallel co-attention over categories.

    ::

        C   = tanh(T_g W_b T_l^T) * p_g p_l^T
        H_g = tanh(T_g W_g + C   T_l W_l)      a_g = softmax over present categories (H_g w_g)
        H_l = tanh(T_l W_l + C^T T_g W_g)      a_l = softmax over present categories (H_l w_l)
        M_u = C * sqrt(n_g / sum n_g) sqrt(n_l / sum n_l)^T

    p is presence and n counts. Departs from Lu et al. in the masks and in scaling M_u by root shares. W_b starts at
    I / sqrt(D): the affinity of two categories starts as the scaled product of their states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.affinity_DD = nn.Parameter(torch.eye(width) / width**0.5)
        self.macro = nn.Linear(width, width, bias=False)
        self.micro = nn.Linear(width, width, bias=False)
        self.macro_attention = nn.Linear(width, 1, bias=False)
        self.micro_attention = nn.Linear(width, 1, bias=False)

    def forward(self, macro: CategorySummary, micro: CategorySummary) -> tuple[Tensor, Tensor, Tensor]:
        """M_u [B, G, K], a_g [B, G] and a_l [B, K]; all zero at absent categories."""
        present_BGK = macro.presence_BC[:, :, None] * micro.presence_BC[:, None, :]
        affinity_BGK = torch.tanh(macro.states_BCD @ self.affinity_DD @ micro.states_BCD.mT) * present_BGK
        macro_BGD, micro_BKD = self.macro(macro.states_BCD), self.micro(micro.states_BCD)
        macro_logits_BG = self.macro_attention(torch.tanh(macro_BGD + affinity_BGK @ micro_BKD)).squeeze(2)
        micro_logits_BK = self.micro_attention(torch.tanh(micro_BKD + affinity_BGK.mT @ macro_BGD)).squeeze(2)
        alignment_BGK = affinity_BGK * root_share(macro.counts_BC)[:, :, None] * root_share(micro.counts_BC)[:, None, :]
        return (
            alignment_BGK,
            masked_softmax(macro_logits_BG, macro.presence_BC),
            masked_softmax(micro_logits_BK, micro.presence_BC),
        )


class AlignmentConvolution(nn.Module):
    """Convolution over M_u with kernels as wide as the matrix: row filters 1 x K and column filters G x 1.

    The order of categories is arbitrary, so a local kernel would look for shapes that are not there. Such a kernel has
    one place per row or column, where convolution is a matrix product. Without bias: an absent category, whose row or
    column is zero, answers zero.
    """

    def __init__(self, *, num_macro_categories: int, num_micro_categories: int, num_filters: int) -> None:
        super().__init__()
        self.rows = nn.Linear(num_micro_categories, num_filters, bias=False)
        self.columns = nn.Linear(num_macro_categories, num_filters, bias=False)
        # M_u has a Frobenius norm of at most 1: filters of unit variance answer on its scale, the default ones far below.
        nn.init.normal_(self.rows.weight)
        nn.init.normal_(self.columns.weight)

    def forward(self, alignment_BGK: Tensor) -> Tensor:
        """Answers [B, (G + K) F] of all filters."""
        answers_BGF = self.rows(alignment_BGK)
        answers_BKF = self.columns(alignment_BGK.mT)
        return nn.functional.gelu(torch.cat([answers_BGF, answers_BKF], 1).flatten(1))


@dataclass(frozen=True)
class Alignment:
    """How one user's two views meet."""

    matrix_BGK: Tensor
    macro_attention_BG: Tensor
    micro_attention_BK: Tensor
    vector_BD: Tensor


class CategoryAlignment(nn.Module):
    """From the hidden states of both views to the alignment vector m.

    ::

        m = LayerNorm(W_f conv(M_u) + W_a [sum a_g T_g; sum a_l T_l])

    The attended category states are those of Lu et al.; the source's figure shows M_u alone.
    """

    def __init__(self, *, num_macro_categories: int, num_micro_categories: int, width: int, num_filters: int) -> None:
        super().__init__()
        self.macro_pooling = CategoryPooling(num_categories=num_macro_categories, width=width)
        self.micro_pooling = CategoryPooling(num_categories=num_micro_categories, width=width)
        self.co_attention = CoAttention(width)
        self.convolution = AlignmentConvolution(
            num_macro_categories=num_macro_categories, num_micro_categories=num_micro_categories, num_filters=num_filters
        )
        self.filters = nn.Linear(num_filters * (num_macro_categories + num_micro_categories), width)
        self.attended = nn.Linear(2 * width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, macro_hidden_BLD: Tensor, macro_categories_BL: Tensor, micro_hidden_BLD: Tensor, micro_categories_BL: Tensor
    ) -> Alignment:
        """Aligns the views; with an empty view the matrix and both attentions of that view are zero."""
        macro = self.macro_pooling(macro_hidden_BLD, macro_categories_BL)
        micro = self.micro_pooling(micro_hidden_BLD, micro_categories_BL)
        matrix_BGK, macro_attention_BG, micro_attention_BK = self.co_attention(macro, micro)
        attended_macro_BD = (macro_attention_BG[:, None, :] @ macro.states_BCD).squeeze(1)
        attended_micro_BD = (micro_attention_BK[:, None, :] @ micro.states_BCD).squeeze(1)
        attended = self.attended(torch.cat([attended_macro_BD, attended_micro_BD], 1))
        vector_BD = self.norm(self.filters(self.convolution(matrix_BGK)) + attended)
        return Alignment(matrix_BGK, macro_attention_BG, micro_attention_BK, vector_BD)
