"""An event as a vector: what it is, of which category, how soon after the event before."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mfn_core.model.dropout import ByteDropout
from mfn_core.schema import PAD

# Next items were learned slower from .02 (on ml-1m and a simulated world) and, with thousands of items, from .12.
_INITIAL_STD = 0.05
_NUM_GAP_BOUNDARIES = 32
NUM_GAP_BUCKETS = _NUM_GAP_BOUNDARIES + 2
# Rows: with more of them a GPU is longer held up by additions to the same row, PAD's or that of a frequent gap, than by sorting.
_MOST_ADDED_UNSORTED = 2**15


def gap_boundaries() -> Tensor:
    """Powers of two from one second to 68 years, int64: exact where a logarithm in float32 is not."""
    return 2 ** torch.arange(_NUM_GAP_BOUNDARIES)


def gap_buckets(times_BL: Tensor, boundaries: Tensor) -> Tensor:
    """Log-bucketed seconds since the previous event of the window.

    Bucket 0: no previous event. Bucket 1: the same second. Bucket 2 + k: 2^k to 2^(k+1) - 1 seconds. The gap to the
    *following* event would be more telling, but tells when the event to be predicted happens: a leak.

    Args:
        times_BL: int64 seconds UTC, ascending over the valid events; what padding gets is of no consequence.
        boundaries: Those of ``gap_boundaries``, on the device of the times.

    Returns:
        int64 buckets [B, L] below ``NUM_GAP_BUCKETS``.
    """
    gaps = times_BL[:, 1:] - times_BL[:, :-1]
    return nn.functional.pad(torch.bucketize(gaps, boundaries, right=True) + 1, (1, 0))


def rows_of(table_ND: Tensor, ids: Tensor, padding_idx: int | None = None, *, is_sparse: bool = False) -> Tensor:
    """Rows [..., D] of a table; the gradient of ``padding_idx`` is zero, and ``is_sparse`` that of the table holds the rows named alone.

    The built-in gradient on a GPU sorts the ids, by all of their 64 bits, in some thirty kernels: few rows are added as they come.
    """
    if table_ND.is_cpu or ids.numel() > _MOST_ADDED_UNSORTED:
        return functional.embedding(ids, table_ND, padding_idx, sparse=is_sparse)
    return _UnsortedRows.apply(table_ND, ids, padding_idx)


class _UnsortedRows(torch.autograd.Function):
    """See ``rows_of``."""

    @staticmethod
    def forward(ctx: Any, table_ND: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
        """Rows [..., D]."""
        ctx.save_for_backward(ids)
        ctx.num_rows, ctx.padding_idx = len(table_ND), padding_idx
        return functional.embedding(ids, table_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of the table alone."""
        (ids,) = ctx.saved_tensors
        result_ND = gradient.new_zeros(ctx.num_rows, gradient.shape[-1])
        result_ND.index_add_(0, ids.flatten(), gradient.flatten(0, -2))
        if ctx.padding_idx is not None:
            result_ND[ctx.padding_idx].zero_()
        return result_ND, None, None


class EventEmbedding(nn.Module):
    """Sum of the embeddings of id, category and time gap, then dropout.

    Departs from the source, whose embedding layer is not detailed: category and gap are added. The position is told in the
    attention, see ``rotary.py``.
    """

    def __init__(self, *, num_ids: int, num_categories: int, width: int, dropout: float) -> None:
        super().__init__()
        self.ids = nn.Embedding(num_ids, width, padding_idx=PAD)
        self.categories = nn.Embedding(num_categories, width, padding_idx=PAD)
        self.gaps = nn.Embedding(NUM_GAP_BUCKETS, width)
        self.dropout = ByteDropout(dropout)
        self.register_buffer("boundaries", gap_boundaries(), persistent=False)
        self.boundaries: Tensor
        for table in (self.ids, self.categories, self.gaps):
            nn.init.normal_(table.weight, std=_INITIAL_STD)
        with torch.no_grad():
            self.ids.weight[PAD] = 0
            self.categories.weight[PAD] = 0

    def forward(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor) -> Tensor:
        """Events [B, L, D]; vectors at padding are finite and mean nothing."""
        return self.dropout(self.meaning(ids_BL, categories_BL) + _looked_up(self.gaps, gap_buckets(times_BL, self.boundaries)))

    def meaning(self, ids_BL: Tensor, categories_BL: Tensor) -> Tensor:
        """What the events are, whenever they happened [B, L, D]; zero at padding."""
        return _looked_up(self.ids, ids_BL) + _looked_up(self.categories, categories_BL)


def _looked_up(table: nn.Embedding, ids: Tensor) -> Tensor:
    return rows_of(table.weight, ids, table.padding_idx, is_sparse=table.sparse)
