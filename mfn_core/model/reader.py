"""From the evidence to one downstream label: experts, a gate per label, and a blend of readers of different boldness.

No label shares a parameter with another above the encoders: the labels overfit at different times and pull in different
directions, so each is read, stopped and blended on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.model.affinity import CategoryAffinity
from mfn_core.model.dropout import ByteDropout
from mfn_core.model.evidence import Evidence, ViewEvidence
from mfn_core.model.experts import (
    AlignmentExpert,
    ConcatenationExpert,
    Copies,
    CountExpert,
    ProductExpert,
    ReaderInput,
    Sizes,
    normalized,
    thinned,
)
from mfn_core.schema import PAD

NUM_MEMBERS = 4
MEMBER_WIDTH = 32
_DROPOUT = 0.3
_FIRST_WEIGHT = 0.3


@dataclass(frozen=True)
class ReaderParts:
    """What the readers may use."""

    product: bool
    alignment: bool
    gate: bool
    num_filters: int


class GatedExperts(nn.Module):
    """u = sum over experts e of lambda_e 2 sigmoid(G_e [LN(experts)]) * LN(e); the gates start open and equal."""

    def __init__(self, sizes: Sizes, parts: ReaderParts, *, only_counts: bool) -> None:
        super().__init__()
        size = {"num_members": NUM_MEMBERS, "width": MEMBER_WIDTH}
        experts: list[nn.Module] = [CountExpert(sizes, **size)]
        if not only_counts:
            experts.append(ConcatenationExpert(sizes, **size, dropout=_DROPOUT))
            if parts.product:
                experts.append(ProductExpert(sizes, **size, dropout=_DROPOUT))
            if parts.alignment:
                experts.append(AlignmentExpert(sizes, **size, num_filters=parts.num_filters, dropout=_DROPOUT))
        self.experts = nn.ModuleList(experts)
        num_gates = len(experts) if parts.gate else 0
        self.gates = nn.ModuleList(Copies(NUM_MEMBERS, len(experts) * MEMBER_WIDTH, MEMBER_WIDTH) for _ in range(num_gates))
        for gate in self.gates:
            assert isinstance(gate, Copies)
            nn.init.zeros_(gate.weight)
        self.weights = nn.Parameter(torch.full((len(experts), NUM_MEMBERS, 1, 1), _FIRST_WEIGHT))

    def forward(self, inputs: ReaderInput) -> Tensor:
        """[R, B, F]."""
        voices = [normalized(expert(inputs)) for expert in self.experts]
        everything = torch.cat(voices, 2)
        opened = (
            [2 * torch.sigmoid(gate(everything)) * voice for gate, voice in zip(self.gates, voices, strict=True)] if self.gates else voices
        )
        return (self.weights * torch.stack(opened)).sum(0)


class IdScores(nn.Module):
    """Logistic regression on the ids a user has met and, as logarithms, how often: the wide part, in the sense of Cheng et al. 2016."""

    def __init__(self, *, num_macro_ids: int, num_micro_ids: int, num_logits: int) -> None:
        super().__init__()
        self.macro = nn.Embedding(num_macro_ids, num_logits, padding_idx=PAD)
        self.micro = nn.Embedding(num_micro_ids, num_logits, padding_idx=PAD)
        for table in (self.macro, self.micro):
            nn.init.zeros_(table.weight)

    def forward(self, evidence: Evidence) -> Tensor:
        """Logits [B, classes]."""
        return _weighted_sum(self.macro, evidence.macro) + _weighted_sum(self.micro, evidence.micro)

    def squared_norm(self) -> Tensor:
        """What the ridge penalty weighs."""
        return self.macro.weight.square().sum() + self.micro.weight.square().sum()


def _weighted_sum(table: nn.Embedding, view: ViewEvidence) -> Tensor:
    return functional.embedding_bag(
        view.met_BM, table.weight, mode="sum", padding_idx=PAD, per_sample_weights=view.met_weights_BM.to(table.weight.dtype)
    )


class Reader(nn.Module):
    """One reader of a label: gated experts, ids, or both."""

    def __init__(self, experts: GatedExperts | None, ids: IdScores | None, *, num_logits: int) -> None:
        super().__init__()
        assert experts is not None or ids is not None
        self.experts, self.ids = experts, ids
        self.bias = nn.Parameter(torch.zeros(num_logits))
        self.dropout = ByteDropout(_DROPOUT)
        self.head = nn.ModuleList([Copies(NUM_MEMBERS, MEMBER_WIDTH, MEMBER_WIDTH), Copies(NUM_MEMBERS, MEMBER_WIDTH, num_logits)])
        nn.init.zeros_(self.head[1].get_parameter("weight"))

    def forward(self, inputs: ReaderInput) -> tuple[Tensor, Tensor | None]:
        """Logits [R, B, classes] of every member, and the fused representations [R, B, F] they were read from."""
        logits, fused = self.bias, None
        if self.experts is not None:
            fused = self.experts(inputs)
            hidden = functional.gelu(self.head[0](fused))
            logits = logits + self.head[1](self.dropout(hidden))
        if self.ids is not None:
            logits = logits + self.ids(inputs.evidence)
        return logits if logits.ndim == 3 else logits[None], fused


class Readers(NamedTuple):
    """The readers of one label, from the cautious to the bold."""

    counts: Reader
    ids: Reader
    experts: Reader
    both: Reader


class LabelReader(nn.Module):
    """A blend of four readers of one label, from the cautious to the bold: counts; ids; all experts; all experts and ids.

    Few users, or a label that counts tell, suit the cautious; the blend is fitted on validation users (stacking, Wolpert 1992).
    """

    def __init__(self, sizes: Sizes, parts: ReaderParts, *, num_macro_ids: int, num_micro_ids: int, num_logits: int) -> None:
        super().__init__()

        def ids() -> IdScores:
            return IdScores(num_macro_ids=num_macro_ids, num_micro_ids=num_micro_ids, num_logits=num_logits)

        self.readers = nn.ModuleList(
            [
                Reader(GatedExperts(sizes, parts, only_counts=True), None, num_logits=num_logits),
                Reader(None, ids(), num_logits=num_logits),
                Reader(GatedExperts(sizes, parts, only_counts=False), None, num_logits=num_logits),
                Reader(GatedExperts(sizes, parts, only_counts=False), ids(), num_logits=num_logits),
            ]
        )
        self.register_buffer("blend_4", torch.full((len(self.readers),), 1 / len(self.readers)))
        self.blend_4: Tensor

    def forward(self, inputs: ReaderInput) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, classes], and the representation [B, R F] of the boldest reader without ids."""
        counts, ids, experts, both = (reader(inputs) for reader in self.readers)
        probabilities = [logits.float().softmax(2).mean(0) for logits, _ in (counts, ids, experts, both)]
        _, fused = experts
        assert fused is not None
        return log_blend(self.blend_4, probabilities), fused.transpose(0, 1).flatten(1)

    @property
    def by_name(self) -> Readers:
        """The readers; their weights are named by their numbers."""
        return Readers(*(reader for reader in self.readers if isinstance(reader, Reader)))  # they all are; a type checker cannot know


