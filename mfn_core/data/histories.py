"""The histories of many users, ragged and encoded: what training, evaluation and scoring all read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_core.schema import PAD, UNKNOWN

# Places, 4 MB: 128 users of up to 4,096 events, who are padded in a fraction of the time that it takes to look for distinct ids. A bot or a
# guest account may have millions of events, and the 127 beside it would be padded to as many.
_MOST_PADDED = 2**19


@dataclass(frozen=True)
class ViewHistories:
    """One view's events of U users, end to end, oldest first within a user.

    User ``u`` owns ``[offsets[u], offsets[u + 1])`` of the other arrays.
    """

    offsets: NDArray[np.int64]  # [U + 1]
    ids: NDArray[np.int32]  # internal ids, PAD never, UNKNOWN where the vocabulary lacks the external id
    categories: NDArray[np.int32]
    times: NDArray[np.int64]  # seconds UTC

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per user."""
        return np.diff(self.offsets)

    def is_training(self, held_out_B: NDArray[np.int8], start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Per event of ``[start, stop)``, by default of all: whether it is none of the last ``held_out_B`` of its user."""
        stop = len(self.ids) if stop is None else stop
        first, last = np.searchsorted(self.offsets, start, side="right") - 1, np.searchsorted(self.offsets, stop)
        ends = self.offsets[first + 1 : last + 1] - held_out_B[first:last]
        return np.arange(start, stop) < np.repeat(ends, np.diff(self.offsets[first : last + 1].clip(start, stop)))

    def met(self, rows: NDArray[np.int64], *, dropped: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Position in ``rows``, and id, of all events of users but for the last ``dropped``, oldest first within a user."""
        starts_B = self.offsets[rows]
        lengths_B = np.maximum(self.offsets[rows + 1] - dropped - starts_B, 0)
        owner = np.repeat(np.arange(len(rows)), lengths_B)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths_B) - lengths_B, lengths_B)
        return owner, self.ids[np.repeat(starts_B, lengths_B) + within].astype(np.int64)

    def is_returning(self, rows: NDArray[np.int64], *, dropped: int) -> NDArray[np.bool_]:
        """Per user, whether the first of the last ``dropped`` events is of an item met before it; of an UNKNOWN item nobody can tell."""
        owner, met = self.met(rows, dropped=dropped)
        target_B = self.ids[self.offsets[rows + 1] - dropped]
        is_returning_B = np.zeros(len(rows), np.bool_)
        is_returning_B[owner[met == target_B[owner]]] = True
        return is_returning_B & (target_B > UNKNOWN)

    def padded_ids(self, rows: NDArray[np.int64], *, dropped: int) -> NDArray[np.int64]:
        """All ids that users have met but for the last ``dropped`` events, right-padded with PAD: not cut to any window.

        Who asks wants to know which. An id comes as often as it was met, or, where a long history would have the others padded beyond
        bounds, once: there are no more columns than distinct ids.
        """
        starts_B = self.offsets[rows]
        lengths_B = np.maximum(self.offsets[rows + 1] - dropped - starts_B, 0)
        longest = max(int(lengths_B.max(initial=0)), 1)
        if len(rows) * longest > _MOST_PADDED:
            return _padded([np.unique(self.ids[start : start + length]) for start, length in zip(starts_B, lengths_B, strict=True)])
        columns_L = np.arange(longest)
        mask_BL = columns_L < lengths_B[:, None]
        padded_BL = np.full(mask_BL.shape, PAD, np.int64)
        padded_BL[mask_BL] = self.ids[(starts_B[:, None] + columns_L)[mask_BL]]
        return padded_BL


@dataclass(frozen=True)
class Histories:
    """Both views of U users, in the order of ``user_ids``."""

    user_ids: NDArray[np.object_]  # [U] external ids
    macro: ViewHistories
    micro: ViewHistories
    macro_before: NDArray[np.int32]  # per micro event: the user's macro events strictly before it

    def __len__(self) -> int:
        return len(self.user_ids)


def _padded(ids: list[NDArray[np.int32]]) -> NDArray[np.int64]:
    padded_BL = np.full((len(ids), max(map(len, ids))), PAD, np.int64)
    for row, ids_L in enumerate(ids):
        padded_BL[row, : len(ids_L)] = ids_L
    return padded_BL
