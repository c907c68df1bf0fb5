"""The losses of an epoch, summed without a wait for the device at every step."""

import numpy as np
import torch
from torch import Tensor

from mfn_core.model.losses import LOSS_NAMES
from mfn_core.training.divergence import FiniteCheck

_WINDOW = 100  # steps from one look that is due to the next: each makes the host wait for the device


class Tally:
    """Keeps the losses of up to a hundred steps on the device, to be looked at together.

    Args:
        device: where the losses are.
        check: looks at what is summed.
    """

    def __init__(self, device: torch.device, check: FiniteCheck) -> None:
        self.num_steps = 0
        self._check = check
        self._window_SN = torch.zeros(_WINDOW, len(LOSS_NAMES), device=device)
        self._totals_N = np.zeros(len(LOSS_NAMES))
        self._num_read = 0

    @property
    def is_look_due(self) -> bool:
        """Whether the next step must wait for a look: after the same steps in all processes, whatever each has looked at before."""
        return self.num_steps % _WINDOW == 0

    def add(self, losses_N: Tensor) -> None:
        """Take in a step's losses, in the order of their names."""
        self._window_SN[self.num_steps - self._num_read] = losses_N
        self.num_steps += 1

    def look(self) -> None:
        """Sum the losses since the last look.

        Raises:
            PermanentError: a loss is infinite or no number.
        """
        losses_SN = self._window_SN[: self.num_steps - self._num_read].double().cpu().numpy()
        self._check.losses(losses_SN, self._num_read)
        self._totals_N += losses_SN.sum(axis=0)
        self._num_read = self.num_steps

    def means(self) -> dict[str, float]:
        """Over the steps, all of which have been looked at, by name."""
        assert self._num_read == self.num_steps, "look first: the device may hold losses that are not finite"
        return dict(zip(LOSS_NAMES, (self._totals_N / self.num_steps).tolist(), strict=True))
