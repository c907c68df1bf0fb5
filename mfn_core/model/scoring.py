"""The scores of all items at P positions, written down without being computed: loss and ranking go through them block by block."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ItemScores:
    """s_pj = q_p . E_j + b_j, plus g_pm where item j is the m-th that gains at position p. N items, PAD and UNKNOWN included."""

    query_PD: Tensor
    weight_ND: Tensor
    bias_N: Tensor
    gaining_PM: Tensor  # int64, the same item several times where several sources name it
    gains_PM: Tensor  # 0 where the item is PAD

    @classmethod
    def plain(cls, query_PD: Tensor, weight_ND: Tensor, bias_N: Tensor) -> "ItemScores":
        """Scores without gains."""
        no_gains_P0 = query_PD.new_empty(len(query_PD), 0)
        return cls(query_PD, weight_ND, bias_N, no_gains_P0.long(), no_gains_P0)

    def at(self, positions: Tensor | slice) -> "ItemScores":
        """The scores at some of the positions."""
        return ItemScores(self.query_PD[positions], self.weight_ND, self.bias_N, self.gaining_PM[positions], self.gains_PM[positions])
