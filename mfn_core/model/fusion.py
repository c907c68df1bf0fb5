"""Gating: one user representation out of the two views and their alignment."""

import torch
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """u = sum over (u_g, m, u_l) of softmax3(W [u_g; m; u_l]) * (.), a softmax per dimension.

    An absent view gets no weight, nor does m, which needs both. Departs from the source, which has no absent views: in its
    place a learned vector is added, so that u tells a silent user from an unknown one, and is defined for a user
    without any event.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(3 * width, 3 * width)
        self.absent_macro_D = nn.Parameter(torch.zeros(width))
        self.absent_micro_D = nn.Parameter(torch.zeros(width))

    def forward(
        self, macro_BD: Tensor, alignment_BD: Tensor, micro_BD: Tensor, has_macro_B: Tensor, has_micro_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """User representations [B, D] and the weights [B, 3, D] of macro, alignment and micro.

        Weights sum to 1 over the three where a view is present and are all 0 where none is.
        """
        sources_B3D = torch.stack([macro_BD, alignment_BD, micro_BD], 1).float()
        present_B31 = torch.stack([has_macro_B, has_macro_B & has_micro_B, has_micro_B], 1)[:, :, None]
        logits_B3D = self.gate(sources_B3D.flatten(1)).float().view_as(sources_B3D)
        masked_B3D = logits_B3D.masked_fill(~present_B31, torch.finfo(torch.float32).min)
        weights_B3D = masked_B3D.softmax(1) * present_B31
        absent_BD = self.absent_macro_D * ~has_macro_B[:, None] + self.absent_micro_D * ~has_micro_B[:, None]
        return (weights_B3D * sources_B3D).sum(1) + absent_BD, weights_B3D
