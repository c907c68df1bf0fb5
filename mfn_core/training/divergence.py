"""Losses and weights that are no longer finite: training ends there, and says where that was and what to lower."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mfn_core.config import TrainingConfig
from mfn_core.errors import PermanentError
from mfn_core.model.losses import LOSS_NAMES


class FiniteCheck:
    """Looks for what is infinite or no number in one epoch.

    Args:
        config: the rate and the clipping that a message names.
        epoch: from 1.
        num_steps: of the epoch.
    """

    def __init__(self, config: TrainingConfig, epoch: int, num_steps: int) -> None:
        self._config, self._epoch, self._num_steps = config, epoch, num_steps

    def losses(self, losses_SN: NDArray[np.float64], steps_before: int) -> None:
        """Look at S steps' losses, in the order of their names.

        Raises:
            PermanentError: a loss is infinite or no number.
        """
        broken = np.flatnonzero(~np.isfinite(losses_SN).all(axis=1))
        if len(broken):
            values = ", ".join(f"{name}={value:.6g}" for name, value in zip(LOSS_NAMES, losses_SN[broken[0]], strict=True))
            raise self._error(steps_before + int(broken[0]) + 1, values)

    def weights(self, network: nn.Module, step: int) -> None:
        """Look at the weights after a step, whose loss is of the weights before it: what the last step broke shows in the weights alone.

        Raises:
            PermanentError: a weight is infinite or no number.
        """
        largest = {name: torch.linalg.vector_norm(weights.detach(), torch.inf) for name, weights in network.named_parameters()}
        are_finite = torch.stack(list(largest.values())).isfinite().tolist()  # together: each look makes the host wait for the device
        broken = [name for name, is_finite in zip(largest, are_finite, strict=True) if not is_finite]
        if broken:
            raise self._error(step, f"{len(broken)} of {len(largest)} weights are not finite, {broken[0]} among them")

    def _error(self, step: int, what: str) -> PermanentError:
        return PermanentError(
            f"training diverged in epoch {self._epoch}, step {step} of {self._num_steps}: {what}; "
            f"learning_rate={self._config.learning_rate:g} and gradient_clip={self._config.gradient_clip:g}: "
            f"lower one of them, or set precision=float32"
        )
