"""What every network of the project says about a batch, whatever it looks like inside."""

from dataclasses import dataclass

from torch import Tensor

from mfn_core.data.batch import Batch
from mfn_core.model.encoder import SettledEncoder, ViewEncoder


@dataclass(frozen=True)
class Encoded:
    """Both views of B users."""

    macro_hidden_BLD: Tensor
    micro_hidden_BLD: Tensor
    user_macro_BD: Tensor  # u_g, zero where the view is empty
    user_micro_BD: Tensor  # u_l, zero where the view is empty


@dataclass(frozen=True)
class Outputs:
    """Everything that is said about B users."""

    encoded: Encoded
    alignment_BGK: Tensor  # M_u, rows and columns in vocabulary order
    user_BD: Tensor  # u
    activity_logits_B: Tensor
    attribute_logits: list[Tensor]  # [B, classes] each, in the order of the attributes


def encode(macro: ViewEncoder | SettledEncoder, micro: ViewEncoder | SettledEncoder, batch: Batch) -> Encoded:
    """Both views of a batch."""
    macro_hidden_BLD, user_macro_BD = macro(batch.macro_ids_BL, batch.macro_categories_BL, batch.macro_times_BL, batch.macro_lengths_B)
    micro_hidden_BLD, user_micro_BD = micro(batch.micro_ids_BL, batch.micro_categories_BL, batch.micro_times_BL, batch.micro_lengths_B)
    return Encoded(macro_hidden_BLD, micro_hidden_BLD, user_macro_BD, user_micro_BD)


def encode_users(macro: ViewEncoder, micro: ViewEncoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """u_g and u_l [B, D] alone, in evaluation: faster than ``encode``."""
    return (
        macro.latest(batch.macro_ids_BL, batch.macro_categories_BL, batch.macro_times_BL, batch.macro_lengths_B),
        micro.latest(batch.micro_ids_BL, batch.micro_categories_BL, batch.micro_times_BL, batch.micro_lengths_B),
    )
