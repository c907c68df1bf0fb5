"""One view's encoder: a causal Transformer over the user's events."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.model.dropout import ByteDropout
from mfn_core.model.embedding import EventEmbedding
from mfn_core.model.rotary import RotaryPosition

_FEED_FORWARD_FACTOR = 4


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention of every event to itself and to earlier ones; tensors [B, heads, L, head width].

    Histories are right-padded, so no valid event is later than any padding: causality alone keeps padding out. In the type of the
    values, on a CPU in float32.
    """
    if queries.device.type != "cpu":
        return functional.scaled_dot_product_attention(queries.to(values.dtype), keys.to(values.dtype), values, is_causal=True)
    # On a CPU the fused kernel runs several times slower in bfloat16 than in float32.
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(queries.float(), keys.float(), values.float(), is_causal=True)


class SelfAttention(nn.Module):
    """Causal multi-head self-attention.

    Without dropout on the attention weights: drawing B x heads x L x L random numbers costs more than the attention
    itself, and the layer drops out the output anyway.
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        assert width % num_heads == 0, f"{num_heads} heads do not divide width {width}"
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, states_BLD: Tensor, position: RotaryPosition) -> Tensor:
        """New states [B, L, D]."""
        projected = self.queries_keys_values(states_BLD).unflatten(2, (3, self.num_heads, -1))
        queries, keys = position(projected[:, :, :2]).permute(2, 0, 3, 1, 4)
        values = projected[:, :, 2].transpose(1, 2)
        return self.output(causal_attention(queries, keys, values).transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Pre-norm layer: attention, then a feed-forward network of four times the width, each behind a residual."""

    def __init__(self, *, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width=width, num_heads=num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, _FEED_FORWARD_FACTOR * width), nn.GELU(), nn.Linear(_FEED_FORWARD_FACTOR * width, width)
        )
        self.dropout = ByteDropout(dropout)

    def forward(self, states_BLD: Tensor, position: RotaryPosition) -> Tensor:
        """New states [B, L, D]."""
        states_BLD = states_BLD + self.dropout(self.attention(self.attention_norm(states_BLD), position))
        return states_BLD + self.dropout(self.feed_forward(self.feed_forward_norm(states_BLD)))


class ViewEncoder(nn.Module):
    """Embedding layer and Transformer of one view (the source's u_g and u_l)."""

    def __init__(
        self, *, num_ids: int, num_categories: int, width: int, num_layers: int, num_heads: int, dropout: float, max_length: int
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.position = RotaryPosition(head_width=width // num_heads, max_length=max_length)
        self.embedding = EventEmbedding(num_ids=num_ids, num_categories=num_categories, width=width, dropout=dropout)
        self.layers = nn.ModuleList(TransformerLayer(width=width, num_heads=num_heads, dropout=dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes right-padded histories.

        Returns:
            Hidden states [B, L, D], each a function of its event and the earlier ones, and the view's
            representation [B, D]: the state of the latest event, zero where the history is empty.
        """
        num_events = ids_BL.shape[1]
        assert num_events <= self.max_length, f"{num_events} events exceed the limit of {self.max_length}: truncate in the batch"
        hidden_BLD = self.embedding(ids_BL, categories_BL, times_BL)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD, self.position)
        hidden_BLD = self.norm(hidden_BLD)
        latest_BD = gather_events(hidden_BLD, (lengths_B - 1).clamp(min=0)[:, None]).squeeze(1)
        return hidden_BLD, latest_BD * (lengths_B > 0)[:, None]


def gather_events(states_BLD: Tensor, positions_BP: Tensor) -> Tensor:
    """States [B, P, D] of each user at the given positions."""
    return states_BLD.gather(1, positions_BP[:, :, None].expand(-1, -1, states_BLD.shape[2]))