def log_blend(shares_4: Tensor, probabilities: Sequence[Tensor]) -> Tensor:
    """Logarithm of the blend of the four readers' probabilities [B, classes]; finite where no reader sees a chance."""
    blended_BC = (shares_4[:, None, None] * torch.stack(list(probabilities))).sum(0)
    return blended_BC.clamp(min=torch.finfo(torch.float32).tiny).log()


def reader_input(evidence: Evidence, affinity: CategoryAffinity, *, thin: bool = False) -> ReaderInput:
    """What the readers of all labels look at; ``thin`` leaves events out of the counts at random, as an augmentation."""
    macro_BG, micro_BK = evidence.macro.category_counts_BC, evidence.micro.category_counts_BC
    if thin:
        macro_BG, micro_BK = thinned(macro_BG), thinned(micro_BK)
    return ReaderInput(evidence, macro_BG, micro_BK, affinity)


def readers_of(labels: Sequence[int], sizes: Sizes, parts: ReaderParts, *, num_macro_ids: int, num_micro_ids: int) -> nn.ModuleList:
    """One reader per label, of so many classes."""
    return nn.ModuleList(
        LabelReader(sizes, parts, num_macro_ids=num_macro_ids, num_micro_ids=num_micro_ids, num_logits=classes) for classes in labels
    )
