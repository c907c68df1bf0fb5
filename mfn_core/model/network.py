"""The Macro-Micro Fusion Network as it is trained by default: encoders that serve no label, readers that serve one each.

The encoders learn what comes next in either view, the affinity which categories go together, and the readers one label each. The
structure of the source's figure, where one gate and one representation serve all, is ``paper.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_core.data.batch import Batch
from mfn_core.data.histories import Histories
from mfn_core.model.affinity import CategoryAffinity
from mfn_core.model.alignment import CategoryPooling
from mfn_core.model.blend import ItemBlend
from mfn_core.model.encoder import SettledEncoder, ViewEncoder, flat_events, gather_event
from mfn_core.model.evidence import Evidence, gather_evidence
from mfn_core.model.experts import Sizes
from mfn_core.model.heads import CatalogueBias, NextItemQuery
from mfn_core.model.joint import JointReaders
from mfn_core.model.outputs import Encoded, Outputs, encode, encode_users
from mfn_core.model.reader import MEMBER_WIDTH, NUM_MEMBERS, LabelReader, ReaderParts, reader_input, readers_of
from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains, Transitions, item_shares
from mfn_core.schema import PAD, UNKNOWN, View

_FIRST_SHARES = (0.3, 0.1, 0.3)  # of the gains by direct successors, product and mixture, before any is fitted
_COUNTED = ("successors.", "neighbours.", "blend.log_popularity_N")
OF_LABELS = ("macro_pooling.", "micro_pooling.", "affinity.", "readers.")


@dataclass(frozen=True)
class _Settled:
    """Parts of a network by their weights as they are when this is made; see ``MacroMicroFusionNetwork.settled``."""

    encoders: tuple[SettledEncoder, SettledEncoder] | tuple[ViewEncoder, ViewEncoder]
    readers: JointReaders


class MacroMicroFusionNetwork(nn.Module):
    """Two views, their alignment by category, and one reader per downstream label.

    The encoders are of one width. Vocabulary sizes include PAD and UNKNOWN; a view that a data set lacks has size 2. Categories beyond
    the first ``num_macro_rows`` and ``num_micro_rows`` have an embedding, but are one, UNKNOWN, to what is read by category. The forward
    pass never waits for the device: no value is read back, no shape depends on one.
    """

    preset: ClassVar[Literal["default"]] = "default"

    def __init__(
        self,
        *,
        macro: ViewEncoder,
        micro: ViewEncoder,
        num_macro_rows: int,
        num_micro_rows: int,
        attribute_sizes: Sequence[int],
        num_successors: int,
        transition_window: int,
        views: tuple[View, ...],
        reader_parts: ReaderParts,
    ) -> None:
        super().__init__()
        self._views = views
        self.macro, self.micro = macro, micro
        width, num_macro_ids, num_micro_ids = macro.width, macro.num_ids, micro.num_ids
        self.next_item = NextItemQuery(width)
        self.items = CatalogueBias(num_micro_ids)
        self.next_app = nn.LayerNorm(width)
        self.apps = CatalogueBias(num_macro_ids)
        self.successors = Transitions(num_items=num_micro_ids, num_successors=num_successors, window=1)
        self.neighbours = Transitions(num_items=num_micro_ids, num_successors=num_successors, window=transition_window)
        self.blend = ItemBlend(num_micro_ids, _FIRST_SHARES)
        self.macro_pooling = CategoryPooling(num_categories=num_macro_rows, width=width)
        self.micro_pooling = CategoryPooling(num_categories=num_micro_rows, width=width)
        self.affinity = CategoryAffinity(width)
        self.readers = readers_of(
            [2, *attribute_sizes],
            Sizes(2 * width, num_macro_rows, num_micro_rows),
            reader_parts,
            num_macro_ids=num_macro_ids,
            num_micro_ids=num_micro_ids,
        )
        # u: both views' representations, and what each label's reader made of them.
        self.user_width = 2 * width + len(self.readers) * NUM_MEMBERS * MEMBER_WIDTH

    def forward(self, batch: Batch, settled: _Settled | None = None) -> Outputs:
        """Represents B users; see ``next_item_scores`` for the recommendation task.

        Args:
            batch: the users.
            settled: what speaks for this network's parts, where their weights stay as they are; see the method of that name.
        """
        encoded = self.encode(batch) if settled is None else self._encoded(batch, *settled.encoders)
        inputs = reader_input(self.evidence(encoded, batch), self.affinity)
        activity, *attributes = [reader(inputs) for reader in self.readers] if settled is None else settled.readers(inputs)
        return Outputs(
            encoded=encoded,
            alignment_BGK=inputs.affinity_BGK * inputs.macro_share_BG[:, :, None] * inputs.micro_share_BK[:, None, :],
            user_BD=torch.cat(
                [encoded.user_macro_BD.float(), encoded.user_micro_BD.float(), activity[1], *(each[1] for each in attributes)], 1
            ),
            activity_logits_B=activity[0][:, 1] - activity[0][:, 0],
            attribute_logits=[log_probabilities for log_probabilities, _ in attributes],
        )

    def settled(self) -> Callable[[Batch], Outputs]:
        """The forward pass in evaluation, faster, by the weights as they are now: for answers."""
        on_cpu = self.macro.norm.weight.is_cpu
        encoders = (SettledEncoder(self.macro), SettledEncoder(self.micro)) if on_cpu else (self.macro, self.micro)
        return partial(self, settled=_Settled(encoders, JointReaders(self.label_readers)))

    def encode(self, batch: Batch) -> Encoded:
        """Both views; a view that is left out is as empty."""
        return self._encoded(batch, self.macro, self.micro)

    def count(self, histories: Histories, held_out_B: NDArray[np.int8], *, may_return: bool) -> None:
        """Counts what follows what, and how often each item and app occurs, in the events that are not held out.

        Args:
            histories: of all users.
            held_out_B: micro events held out per user.
            may_return: whether an item may follow itself; not where items that the user has met are never ranked.
        """
        for table in (self.successors, self.neighbours):
            table.fit(histories.micro, held_out_B, may_return=may_return)
        popularity_N = item_shares(histories.micro, held_out_B, len(self.items.bias))
        self.items.start_from(popularity_N)
        self.blend.log_popularity_N.copy_(torch.from_numpy(np.log(popularity_N)))
        self.apps.start_from(item_shares(histories.macro, np.zeros_like(held_out_B), len(self.apps.bias)))

    def evidence(self, encoded: Encoded, batch: Batch) -> Evidence:
        """What the readers see of the batch."""
        return gather_evidence(encoded, self._seen(batch), self.macro, self.micro, (self.macro_pooling, self.micro_pooling))

    def next_item_scores(self, encoded: Encoded, batch: Batch, positions_P: Tensor | None) -> ItemScores:
        """The network's own scores of the item that follows each of the flat micro positions, None: of all: what it is trained on."""
        query_BLD = self.next_item(encoded.micro_hidden_BLD, encoded.macro_hidden_BLD, batch.asof_BL)
        return ItemScores.plain(flat_events(query_BLD, positions_P), self.micro.embedding.ids.weight, self.items.bias)

    def last_item_scores(self, encoded: Encoded, batch: Batch) -> ItemScores:
        """Blended scores of the item that follows the whole micro history."""
        return self.blend(self.own_last_item_scores(encoded, batch), self.gains(batch))

    def own_last_item_scores(self, encoded: Encoded, batch: Batch) -> ItemScores:
        """The network's own scores of the item that follows the whole micro history.

        They are read from the state of the latest item that the catalogue knows: nothing teaches what follows an UNKNOWN one where every
        item of the training events is in the catalogue. A micro history without such an item leaves the macro term alone, without either
        the scores are the biases: what suits everybody. Its ``asof_BL[:, 0]`` is the last app event before the query time.
        """
        last_B1 = (batch.micro_lengths_B - 1).clamp(min=0)[:, None]
        known_B = _up_to_latest_known(batch.micro_ids_BL)
        state_BD = gather_event(encoded.micro_hidden_BLD, (known_B - 1).clamp(min=0)) * (known_B > 0)[:, None]
        query_B1D = self.next_item(state_BD[:, None, :], encoded.macro_hidden_BLD, batch.asof_BL.gather(1, last_B1))
        return ItemScores.plain(query_B1D.squeeze(1), self.micro.embedding.ids.weight, self.items.bias)

    def ranking_scores(self, batch: Batch) -> ItemScores:
        """``last_item_scores`` of a batch whose app events all precede the target, as those of a ranking do; in evaluation."""
        return self.blend(*self.unblended_ranking_scores(batch))

    def unblended_ranking_scores(self, batch: Batch) -> tuple[ItemScores, tuple[Gains, ...]]:
        """``own_last_item_scores`` of such a batch, and what ``blend`` adds to them."""
        seen = self._seen(batch)
        user_macro_BD, user_micro_BD = encode_users(
            self.macro, self.micro, replace(seen, micro_lengths_B=_up_to_latest_known(seen.micro_ids_BL))
        )
        query_BD = self.next_item.joined(user_micro_BD, user_macro_BD)
        return ItemScores.plain(query_BD, self.micro.embedding.ids.weight, self.items.bias), self.gains(batch)

    def gains(self, batch: Batch) -> tuple[Gains, ...]:
        """What the tables of counts add to the scores of the item that follows the whole micro history, by source."""
        ids_BL = self._seen(batch).micro_ids_BL
        known_B = _up_to_latest_known(ids_BL)
        product = self.neighbours(ids_BL, known_B)
        return self.successors(ids_BL, known_B), product, self.neighbours.mixture(product)

    def next_app_scores(self, encoded: Encoded, positions_P: Tensor | None) -> ItemScores:
        """Scores of the app that follows each of the flat macro positions, None: of all."""
        return ItemScores.plain(
            self.next_app(flat_events(encoded.macro_hidden_BLD, positions_P)), self.macro.embedding.ids.weight, self.apps.bias
        )

    @property
    def unchanged_names(self) -> frozenset[str]:
        """Names in the state dict of what no epoch changes: what ``count`` sets once, and what learns labels, after the last epoch."""
        return frozenset(name for name in self.state_dict() if name.startswith(_COUNTED + OF_LABELS))

    @property
    def label_readers(self) -> list[LabelReader]:
        """Of activity, then of each attribute."""
        return [reader for reader in self.readers if isinstance(reader, LabelReader)]

    def _encoded(self, batch: Batch, macro: ViewEncoder | SettledEncoder, micro: ViewEncoder | SettledEncoder) -> Encoded:
        encoded = encode(macro, micro, self._seen(batch))
        if "macro" not in self._views:
            encoded = replace(encoded, macro_hidden_BLD=torch.zeros_like(encoded.macro_hidden_BLD))
        if "micro" not in self._views:
            encoded = replace(encoded, micro_hidden_BLD=torch.zeros_like(encoded.micro_hidden_BLD))
        return encoded

    def _seen(self, batch: Batch) -> Batch:
        """The batch without the events of a view that is left out."""
        for view in ("macro", "micro"):
            if view not in self._views:
                events = (field.name for field in fields(batch) if field.name.startswith(view))
                batch = replace(batch, **{name: torch.full_like(getattr(batch, name), PAD) for name in events})
        return batch


def _up_to_latest_known(ids_BL: Tensor) -> Tensor:
    """Events of each history up to the latest whose id is in the vocabulary; 0 where there is none."""
    places_L = torch.arange(1, ids_BL.shape[1] + 1, device=ids_BL.device)
    return ((ids_BL > UNKNOWN) * places_L).amax(1)
