"""The alignment atlas of a trained network, and whether other seeds draw the same one.

The atlas is the mean of ``M_u`` over test users. Most of it is how often two categories meet in one user, which no seed changes; so the
affinity, the atlas divided by that, is compared apart.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mfn_core.data.batching import MAX_COUNTED
from mfn_core.data.dataset import Dataset
from mfn_core.data.histories import ViewHistories
from mfn_core.inference.predictor import Predictor
from mfn_core.schema import FIRST_KNOWN

_MOST_USERS = 2000
PARTS = ("alignment", "affinity")

Atlas = dict[str, list[float | None]]


def draw(predictor: Predictor, data: Dataset, batch_size: int) -> Atlas | None:
    """Mean alignment and affinity of every pair of categories with rows of their own, in one row; None where no test user has both views.

    The affinity of categories that meet in no user is None.
    """
    rows = data.rows_of("test")[:_MOST_USERS]
    alignment_GK = predictor.mean_alignment_GK(data.histories, query_time=data.cut, rows=rows, batch_size=batch_size)
    if alignment_GK is None:
        return None
    known = slice(FIRST_KNOWN, None)
    both = rows[(data.histories.macro.lengths[rows] > 0) & (data.histories.micro.lengths[rows] > 0)]
    macro_BG = _root_shares(data.histories.macro, both, alignment_GK.shape[0])
    micro_BK = _root_shares(data.histories.micro, both, alignment_GK.shape[1])
    root_shares = (macro_BG.T @ micro_BK / len(both))[known, known].ravel()
    alignment = alignment_GK[known, known].ravel()
    affinity = [float(value / met) if met > 0 else None for value, met in zip(alignment, root_shares, strict=True)]
    return {"alignment": [float(value) for value in alignment], "affinity": affinity}


def stability(atlases: Sequence[Atlas]) -> list[dict[str, Any]]:
    """Spearman's correlation of every two atlases, by part: ``part, pairs, mean, lowest``.

    A part that gives no correlation is left out: of fewer than two atlases, of one pair of categories, of equal values.
    """
    found: list[dict[str, Any]] = []
    for part in PARTS:
        said = [_spearman(one[part], other[part]) for one, other in combinations(atlases, 2)]
        correlations = [value for value in said if value is not None]
        if not correlations:
            continue
        found.append({"part": part, "pairs": len(correlations), "mean": float(np.mean(correlations)), "lowest": min(correlations)})
    return found


def _spearman(one: Sequence[float | None], other: Sequence[float | None]) -> float | None:
    pairs = [(first, second) for first, second in zip(one, other, strict=True) if first is not None and second is not None]
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)


def _root_shares(view: ViewHistories, rows: NDArray[np.int64], num_categories: int) -> NDArray[np.float64]:
    """Square root of the share that each of the first categories has of the events [B, C], as many as the network counts."""
    shares_BC = np.zeros((len(rows), num_categories))
    for place, row in enumerate(rows):
        stop = view.offsets[row + 1]
        events = view.categories[max(view.offsets[row], stop - MAX_COUNTED) : stop]
        shares_BC[place] = np.bincount(events, minlength=num_categories)[:num_categories] / len(events)
    return np.sqrt(shares_BC)
