"""What the encoders and the clock tell about users: all that the readers of the downstream labels see.

Evidence is fixed once the encoders are, so the readers learn from a table of it, without the encoders.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from mfn_core.data.batch import Batch
from mfn_core.model.alignment import CategoryPooling, CategorySummary
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.outputs import Encoded
from mfn_core.schema import PAD, View

_HOUR, _DAY = 3600.0, 86_400
_LATEST = (1, 2, 3, 5)
_DAYS = (1, 3, 7, 14, 28, 91, 182, 365, 730)
_LONG_AGO = 20 * 365 * _DAY  # the age of an event that there is none of
NUM_VOLUMES = 4 + len(_LATEST) + len(_DAYS)


@dataclass(frozen=True)
class ViewEvidence:
    """One view of B users, S = 2 D."""

    state_BS: Tensor  # normalized state of the latest event, and the normalized mean of all states, within the encoder's window
    category_states_BCD: Tensor  # mean embedding of the window's events of each category, normalized; zero where absent from it
    category_counts_BC: Tensor  # float, also of before the window, as is all that follows
    volumes_BV: Tensor  # how much and how long ago; see ``volumes``
    met_BM: Tensor  # distinct ids; the others PAD
    met_weights_BM: Tensor  # log2(1 + how often): 1 for once; 0 at PAD; float16, as there are many

    @property
    def categories(self) -> CategorySummary:
        """What the alignment reads."""
        return CategorySummary(self.category_states_BCD, self.category_counts_BC, (self.category_counts_BC > 0).float())


@dataclass(frozen=True)
class Evidence:
    """Both views."""

    macro: ViewEvidence
    micro: ViewEvidence

    def at(self, rows: Tensor) -> "Evidence":
        """Some of the users."""
        return _mapped(lambda tensors: tensors[0][rows], self)

    def room(self, num_users: int) -> "Evidence":
        """A table for so many users, of the same widths and zero throughout."""
        return _mapped(lambda tensors: tensors[0].new_zeros((num_users, *tensors[0].shape[1:])), self)

    def filled(self, rows: Tensor, part: "Evidence") -> "Evidence":
        """The table with the users of ``part`` at these rows, in place; id lists, where those of the part are longer, are padded first."""
        return _mapped(lambda tensors: _put(tensors, rows), self, part)

    def cpu(self) -> "Evidence":
        """The same on the host."""
        return _mapped(lambda tensors: tensors[0].cpu(), self)

    def to(self, device: torch.device) -> "Evidence":
        """The same on a device."""
        return _mapped(lambda tensors: tensors[0].to(device), self)


def gather_evidence(
    encoded: Encoded, batch: Batch, macro: ViewEncoder, micro: ViewEncoder, pooling: tuple[CategoryPooling, CategoryPooling]
) -> Evidence:
    """Evidence of a batch whose views were encoded."""
    return Evidence(
        _view("macro", encoded.macro_hidden_BLD, encoded.user_macro_BD, batch, macro, pooling[0]),
        _view("micro", encoded.micro_hidden_BLD, encoded.user_micro_BD, batch, micro, pooling[1]),
    )


def evidence_bytes(*, width: int, num_categories: int, num_ids: int) -> int:
    """Most bytes of one user: float32 states, categories and volumes of both views, int32 ids and their float16 weights."""
    return 4 * (4 * width + num_categories * (width + 1) + 2 * NUM_VOLUMES) + 6 * num_ids


def volumes(times_BL: Tensor, valid_BL: Tensor, query_time_B: Tensor) -> Tensor:
    """How much, how long ago, how often [B, V]; a user without events is zero throughout.

    Is there any event; log number of events; log number of days with events; log hours since the first event and since the 1st, 2nd,
    3rd and 5th latest (20 years where there are fewer); log events of the last days. All before the query time; scaled to about 1.
    """
    has_B1 = valid_BL.any(1, keepdim=True)
    ages_BL = (query_time_B[:, None] - times_BL).clamp(min=0)
    oldest_B1 = ages_BL.masked_fill(~valid_BL, 0).amax(1, keepdim=True)
    ascending_BL = functional.pad(ages_BL.masked_fill(~valid_BL, _LONG_AGO), (0, max(_LATEST)), value=_LONG_AGO).sort(1).values
    latest_BK = ascending_BL[:, [k - 1 for k in _LATEST]]
    days_BL = ascending_BL // _DAY
    new_day_BL = (days_BL[:, 1:] != days_BL[:, :-1]).sum(1, keepdim=True)  # the padding is a day of its own
    amounts_B2 = torch.cat([valid_BL.sum(1, keepdim=True), new_day_BL], 1)
    limits_BW = (torch.tensor(_DAYS, device=ages_BL.device) * _DAY).repeat(len(ages_BL), 1)
    recent_BW = torch.searchsorted(ascending_BL, limits_BW, right=True)
    hours_BK = torch.cat([oldest_B1, latest_BK], 1) / _HOUR
    parts = [has_B1.float(), torch.log1p(amounts_B2) / 3, torch.log1p(hours_BK) / 5, torch.log1p(recent_BW) / 2]
    return torch.cat(parts, 1) * has_B1


def _view(view: View, hidden_BLD: Tensor, latest_BD: Tensor, batch: Batch, encoder: ViewEncoder, pooling: CategoryPooling) -> ViewEvidence:
    def of(name: str) -> Tensor:
        return getattr(batch, f"{view}_{name}")

    valid_BL = of("ids_BL") != PAD
    hidden_BLD = hidden_BLD.float() * valid_BL[:, :, None]
    mean_BD = hidden_BLD.sum(1) / valid_BL.sum(1, keepdim=True).clamp(min=1)
    width = (mean_BD.shape[1],)
    state_BS = torch.cat([functional.layer_norm(latest_BD.float(), width), functional.layer_norm(mean_BD, width)], 1)
    summary = pooling(encoder.embedding.meaning(of("ids_BL"), of("categories_BL")), of("categories_BL"))
    counted_BM = of("past_categories_BM")
    return ViewEvidence(
        state_BS,
        summary.states_BCD,
        pooling.counts(counted_BM),
        volumes(of("past_times_BM"), counted_BM != PAD, batch.query_time_B),
        of("met_BM"),
        torch.log2(1 + of("met_counts_BM").float()).half(),
    )


def _put(tensors: list[Tensor], rows: Tensor) -> Tensor:
    table, part = tensors
    width = part.shape[1]
    if width > table.shape[1]:
        table = functional.pad(table, (0, width - table.shape[1]))
    table[:, :width].index_copy_(0, rows, part)
    return table


def _mapped(function: Callable[[list[Tensor]], Tensor], *evidence: Evidence) -> Evidence:
    def view(views: list[ViewEvidence]) -> ViewEvidence:
        return ViewEvidence(*(function([getattr(each, field.name) for each in views]) for field in fields(ViewEvidence)))

    return Evidence(view([each.macro for each in evidence]), view([each.micro for each in evidence]))
