"""What makes the same seed give the same weights: where the generators start, and which kernels may run."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic


def seed_generators(*entropy: int) -> None:
    """Start torch's generators anew, from all of these numbers: the seed of a run, then what the draws to come are for."""
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


@contextmanager
def deterministic(device: torch.device) -> Generator[None]:
    """On a CPU, only kernels that add in a fixed order: ``index_put_`` and its like race otherwise."""
    switches: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), switches.fill_uninitialized_memory
    torch.use_deterministic_algorithms(device.type == "cpu")
    switches.fill_uninitialized_memory = False  # it would write every new tensor twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        switches.fill_uninitialized_memory = before[1]
