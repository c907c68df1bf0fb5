"""The histories of many users, ragged and encoded: what training, evaluation and scoring all read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ViewHistories:
    """One view's events of U users, end to end, oldest first within a user.

    User ``u`` owns ``[offsets[u], offsets[u + 1])`` of the other arrays.
    """

    offsets: NDArray[np.int64]  # [U + 1]
    ids: NDArray[np.int32]  # internal ids, PAD never, UNKNOWN where the vocabulary lacks the external id
    categories: NDArray[np.int32]
    times: NDArray[np.int64]  # seconds UTC


@dataclass(frozen=True)
class Histories:
    """Both views of U users, in the order of ``user_ids``."""

    user_ids: NDArray[np.object_]  # [U] external ids
    macro: ViewHistories
    micro: ViewHistories
    macro_before: NDArray[np.int32]  # per micro event: the user's macro events strictly before it

    def __len__(self) -> int:
        return len(self.user_ids)
