"""What a step does once the loss is known: gradients, clipping, Adam."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mfn_core.config import TrainingConfig
from mfn_core.training.averaging import WeightAverage
from mfn_core.training.ranks import ALONE, Ranks


class Adam:
    """Adam with decoupled weight decay on a network, a moving average of whose weights is kept up to date.

    Tables with sparse gradients are updated by the row: a row that no event or negative of the step names stands still, where dense Adam
    would carry it on for a while by its momentum (``torch.optim.SparseAdam``).

    Args:
        network: on its device.
        config: rate, decay and clipping.
        average: of this network and these tables.
        tables: parameters whose gradients are sparse; none where several processes train together.
        ranks: the processes that train together.
    """

    def __init__(
        self, network: nn.Module, config: TrainingConfig, average: WeightAverage, tables: Sequence[Tensor] = (), ranks: Ranks = ALONE
    ) -> None:
        assert ranks.is_alone or not tables, "gradients are summed densely over processes"
        by_row = {id(table) for table in tables}
        self._ranks = ranks
        self._clip, self._average, self._tables = config.gradient_clip, average, list(tables)
        self._dense = [parameter for parameter in network.parameters() if id(parameter) not in by_row]
        self._is_capturable = self._dense[0].is_cuda
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "dense": torch.optim.AdamW(
                self._dense, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True, capturable=self._is_capturable
            )
        }
        if tables:
            assert config.weight_decay == 0, "rows that stand still do not decay"
            self._optimizers["rows"] = torch.optim.SparseAdam(self._tables, lr=config.learning_rate)

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of the loss, summed over all processes; the average is yet to be updated. Never waits for a GPU."""
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for table in self._tables:
            assert table.grad is not None
            table.grad = table.grad.coalesce()
        self._ranks.sum_gradients(self._dense)
        self._clip_gradients()
        self._average.catch_up()
        for optimizer in self._optimizers.values():
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` takes back: that of AdamW where no table is updated by the row."""
        states = {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}
        return states if self._tables else states["dense"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, be it of another kind of device."""
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name] if self._tables else state)
        for group in self._optimizers["dense"].param_groups:
            group["capturable"] = self._is_capturable  # not what the device of the saved state needed

    def _clip_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self._dense if parameter.grad is not None]
        rows = [table.grad.values() for table in self._tables if table.grad is not None]
        norm = nn.utils.get_total_norm([*gradients, *rows])
        nn.utils.clip_grads_with_norm_(self._dense, self._clip, norm)
        for values in rows:
            values.mul_((self._clip / (norm + 1e-6)).clamp(max=1.0))
