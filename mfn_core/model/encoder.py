"""One view's encoder: a causal Transformer over the user's events."""

import torch
from torch import Tensor, nn

from mfn_core.model.attention import PairwiseAttention, SelfAttention, gather_event
from mfn_core.model.dropout import ByteDropout
from mfn_core.model.embedding import EventEmbedding
from mfn_core.model.rotary import RotaryPosition
from mfn_core.model.rounded import pass_rounded


class TransformerLayer(nn.Module):
    """Pre-norm layer: attention, then a feed-forward network of so many times the width, each behind a residual."""

    def __init__(self, *, width: int, num_heads: int, feed_forward_factor: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width=width, num_heads=num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        hidden_width = feed_forward_factor * width
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden_width), nn.GELU(), nn.Linear(hidden_width, width))
        self.dropout = ByteDropout(dropout)

    def forward(self, states_BLD: Tensor, position: RotaryPosition) -> Tensor:
        """New states [B, L, D]."""
        states_BLD = self.dropout.added(states_BLD, self.attention(self.attention_norm(states_BLD), position))
        return self.dropout.added(states_BLD, self.fed_forward(states_BLD))

    def of_event(self, states_BLD: Tensor, event_B: Tensor, position: RotaryPosition) -> Tensor:
        """The new state [B, D] of one event of each user, in evaluation."""
        assert not self.training, "nothing is dropped out here"
        state_BD = gather_event(states_BLD, event_B) + self.attention.of_event(self.attention_norm(states_BLD), event_B, position)
        return state_BD + self.fed_forward(state_BD)

    def fed_forward(self, states: Tensor) -> Tensor:
        """What the feed-forward network adds to the states [..., D]."""
        if torch.is_grad_enabled():
            return self.feed_forward(self.feed_forward_norm(states))
        widen, _, narrow = self.feed_forward
        hidden = widen(self.feed_forward_norm(states))
        # In place: the hidden layer is by far the largest tensor, and no gradient asks for what it was.
        return narrow(torch.ops.aten.gelu_(hidden))


class ViewEncoder(nn.Module):
    """Embedding layer and Transformer of one view (the source's u_g and u_l)."""

    def __init__(
        self,
        *,
        num_ids: int,
        num_categories: int,
        width: int,
        num_layers: int,
        num_heads: int,
        feed_forward_factor: int,
        dropout: float,
        max_length: int,
    ) -> None:
        super().__init__()
        self.num_ids, self.width, self.max_length = num_ids, width, max_length
        self.position = RotaryPosition(head_width=width // num_heads, max_length=max_length)
        self.embedding = EventEmbedding(num_ids=num_ids, num_categories=num_categories, width=width, dropout=dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(width=width, num_heads=num_heads, feed_forward_factor=feed_forward_factor, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes right-padded histories.

        Returns:
            Hidden states [B, L, D], each a function of its event and the earlier ones, and the view's
            representation [B, D]: the state of the latest event, zero where the history is empty.
        """
        return self.read(self._encoded(self.embedded(ids_BL, categories_BL, times_BL)), lengths_B)

    def read(self, states_BLD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` returns, from the states behind the last layer."""
        hidden_BLD = self.norm(states_BLD)
        latest_BD = gather_event(hidden_BLD, (lengths_B - 1).clamp(min=0))
        return hidden_BLD, latest_BD * (lengths_B > 0)[:, None]

    def latest(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """The view's representation [B, D] alone, in evaluation: the last layer is spared the events before the latest.

        A view that nobody has events of, as where the logs are of one view alone, costs nothing.
        """
        if not lengths_B.any():
            return self.norm.weight.new_zeros(len(lengths_B), len(self.norm.weight))
        *layers, last_layer = self.layers
        hidden_BLD = self.embedded(ids_BL, categories_BL, times_BL)
        for layer in layers:
            hidden_BLD = layer(hidden_BLD, self.position)
        assert isinstance(last_layer, TransformerLayer)
        latest_BD = last_layer.of_event(hidden_BLD, (lengths_B - 1).clamp(min=0), self.position)
        return self.norm(latest_BD) * (lengths_B > 0)[:, None]

    def _encoded(self, hidden_BLD: Tensor) -> Tensor:
        is_rounded = hidden_BLD.dtype is not self.norm.weight.dtype
        if is_rounded and not hidden_BLD.is_cpu and torch.is_grad_enabled():
            return pass_rounded(self.layers, hidden_BLD, self.position)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD, self.position)
        return hidden_BLD

    def embedded(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor) -> Tensor:
        """The states [B, L, D] before the first layer."""
        num_events = ids_BL.shape[1]
        assert num_events <= self.max_length, f"{num_events} events exceed the limit of {self.max_length}: truncate in the batch"
        hidden_BLD = self.embedding(ids_BL, categories_BL, times_BL)
        # The layers' states in the type of their products: half the memory to pass over, and no copies from type to type.
        return hidden_BLD.to(product_dtype(hidden_BLD))


class SettledEncoder:
    """What a ``ViewEncoder`` gives on a CPU, in evaluation and without gradients, by its projections as they are when this is made.

    To put the projections of each layer into the order of ``PairwiseAttention`` takes as long as a third of a user's attention.
    """

    @torch.no_grad()
    def __init__(self, encoder: ViewEncoder) -> None:
        self._encoder = encoder
        layers = [layer for layer in encoder.layers if isinstance(layer, TransformerLayer)]
        self._layers = [(layer, PairwiseAttention(layer.attention, encoder.position)) for layer in layers]

    def __call__(self, ids_BL: Tensor, categories_BL: Tensor, times_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """What ``ViewEncoder.forward`` returns."""
        hidden_BLD = self._encoder.embedded(ids_BL, categories_BL, times_BL)
        for layer, attend in self._layers:
            hidden_BLD = hidden_BLD + layer.attention.output(attend(layer.attention_norm(hidden_BLD)))
            hidden_BLD = hidden_BLD + layer.fed_forward(hidden_BLD)
        return self._encoder.read(hidden_BLD, lengths_B)


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type that matrix products of the tensor are computed in: autocast's where it is on."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def flat_events(states_BLD: Tensor, positions_P: Tensor | None) -> Tensor:
    """States [P, D] at flat positions; None: at all of them, as they lie.

    ``index_select``, whose gradient is added row by row: that of an index in brackets sorts the positions on a GPU, and on a CPU it
    takes several times as long.
    """
    states_XD = states_BLD.flatten(0, 1)
    return states_XD if positions_P is None else states_XD.index_select(0, positions_P)


def gather_events(states_BLD: Tensor, positions_BP: Tensor) -> Tensor:
    """States [B, P, D] of each user at the given positions."""
    return states_BLD.gather(1, positions_BP[:, :, None].expand(-1, -1, states_BLD.shape[2]))
