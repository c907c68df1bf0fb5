"""The trivial rival of each downstream task: what a model must beat to be worth anything."""

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.histories import ViewHistories
from mfn_core.schema import FIRST_KNOWN, UNKNOWN

_EVENTS_AT_ONCE = 2**20  # what users have met is looked at in some 60 MB, or what one user of more events takes


def base_rate(labels_B: NDArray[np.integer]) -> float:
    """Share of active users among the labelled ones (label 0 or 1; -1 is unlabelled); 0.5 where nobody is labelled."""
    labelled = labels_B[labels_B >= 0]
    return float(labelled.mean()) if len(labelled) else 0.5


def class_shares(classes_B: NDArray[np.integer], num_classes: int) -> NDArray[np.float64]:
    """Share of each class among the labelled users (-1 is unlabelled); equal shares where nobody is labelled."""
    counts = np.bincount(classes_B[classes_B >= 0], minlength=num_classes).astype(np.float64)
    return counts / counts.sum() if counts.sum() else np.full(num_classes, 1 / num_classes)


def popularity_ranks(
    micro: ViewHistories, rows: NDArray[np.int64], counts: NDArray[np.int64], *, dropped: int, mask_seen: bool
) -> NDArray[np.float32]:
    """Rank of each row's target when items are ranked by training popularity alone: 0 is first, ties at mid-rank.

    The target is the first of the row's last ``dropped`` events. Items met before it are left out if ``mask_seen``, the target
    never. A target outside the vocabulary stands behind every item.

    Args:
        micro: item histories.
        rows: users with more than ``dropped`` events.
        counts: training events per internal id.
        dropped: events at the end that are no input; 1 for the test target, 2 for the validation target.
        mask_seen: as in the ranking of the model.
    """
    known_counts = np.sort(counts[FIRST_KNOWN:])
    target_B = micro.ids[micro.offsets[rows + 1] - dropped].astype(np.int64)
    popularity_B = counts[target_B]
    above_B = len(known_counts) - np.searchsorted(known_counts, popularity_B, side="right")
    tied_B = np.searchsorted(known_counts, popularity_B, side="right") - np.searchsorted(known_counts, popularity_B, side="left") - 1
    if mask_seen:
        for part in _parts(micro.lengths[rows]):
            owner, seen = _seen_pairs(micro, rows[part], target_B[part], dropped)
            popularity = popularity_B[part][owner]
            above_B[part] -= np.bincount(owner[counts[seen] > popularity], minlength=len(part))
            tied_B[part] -= np.bincount(owner[counts[seen] == popularity], minlength=len(part))
    return np.where(target_B > UNKNOWN, above_B + tied_B / 2, len(counts)).astype(np.float32)


def _parts(lengths_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions of adjacent users, with ``_EVENTS_AT_ONCE`` events together and at most one user's history more."""
    ends_B = np.cumsum(lengths_B)
    return np.split(np.arange(len(ends_B)), np.flatnonzero(np.diff(ends_B // _EVENTS_AT_ONCE)) + 1)


def _seen_pairs(
    micro: ViewHistories, rows: NDArray[np.int64], target_B: NDArray[np.int64], dropped: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct (position in ``rows``, item) of the known items met before the target, the target left out."""
    owner, items = micro.met(rows, dropped=dropped)
    rival = (items > UNKNOWN) & (items != target_B[owner])
    stride = int(items.max(initial=0)) + 1
    pairs = np.unique(owner[rival] * stride + items[rival])
    return pairs // stride, pairs % stride
