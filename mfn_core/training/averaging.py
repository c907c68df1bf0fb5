"""A moving average of the weights: what a falling learning rate gives, without knowing when the run will end."""

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mfn_core.training.rows import RowAverage, touched_rows


class WeightAverage:
    """Exponential moving average of a network's parameters (Polyak averaging).

    Args:
        network: its parameters are read at every update.
        decay: of the average; early updates decay faster. 0: the average is the network itself.
        tables: parameters whose gradients are sparse: an update takes in the rows that their gradients name, which ``catch_up`` must
            have been told of before they changed.
        unchanged: names of parameters that stay as they are from update to update, and so are their own average.
    """

    def __init__(self, network: nn.Module, decay: float, tables: Sequence[Tensor] = (), unchanged: Collection[str] = ()) -> None:
        self._decay = decay
        self._updates = 0
        self._tables = list(tables) if decay else []
        by_row = {id(table) for table in tables}
        changed = [parameter for name, parameter in network.named_parameters() if name not in unchanged]
        self._parameters = [parameter for parameter in changed if decay and id(parameter) not in by_row]
        self._average: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]
        self._row_averages = [RowAverage(table) for table in self._tables]

    def catch_up(self) -> None:
        """Bring the average of the rows that are about to change up to date."""
        for table, average in zip(self._tables, self._row_averages, strict=True):
            average.catch_up(touched_rows(table))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        if not self._decay:
            return
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        get_ema_multi_avg_fn(decay)(self._average, [parameter.detach() for parameter in self._parameters], None)
        for table, average in zip(self._tables, self._row_averages, strict=True):
            average.update(touched_rows(table), decay)

    @contextmanager
    def applied(self) -> Generator[None]:
        """The network has the averaged weights inside, its own again after: they change places, nothing is copied."""
        averages = self._whole()
        parameters = [*self._parameters, *self._tables]
        own = [parameter.data for parameter in parameters]
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.data = average
        try:
            yield
        finally:
            for parameter, weights in zip(parameters, own, strict=True):
                parameter.data = weights

    def state_dict(self) -> dict[str, list[Tensor] | int]:
        """What ``load_state_dict`` takes back."""
        return {"average": self._whole(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, list[Tensor] | int]) -> None:
        """Go on from a saved state."""
        assert isinstance(state["average"], list)
        assert isinstance(state["updates"], int)
        self._updates = state["updates"]
        for mine, saved in zip(self._whole(), state["average"], strict=True):
            mine.copy_(saved)

    def _whole(self) -> list[Tensor]:
        """The averages of all parameters, up to date."""
        for average in self._row_averages:
            average.catch_up()
        return [*self._average, *(average.average_ND for average in self._row_averages)]
