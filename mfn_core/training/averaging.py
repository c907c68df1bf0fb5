"""A moving average of the weights: what a falling learning rate gives, without knowing when the run will end."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of a network's parameters (Polyak averaging).

    Args:
        network: its parameters are read at every update.
        decay: of the average; early updates decay faster. 0: the average is the network itself.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._parameters = list(network.parameters())
        self._decay = decay
        self._updates = 0
        self._average = [parameter.detach().clone() for parameter in self._parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        if not self._decay:
            return
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        get_ema_multi_avg_fn(decay)(self._average, [parameter.detach() for parameter in self._parameters], None)

    @contextmanager
    def applied(self) -> Generator[None]:
        """The network has the averaged weights inside, its own again after."""
        own = [parameter.detach().clone() for parameter in self._parameters] if self._decay else []
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(own)

    def state_dict(self) -> dict[str, list[Tensor] | int]:
        """What ``load_state_dict`` takes back."""
        return {"average": self._average, "updates": self._updates}

    def load_state_dict(self, state: dict[str, list[Tensor] | int]) -> None:
        """Go on from a saved state."""
        assert isinstance(state["average"], list)
        assert isinstance(state["updates"], int)
        self._updates = state["updates"]
        for mine, saved in zip(self._average, state["average"], strict=True):
            mine.copy_(saved)

    @torch.no_grad()
    def _copy(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self._parameters, weights, strict=False):
            parameter.copy_(weight)
