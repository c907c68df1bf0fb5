"""Tables of which a step touches few rows: their moving average, at the cost of the rows that were touched.

A row that is not touched stands still, so its average nears it by a known factor a step, and n steps can be made up for at once::

    average <- w + (d_1 d_2 ... d_n) (average - w)
"""

import math

import torch
from torch import Tensor


class RowAverage:
    """Exponential moving average of one table's rows.

    Args:
        table: [N, D]; read at every update.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table.detach()
        self.average_ND = self._table.clone()
        self._log_decay = 0.0  # of all updates so far
        self._log_decay_N = torch.zeros(len(table), dtype=torch.float64)  # when the row was last made up for

    @torch.no_grad()
    def catch_up(self, rows: Tensor | None = None) -> None:
        """Make up for the updates in which these rows, each named once, were not touched; before they change. None: all rows."""
        if rows is None:
            factor_N1 = (self._log_decay - self._log_decay_N).exp_().float()[:, None]
            torch.lerp(self._table, self.average_ND, factor_N1, out=self.average_ND)
            self._log_decay = 0.0
            self._log_decay_N.zero_()
            return
        factor_R1 = (self._log_decay - self._log_decay_N[rows]).exp_().float()[:, None]
        self.average_ND[rows] = torch.lerp(self._table[rows], self.average_ND[rows], factor_R1)

    @torch.no_grad()
    def update(self, rows: Tensor, decay: float) -> None:
        """Take in the weights as they are now, after ``catch_up`` of these rows and their change."""
        self._log_decay += math.log(decay)
        self.average_ND[rows] = torch.lerp(self.average_ND[rows], self._table[rows], 1 - decay)
        self._log_decay_N[rows] = self._log_decay


def touched_rows(table: Tensor) -> Tensor:
    """The rows, each once, that a coalesced sparse gradient names."""
    assert table.grad is not None, "no step has touched the table"
    return table.grad.indices().squeeze(0)
