"""How well two categories go together, learned from who has them both.

Whether an app history and an item history are of the same user is told by M_u alone: maximizing that information (InfoNCE, van den Oord
et al. 2018, as the source does between u_g and u_l) teaches the affinity which categories correspond. The encoders are not asked:
the source's term pulls the two views of a user together, and their disagreement may be what a label is about.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.model.alignment import CategorySummary, root_share

_INITIAL_SCALE = 5.0


class CategoryAffinity(nn.Module):
    """C = tanh(T_g W_b T_l^T / sqrt(D)) * p_g p_l^T, of categories pooled from embeddings as in the source's figure."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight_DD = nn.Parameter(torch.eye(width) / width**0.5)
        self.scale = nn.Parameter(torch.tensor(_INITIAL_SCALE))  # of InfoNCE: the inverse of a temperature

    def forward(self, macro: CategorySummary, micro: CategorySummary) -> Tensor:
        """C [B, G, K]; zero at absent categories."""
        present_BGK = macro.presence_BC[:, :, None] * micro.presence_BC[:, None, :]
        return torch.tanh(macro.states_BCD @ self.weight_DD @ micro.states_BCD.mT / self.weight_DD.shape[0] ** 0.5) * present_BGK

    def information_loss(self, macro: CategorySummary, micro: CategorySummary, group_size: int) -> Tensor:
        """InfoNCE within groups of users, both ways: each macro view finds its micro view by the sum of M_u.

        Users are taken in order, ``group_size`` at a time; what is left over takes no part. No user may occur twice in a group.
        """
        num_groups = len(macro.counts_BC) // group_size
        assert num_groups, f"{len(macro.counts_BC)} users are no group of {group_size}"

        def grouped(tensor: Tensor) -> Tensor:
            return tensor[: num_groups * group_size].unflatten(0, (num_groups, group_size))

        projected = grouped(macro.states_BCD) @ self.weight_DD
        products = torch.einsum("nagd,nbkd->nabgk", projected, grouped(micro.states_BCD)) / self.weight_DD.shape[0] ** 0.5
        macro_share, micro_share = grouped(root_share(macro.counts_BC)), grouped(root_share(micro.counts_BC))
        matched = torch.einsum("nabgk,nag,nbk->nab", torch.tanh(products), macro_share, micro_share)
        own = torch.arange(group_size, device=matched.device).repeat(num_groups)
        logits = self.scale * matched
        return (functional.cross_entropy(logits.flatten(0, 1), own) + functional.cross_entropy(logits.mT.flatten(0, 1), own)) / 2
