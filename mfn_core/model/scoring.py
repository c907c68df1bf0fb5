"""The scores of all items at P positions, written down without being computed: loss and ranking go through them block by block."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ItemScores:
    """s_pj = q_p . E_j + b_j, plus g_pm where item j is the m-th successor at position p. N items, PAD and UNKNOWN included."""

    query_PD: Tensor
    weight_ND: Tensor
    bias_N: Tensor
    successors_PM: Tensor  # int64, the same item several times where several have led to it
    gains_PM: Tensor  # 0 where the successor is PAD

    def at(self, positions: Tensor | slice) -> "ItemScores":
        """The scores at some of the positions."""
        return ItemScores(self.query_PD[positions], self.weight_ND, self.bias_N, self.successors_PM[positions], self.gains_PM[positions])

    def without(self, first: int) -> "ItemScores":
        """The scores of the items from ``first`` on; what is gained by an earlier one is lost."""
        gains_PM = self.gains_PM * (self.successors_PM >= first)
        return ItemScores(self.query_PD, self.weight_ND[first:], self.bias_N[first:], (self.successors_PM - first).clamp(min=0), gains_PM)
