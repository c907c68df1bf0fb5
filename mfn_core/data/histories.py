"""The histories of many users, ragged and encoded: what training, evaluation and scoring all read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_core.schema import PAD


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

    def padded_ids(self, rows: NDArray[np.int64], *, dropped: int) -> NDArray[np.int64]:
        """All ids that users have met but for the last ``dropped`` events, right-padded with PAD: not cut to any window."""
        starts_B = self.offsets[rows]
        lengths_B = np.maximum(self.offsets[rows + 1] - dropped - starts_B, 0)
        columns_L = np.arange(max(int(lengths_B.max(initial=0)), 1))
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
