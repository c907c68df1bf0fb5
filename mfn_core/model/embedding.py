"""An event as a vector: what it is, of which category, how soon after the event before."""

import torch
from torch import Tensor, nn

from mfn_core.model.dropout import ByteDropout
from mfn_core.schema import PAD

_GAP_BOUNDARIES_S = tuple(2**exponent for exponent in range(32))
NUM_GAP_BUCKETS = len(_GAP_BOUNDARIES_S) + 2


def gap_buckets(times_BL: Tensor) -> Tensor:
    """Log-bucketed seconds since the previous event of the window.

    Bucket 0: no previous event. Bucket 1: the same second. Bucket 2 + k: 2^k to 2^(k+1) - 1 seconds. The gap to the
    *following* event would be more telling, but tells when the event to be predicted happens: a leak.

    Args:
        times_BL: int64 seconds UTC, ascending over the valid events; what padding gets is of no consequence.

    Returns:
        int64 buckets [B, L] below ``NUM_GAP_BUCKETS``.
    """
    gaps = times_BL[:, 1:] - times_BL[:, :-1]
    boundaries = torch.tensor(_GAP_BOUNDARIES_S, dtype=torch.int64, device=times_BL.device)
    return nn.functional.pad(torch.bucketize(gaps, boundaries, right=True) + 1, (1, 0))


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
        # A next-item query has norm sqrt(D): scores start at unit variance. A tenth of it learned next items half as fast.
        for table in (self.ids, self.categories, self.gaps):
            nn.init.normal_(table.weight, std=width**-0.5)
        with torch.no_grad():
            self.ids.weight[PAD] = 0
            self.categories.weight[PAD] = 0

    def forward(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor) -> Tensor:
        """Events [B, L, D]; vectors at padding are finite and mean nothing."""
        return self.dropout(self.ids(ids_BL) + self.categories(categories_BL) + self.gaps(gap_buckets(times_BL)))
