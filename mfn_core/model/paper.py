"""The structure of the source's figure (Bian et al., WWW 2021): ``preset=paper``.

One gate fuses both views and their alignment into one representation, from which activity and attributes are read. The next item is
asked of the hidden states (``heads.NextItemQuery``), and all three tasks train the encoders together, where the published scripts
pretrain, then fine-tune. Other departures it shares with the default network: rotary positions, the gap to the event before, masks of
absent categories, M_u scaled by root shares, one row for rare categories, filters as wide as M_u. Its own: it pools hidden states where
the figure pools embeddings, adds the attended states to m, and knows an absent view by a learned vector. The default network,
``network.py``, differs where this one lost; docs/model.md says why and by how much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_core.data.batch import Batch
from mfn_core.data.histories import Histories
from mfn_core.model.alignment import CategoryAlignment
from mfn_core.model.encoder import ViewEncoder, flat_events
from mfn_core.model.fusion import GatedFusion
from mfn_core.model.heads import ClassificationHead, NextItemQuery
from mfn_core.model.outputs import Encoded, Outputs, encode, encode_users
from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains


@dataclass(frozen=True)
class PaperOutputs(Outputs):
    """With the weights that are the source's own."""

    macro_attention_BG: Tensor  # a_g
    micro_attention_BK: Tensor  # a_l
    gate_B3D: Tensor  # weights of u_g, m and u_l


class PaperNetwork(nn.Module):
    """Two views, their alignment by category, a gate, and three downstream tasks.

    The encoders are of one width. Vocabulary sizes include PAD and UNKNOWN; a view that a data set lacks has size 2. Categories beyond
    the first ``num_macro_rows`` and ``num_micro_rows`` have an embedding, but are one, UNKNOWN, to what is read by category. The forward
    pass never waits for the device: no value is read back, no shape depends on one.
    """

    preset: ClassVar[Literal["paper"]] = "paper"
    unchanged_names: ClassVar[frozenset[str]] = frozenset()  # an epoch may change every parameter

    def __init__(
        self,
        *,
        macro: ViewEncoder,
        micro: ViewEncoder,
        num_macro_rows: int,
        num_micro_rows: int,
        attribute_sizes: Sequence[int],
        dropout: float,
        num_alignment_filters: int,
    ) -> None:
        super().__init__()
        self.user_width = width = macro.width
        self.macro, self.micro = macro, micro
        self.alignment = CategoryAlignment(
            num_macro_categories=num_macro_rows,
            num_micro_categories=num_micro_rows,
            width=width,
            num_filters=num_alignment_filters,
        )
        self.fusion = GatedFusion(width)
        self.next_item = NextItemQuery(width)
        self.activity = ClassificationHead(width=width, num_logits=1, dropout=dropout)
        self.attributes = nn.ModuleList(ClassificationHead(width=width, num_logits=size, dropout=dropout) for size in attribute_sizes)

    def forward(self, batch: Batch) -> PaperOutputs:
        """Represents B users; see ``next_item_scores`` for the recommendation task."""
        encoded = self.encode(batch)
        alignment = self.alignment(encoded.macro_hidden_BLD, batch.macro_categories_BL, encoded.micro_hidden_BLD, batch.micro_categories_BL)
        user_BD, gate_B3D = self.fusion(
            encoded.user_macro_BD, alignment.vector_BD, encoded.user_micro_BD, batch.macro_lengths_B > 0, batch.micro_lengths_B > 0
        )
        return PaperOutputs(
            encoded=encoded,
            alignment_BGK=alignment.matrix_BGK,
            macro_attention_BG=alignment.macro_attention_BG,
            micro_attention_BK=alignment.micro_attention_BK,
            gate_B3D=gate_B3D,
            user_BD=user_BD,
            activity_logits_B=self.activity(user_BD).squeeze(1),
            attribute_logits=[head(user_BD) for head in self.attributes],
        )

    def settled(self) -> Callable[[Batch], Outputs]:
        """The forward pass in evaluation, for answers."""
        return self

    def encode(self, batch: Batch) -> Encoded:
        """Both views; what the next item is scored from."""
        return encode(self.macro, self.micro, batch)

    def count(self, histories: Histories, held_out_B: NDArray[np.int8], *, may_return: bool) -> None:
        """Nothing is counted: all that this network knows is learned."""

    def next_item_scores(self, encoded: Encoded, batch: Batch, positions_P: Tensor | None) -> ItemScores:
        """Scores of the item that follows each of the flat micro positions, None: of all."""
        query_BLD = self.next_item(encoded.micro_hidden_BLD, encoded.macro_hidden_BLD, batch.asof_BL)
        return self._scores(flat_events(query_BLD, positions_P))

    def last_item_scores(self, encoded: Encoded, batch: Batch) -> ItemScores:
        """Scores of the item that follows the whole micro history.

        An empty micro history leaves the macro term alone, without either the query is LayerNorm's bias: what suits everybody.
        Its ``asof_BL[:, 0]`` is the last app event before the query time.
        """
        asof_B1 = batch.asof_BL.gather(1, (batch.micro_lengths_B - 1).clamp(min=0)[:, None])
        return self._scores(self.next_item(encoded.user_micro_BD[:, None, :], encoded.macro_hidden_BLD, asof_B1).squeeze(1))

    def ranking_scores(self, batch: Batch) -> ItemScores:
        """``last_item_scores`` of a batch whose app events all precede the target, as those of a ranking do; in evaluation."""
        return self.blend(*self.unblended_ranking_scores(batch))

    def unblended_ranking_scores(self, batch: Batch) -> tuple[ItemScores, tuple[Gains, ...]]:
        """The same, and no gains."""
        user_macro_BD, user_micro_BD = encode_users(self.macro, self.micro, batch)
        return self._scores(self.next_item.joined(user_micro_BD, user_macro_BD)), ()

    def blend(self, own: ItemScores, gains: tuple[Gains, ...]) -> ItemScores:
        """The network's own scores: it has no gains."""
        return own

    def _scores(self, query_PD: Tensor) -> ItemScores:
        # Tied: items are scored with the embeddings they are read with.
        weight_ND = self.micro.embedding.ids.weight
        return ItemScores.plain(query_PD, weight_ND, weight_ND.new_zeros(len(weight_ND)))
