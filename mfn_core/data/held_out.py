"""Which events of a user are held out to measure on. Without torch, whose import takes longer than to build a small dataset."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HELD_OUT_EVENTS = 2  # per user: the last micro event is the test target, the one before the validation target
# Micro events at the end of a history that are no input where a held-out one is ranked; the first of them is the target.
DROPPED: Mapping[Literal["validation", "test"], int] = MappingProxyType({"validation": 2, "test": 1})


def held_out_events(micro_lengths_B: NDArray[np.int64]) -> NDArray[np.int8]:
    """Micro events held out per user: 2, or 0 where that would leave no input."""
    return np.where(micro_lengths_B > HELD_OUT_EVENTS, HELD_OUT_EVENTS, 0).astype(np.int8)
