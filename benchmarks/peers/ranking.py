"""Ranks and their figures for every system, in NumPy alone: the environments of the peers lack ``mfn_core``.

The rules are those of ``mfn_core.model.ranking``: 0 is first, seen items are no rivals but for the target, ties count half, and a target
that the model does not know ranks behind every item.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_CUTOFF = 10


def ranks(scores_BN: NDArray[np.float32], target_B: Ints, seen: tuple[Ints, Ints]) -> NDArray[np.float64]:
    """Rank of each user's target. ``scores_BN`` is written over.

    Args:
        scores_BN: -inf where the model does not know the item.
        target_B: -1 where the catalogue lacks the item.
        seen: rows of ``scores_BN`` and the items that they have met.
    """
    rows_B, column_B = np.arange(len(target_B)), np.maximum(target_B, 0)
    own_B = scores_BN[rows_B, column_B]
    scores_BN[seen] = -np.inf
    scores_BN[rows_B, column_B] = own_B
    above_B = (~(scores_BN <= own_B[:, None])).sum(1)
    tied_B = (scores_BN == own_B[:, None]).sum(1) - 1
    return np.where((target_B >= 0) & np.isfinite(own_B), above_B + tied_B / 2, scores_BN.shape[1])


def figures(ranks_B: NDArray[np.floating]) -> dict[str, float]:
    """NDCG@10 and HR@10 of one target per user."""
    is_hit_B = ranks_B < _CUTOFF
    return {"ndcg10": float((is_hit_B / np.log2(ranks_B + 2)).mean()), "hr10": float(is_hit_B.mean())}
