"""What the network reads: right-padded tensors of B users."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tensors of B users. Both views are right-padded with PAD, to the longest history of the batch or somewhat beyond, at least to 1.

    ``asof_BL[b, t]`` is the position in ``macro_*`` of the last app event strictly before the event that
    follows micro position ``t`` (the target); -1 where there is none in the window. At the last micro position the
    following event is the query time, or the target in validation and test. Where the micro view is empty, position 0 is its last.
    """

    rows_B: Tensor  # int64, row of the user in the histories; equal rows are the same user
    macro_ids_BL: Tensor  # int64
    macro_categories_BL: Tensor  # int64
    macro_times_BL: Tensor  # int64 seconds UTC, 0 at padding
    macro_lengths_B: Tensor  # int64, 0 for an absent view
    macro_met_BM: Tensor  # int32, distinct apps of the user, those of before the window too, among PAD; see ``collate``
    macro_met_counts_BM: Tensor  # int32, how often each of them; 0 at PAD
    macro_past_categories_BM: Tensor  # int64, of the user's app events, those of before the window too; see ``collate``
    macro_past_times_BM: Tensor  # int64 seconds UTC of the same events, 0 at padding
    micro_ids_BL: Tensor  # int64
    micro_categories_BL: Tensor  # int64
    micro_times_BL: Tensor  # int64 seconds UTC, 0 at padding
    micro_lengths_B: Tensor  # int64, 0 for an absent view
    micro_met_BM: Tensor  # int32, distinct items, likewise
    micro_met_counts_BM: Tensor
    micro_past_categories_BM: Tensor
    micro_past_times_BM: Tensor
    asof_BL: Tensor  # int64, as long as the micro view
    targets_BL: Tensor  # int64, micro id to learn or rank at a position; PAD where there is none; UNKNOWN (to rank) is a sure miss
    query_time_B: Tensor  # int64 seconds UTC the user is asked about; without one, the time of the latest event
    activity_B: Tensor  # float32 0 or 1; nan where unlabelled
    attributes_BA: Tensor  # int64 class; -1 where unlabelled

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)})

    def only(self, kept_B: Tensor) -> "Batch":
        """The same batch, in which the other users have neither events nor labels: there is nothing to learn from them."""
        kept_B1 = kept_B[:, None]
        events = [field.name for field in fields(self) if field.name.startswith(("macro", "micro", "targets"))]
        parts = {name: getattr(self, name) * (kept_B if name.endswith("_B") else kept_B1) for name in events}
        return replace(
            self,
            **parts,
            asof_BL=self.asof_BL.masked_fill(~kept_B1, -1),
            activity_B=self.activity_B.masked_fill(~kept_B, torch.nan),
            attributes_BA=self.attributes_BA.masked_fill(~kept_B1, -1),
        )
