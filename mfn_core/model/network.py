"""The Macro-Micro Fusion Network (Bian et al., WWW 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mfn_core.data.batch import Batch
from mfn_core.model.alignment import CategoryAlignment
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.fusion import GatedFusion
from mfn_core.model.heads import ClassificationHead, NextItemQuery


@dataclass(frozen=True)
class Outputs:
    """Everything the network says about a batch."""

    macro_hidden_BLD: Tensor
    micro_hidden_BLD: Tensor
    user_macro_BD: Tensor  # u_g, zero where the view is empty
    user_micro_BD: Tensor  # u_l, zero where the view is empty
    alignment_BGK: Tensor  # M_u, rows and columns in vocabulary order
    macro_attention_BG: Tensor  # a_g
    micro_attention_BK: Tensor  # a_l
    gate_B3D: Tensor  # weights of u_g, m and u_l
    user_BD: Tensor  # u
    activity_logits_B: Tensor
    attribute_logits: list[Tensor]  # [B, classes] each, in the order of attribute_sizes


class MacroMicroFusionNetwork(nn.Module):
    """Two views, their alignment by category, a gate, and three downstream tasks.

    Vocabulary sizes include PAD and UNKNOWN; a view that a data set lacks has size 2. The forward pass never waits for
    the device: no value is read back, no shape depends on one.
    """

    def __init__(
        self,
        *,
        num_macro_ids: int,
        num_macro_categories: int,
        num_micro_ids: int,
        num_micro_categories: int,
        attribute_sizes: Sequence[int],
        width: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        max_macro_length: int,
        max_micro_length: int,
        num_alignment_filters: int,
    ) -> None:
        super().__init__()
        self.macro = ViewEncoder(
            num_ids=num_macro_ids,
            num_categories=num_macro_categories,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            max_length=max_macro_length,
        )
        self.micro = ViewEncoder(
            num_ids=num_micro_ids,
            num_categories=num_micro_categories,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            max_length=max_micro_length,
        )
        self.alignment = CategoryAlignment(
            num_macro_categories=num_macro_categories,
            num_micro_categories=num_micro_categories,
            width=width,
            num_filters=num_alignment_filters,
        )
        self.fusion = GatedFusion(width)
        self.next_item = NextItemQuery(width)
        self.activity = ClassificationHead(width=width, num_logits=1, dropout=dropout)
        self.attributes = nn.ModuleList(ClassificationHead(width=width, num_logits=size, dropout=dropout) for size in attribute_sizes)

    def forward(self, batch: Batch) -> Outputs:
        """Represents B users; see ``next_item_queries`` for the recommendation task."""
        macro_hidden_BLD, user_macro_BD = self.macro(
            batch.macro_ids_BL, batch.macro_categories_BL, batch.macro_times_BL, batch.macro_lengths_B
        )
        micro_hidden_BLD, user_micro_BD = self.micro(
            batch.micro_ids_BL, batch.micro_categories_BL, batch.micro_times_BL, batch.micro_lengths_B
        )
        alignment = self.alignment(macro_hidden_BLD, batch.macro_categories_BL, micro_hidden_BLD, batch.micro_categories_BL)
        user_BD, gate_B3D = self.fusion(
            user_macro_BD, alignment.vector_BD, user_micro_BD, batch.macro_lengths_B > 0, batch.micro_lengths_B > 0
        )
        return Outputs(
            macro_hidden_BLD=macro_hidden_BLD,
            micro_hidden_BLD=micro_hidden_BLD,
            user_macro_BD=user_macro_BD,
            user_micro_BD=user_micro_BD,
            alignment_BGK=alignment.matrix_BGK,
            macro_attention_BG=alignment.macro_attention_BG,
            micro_attention_BK=alignment.micro_attention_BK,
            gate_B3D=gate_B3D,
            user_BD=user_BD,
            activity_logits_B=self.activity(user_BD).squeeze(1),
            attribute_logits=[head(user_BD) for head in self.attributes],
        )

    def next_item_queries(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Queries [B, L, D] of the item that follows each micro position."""
        return self.next_item(outputs.micro_hidden_BLD, outputs.macro_hidden_BLD, batch.asof_BL)

    def last_query_BD(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Queries [B, D] of the item that follows the whole micro history.

        An empty micro history leaves the macro term alone, without either the query is LayerNorm's bias: what suits everybody.
        Its ``asof_BL[:, 0]`` is the last app event before the query time.
        """
        asof_B1 = batch.asof_BL.gather(1, (batch.micro_lengths_B - 1).clamp(min=0)[:, None])
        return self.next_item(outputs.user_micro_BD[:, None, :], outputs.macro_hidden_BLD, asof_B1).squeeze(1)

    @property
    def item_weight_ND(self) -> Tensor:
        """The item table, tied: items are scored with the embeddings they are read with. PAD and UNKNOWN are never ranked."""
        return self.micro.embedding.ids.weight
