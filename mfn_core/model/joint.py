"""The readers of all labels as one, for answers: the same arithmetic in fewer and larger calls, which is what one user's answer costs.

A member is one of R copies of a network (``experts.py``), so the members of several readers of one form are the members of one
larger reader. Axes beside those of ``experts.py``: Q labels; the three kinds of reader that have experts: counts, experts, both.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.model.experts import CountExpert, NumberEncoding, ReaderInput
from mfn_core.model.reader import NUM_MEMBERS, GatedExperts, LabelReader, Reader, log_blend

_NUM_SPEAKING = 3
_EXPERTS, _BOTH = 1, 2  # their places among the three
_Module = TypeVar("_Module", bound=nn.Module)


class JointReaders:
    """What each ``LabelReader`` says, by a copy of its weights as they are when this is made; in evaluation, without gradients."""

    @torch.no_grad()
    def __init__(self, labels: Sequence[LabelReader]) -> None:
        named = [label.by_name for label in labels]
        counts, experts, both = [each.counts for each in named], [each.experts for each in named], [each.both for each in named]
        self._counts = _joint_experts(counts)
        self._experts = _joint_experts([*experts, *both])
        self._hidden = _joint([reader.head[0] for reader in (*counts, *experts, *both)])
        self._ends = [_LabelEnd(label) for label in labels]

    def __call__(self, inputs: ReaderInput) -> list[tuple[Tensor, Tensor]]:
        """What ``LabelReader.forward`` says, label by label."""
        num_labels = len(self._ends)
        fused_XBF = torch.cat([self._counts(inputs), self._experts(inputs)])
        hidden_XBF = functional.gelu(self._hidden(fused_XBF))
        fused_3QRBF, hidden_3QRBF = (each.unflatten(0, (_NUM_SPEAKING, num_labels, NUM_MEMBERS)) for each in (fused_XBF, hidden_XBF))
        return [
            (end(hidden_3QRBF[:, label], inputs), fused_3QRBF[_EXPERTS, label].transpose(0, 1).flatten(1))
            for label, end in enumerate(self._ends)
        ]


class _LabelEnd:
    """What is left to each label: from the hidden layer of its readers, and its ids, to the blend."""

    def __init__(self, label: LabelReader) -> None:
        counts, ids, experts, both = label.by_name
        self._logits = _joint([reader.head[1] for reader in (counts, experts, both)])
        self._ids = _joint([each.ids for each in (ids, both) if each.ids is not None], axis=1)
        self._bias_311C = torch.stack([reader.bias for reader in (counts, experts, both)])[:, None, None]
        self._ids_bias_C = ids.bias.clone()
        self._blend_4 = label.blend_4.clone()

    def __call__(self, hidden_3RBF: Tensor, inputs: ReaderInput) -> Tensor:
        """Log-probabilities [B, classes]."""
        logits_3RBC = self._logits(hidden_3RBF.flatten(0, 1)).unflatten(0, (_NUM_SPEAKING, NUM_MEMBERS)) + self._bias_311C
        alone_BC, beside_BC = self._ids(inputs.evidence).chunk(2, 1)
        logits_3RBC[_BOTH] += beside_BC
        counts, experts, both = logits_3RBC.softmax(3).mean(1)
        return log_blend(self._blend_4, [counts, (alone_BC + self._ids_bias_C).softmax(1), experts, both])


class _JointEncoding(nn.Module):
    """Encodings of the same numbers on the scales of several readers, once for each of their members."""

    def __init__(self, encodings: Sequence[NumberEncoding]) -> None:
        super().__init__()
        self.encoding = deepcopy(encodings[0])
        for name, _ in encodings[0].named_buffers():
            # A scale for each reader, the same for all users.
            self.encoding.register_buffer(name, torch.stack([each.get_buffer(name)[None] for each in encodings]))

    def forward(self, numbers_BX: Tensor) -> Tensor:
        """[R, B, X + V bins]."""
        return self.encoding(numbers_BX).repeat_interleave(NUM_MEMBERS, 0)


def _joint_experts(readers: Sequence[Reader]) -> GatedExperts:
    """Gated experts with the members of all the readers, in their order."""
    several = [reader.experts for reader in readers if reader.experts is not None]
    joint = _joint(several)
    joint.weights = nn.Parameter(torch.cat([each.weights for each in several], 1))
    counts = [expert for each in (joint, *several) for expert in each.experts if isinstance(expert, CountExpert)]
    counts[0].add_module("encoding", _JointEncoding([each.encoding for each in counts[1:]]))
    return joint


def _joint(modules: Sequence[_Module], axis: int = 0) -> _Module:
    """A module whose parameters are those of all the modules, side by side."""
    joint = deepcopy(modules[0])
    for name, parameter in joint.named_parameters():
        parameter.data = torch.cat([module.get_parameter(name) for module in modules], axis)
    return joint
