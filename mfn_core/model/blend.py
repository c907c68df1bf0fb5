"""The score of the next item: what the network says, sharpened or blunted, and what counts add.

    s_j = sharpness (q . E_j + b_j) + pi log P(j) + sum_k alpha_k g_jk     k: direct successors, product, mixture (``transitions.py``)

A log-linear pool (Genest & Zidek 1986) of experts that learned apart. Were the tables in the score that the network trains on, they would
answer for it early, and the network would learn less (docs/experiments.md); so the shares are fitted after each epoch, on held-out events
(``training/blending.py``). With a sharpness of 0, pi = 1 and alpha = (0, 0, 1) the score is the logarithm of P(j) + sum_k P(j | i_k) / k, a
bigram that may skip, smoothed by popularity: what simple rules of counts know is a special case.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains


class ItemBlend(nn.Module):
    """Shares of the network, of popularity and of each source of gains: buffers, since no gradient of the training loss may reach them."""

    def __init__(self, num_items: int, first_shares: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("sharpness", torch.ones(()))
        self.register_buffer("popularity_share", torch.zeros(()))
        self.register_buffer("shares_K", torch.tensor(first_shares))
        self.register_buffer("log_popularity_N", torch.zeros(num_items))
        self.register_buffer("first_shares_K", torch.tensor(first_shares), persistent=False)
        self.sharpness: Tensor
        self.popularity_share: Tensor
        self.shares_K: Tensor
        self.log_popularity_N: Tensor
        self.first_shares_K: Tensor

    def forward(self, own: ItemScores, gains: Sequence[Gains]) -> ItemScores:
        """The blended scores of B users from the network's own and the gains of K sources, in float32."""
        return ItemScores(
            self.sharpness * own.query_PD.float(),
            own.weight_ND,
            self.sharpness * own.bias_N + self.popularity_share * self.log_popularity_N,
            torch.cat([source.items_BM for source in gains], 1),
            weighted(self.shares_K, gains),
        )


def weighted(shares_K: Tensor, gains: Sequence[Gains]) -> Tensor:
    """The gains of all sources side by side, each times its share."""
    return torch.cat([share * source.gains_BM for share, source in zip(shares_K, gains, strict=True)], 1)
