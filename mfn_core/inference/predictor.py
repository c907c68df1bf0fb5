"""The one predictor: evaluation, batch scoring and serving all answer through it."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfn_core.data.batch import Batch
from mfn_core.data.batching import Prefix, batches, collate
from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.model.builder import Network
from mfn_core.model.bundle import Bundle, load_bundle
from mfn_core.model.outputs import Outputs
from mfn_core.model.ranking import by_columns, target_ranks, top_items
from mfn_core.schema import DOWNSTREAM_TASKS, UNKNOWN, DownstreamTask
from mfn_core.training.device import pick_device

_P = ParamSpec("_P")
_T = TypeVar("_T")
# As an allocation says it, a GPU that is too full to be used at all, and a library that finds no room for its own.
_OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """What the network says about B users, in the order they were asked for."""

    user_ids: NDArray[np.object_]  # [B]
    embedding_BD: NDArray[np.float32]
    activity_B: NDArray[np.float32] | None  # probability; None where the model did not learn activity
    attributes: dict[str, NDArray[np.float32]]  # name -> class probabilities [B x classes]
    attribute_classes: dict[str, tuple[str, ...]]
    top_items: list[NDArray[np.object_]]  # [B] external ids, best first; empty where the model did not learn recommendation
    top_scores: list[NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.user_ids)


def _where_there_is_room(ask: "Callable[Concatenate[Predictor, _P], _T]") -> "Callable[Concatenate[Predictor, _P], _T]":
    """Asks again, on the CPU, where the GPU is full: a training beside may leave no room for hours.

    So does an answer that fails because another thread's left the GPU while it was given.
    """

    @wraps(ask)
    def asked(self: "Predictor", *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self.leaving:  # whoever is about to leave has left when the question begins
            device = self.device
        try:
            return ask(self, *args, **kwargs)
        except RuntimeError as error:
            said = str(error)
            is_full = self.may_leave_gpu and any(phrase in said for phrase in _OUT_OF_MEMORY)
            if not is_full and self.device == device:
                raise
        if is_full:
            self.leave_gpu(said)  # not in the handler: there the error keeps what was computed
        with self.leaving:  # so has whoever took the network from under the first answer
            pass
        return ask(self, *args, **kwargs)

    return asked


class Predictor:
    """A bundle on a device, asked about histories that were encoded with the bundle's vocabularies."""

    def __init__(self, bundle: Bundle, device: Literal["auto", "cpu", "cuda"] = "auto") -> None:
        """Move the network to the device. ``auto``: to a GPU, and from there to the CPU as soon as the GPU is full.

        Raises:
            ConfigError: ``device`` is cuda and there is none.
        """
        self.bundle = bundle
        self.leaving = threading.RLock()  # a server answers in several threads
        self.device = pick_device(device)
        self.may_leave_gpu = device == "auto" and self.device.type == "cuda"
        self._network, self._outputs, self._item_columns_ND = self._settled()

    @classmethod
    def load(cls, folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> "Predictor":
        """The predictor of a stored bundle.

        Raises:
            ArtifactError: the bundle is incomplete, unreadable, or mixed of several.
            ConfigError: its settings fit no network, or ``device`` is cuda and there is none.
        """
        return cls(load_bundle(folder), device)

    @property
    def tasks(self) -> tuple[DownstreamTask, ...]:
        """Downstream tasks the model was trained for."""
        trained = self.bundle.facts.get("tasks", DOWNSTREAM_TASKS)
        return tuple(task for task in DOWNSTREAM_TASKS if task in trained)

    @property
    def masks_seen(self) -> bool:
        """Whether items that the user has met are left out where nothing else is asked: as the model was trained for."""
        return bool(self.bundle.facts.get("mask_seen", True))

    @_where_there_is_room
    @torch.inference_mode()
    def predict(
        self,
        histories: Histories,
        *,
        query_time: int,
        rows: NDArray[np.int64] | None = None,
        top_k: int = 10,
        mask_seen: bool | None = None,
        batch_size: int = 128,
    ) -> Predictions:
        """Embedding, activity, attributes and next items of users as of a time.

        Args:
            histories: users, encoded with this model's vocabularies.
            query_time: seconds UTC; events at or after it are not read.
            rows: users to answer for; all by default.
            top_k: items per user; fewer where the catalogue has no more that are new to the user.
            mask_seen: leave out items the user has already met; by default what the model was trained for.
            batch_size: users per forward pass.
        """
        mask_seen = self.masks_seen if mask_seen is None else mask_seen
        histories = _before(histories, query_time)
        rows = np.arange(len(histories), dtype=np.int64) if rows is None else rows
        sink = _Sink(len(rows), self)
        for positions, batch in self._batches(histories, rows, "full", batch_size, query_time=query_time):
            outputs = self._outputs(batch)
            sink.user_BD[positions] = _numpy(outputs.user_BD)
            sink.activity_B[positions] = _numpy(torch.sigmoid(outputs.activity_logits_B.float()))
            for name, logits in zip(self.bundle.attribute_classes, outputs.attribute_logits, strict=True):
                sink.attributes[name][positions] = _numpy(torch.softmax(logits.float(), dim=-1))
            if self._item_columns_ND is not None:
                seen_BL = self._seen(histories.micro, rows[positions], dropped=0) if mask_seen else None
                scores = replace(self._network.last_item_scores(outputs.encoded, batch), weight_ND=self._item_columns_ND)
                ids_BK, scores_BK = top_items(scores, top_k, seen_BL)
                self._keep_items(sink, positions, _numpy(ids_BK), _numpy(scores_BK))
        return Predictions(
            user_ids=histories.user_ids[rows],
            embedding_BD=sink.user_BD,
            activity_B=sink.activity_B if "activity" in self.tasks else None,
            attributes=sink.attributes if "attribute" in self.tasks else {},
            attribute_classes=dict(self.bundle.attribute_classes) if "attribute" in self.tasks else {},
            top_items=sink.items,
            top_scores=sink.scores,
        )

    @_where_there_is_room
    @torch.inference_mode()
    def rank_targets(
        self,
        histories: Histories,
        rows: NDArray[np.int64],
        held_out_B: NDArray[np.int8],
        *,
        prefix: Literal["validation", "test"],
        mask_seen: bool = True,
        batch_size: int = 128,
    ) -> NDArray[np.float32]:
        """Rank of each row's held-out item among all items: 0 is first, behind every item where the vocabulary lacks it.

        Args:
            histories: users, encoded with this model's vocabularies.
            rows: users with two held-out micro events.
            held_out_B: held-out micro events of every user of ``histories``.
            prefix: ``test`` ranks the last micro event, ``validation`` the one before.
            mask_seen: leave out items met before the target, except the target.
            batch_size: users per forward pass.
        """
        assert (held_out_B[rows] == HELD_OUT_EVENTS).all(), "only users with two held-out events have a target"
        dropped = DROPPED[prefix]
        target_B = histories.micro.ids[histories.micro.offsets[rows + 1] - dropped]
        ranks_B = np.empty(len(rows), np.float32)
        for positions, batch in self._batches(histories, rows, prefix, batch_size, held_out_B=held_out_B):
            seen_BL = self._seen(histories.micro, rows[positions], dropped) if mask_seen else None
            scores = self._network.ranking_scores(batch)
            targets = torch.as_tensor(target_B[positions].astype(np.int64), device=self.device)
            ranks_B[positions] = _numpy(target_ranks(scores, targets, seen_BL))
        return ranks_B

    @_where_there_is_room
    @torch.inference_mode()
    def mean_alignment_GK(
        self, histories: Histories, *, query_time: int, rows: NDArray[np.int64], batch_size: int = 128
    ) -> NDArray[np.float64] | None:
        """Mean alignment matrix M_u over the users who have both views; None where nobody has.

        Rows are macro categories and columns micro categories by internal id, PAD and UNKNOWN included; UNKNOWN is also that of the
        categories beyond the model's ``max_categories``.
        """
        histories = _before(histories, query_time)
        both = (histories.macro.lengths > 0) & (histories.micro.lengths > 0)
        rows = rows[both[rows]]
        total: NDArray[np.float64] | None = None
        for _, batch in self._batches(histories, rows, "full", batch_size, query_time=query_time):
            part = _numpy(self._outputs(batch).alignment_BGK.double().sum(0))
            total = part if total is None else total + part
        return None if total is None else total / len(rows)

    def leave_gpu(self, said: str) -> None:
        """Answer on the CPU from now on; ``said`` tells why. Where another thread has just left it, there is nothing to do."""
        with self.leaving:
            if not self.may_leave_gpu:
                return
            _log.warning("the GPU is full, so the CPU answers, which takes longer: %s", said)
            self.device, self.may_leave_gpu = torch.device("cpu"), False
            self._network, self._outputs, self._item_columns_ND = self._settled()
            torch.cuda.empty_cache()

    @_where_there_is_room
    def _settled(self) -> tuple[Network, Callable[[Batch], Outputs], Tensor | None]:
        """The network, what it answers by, and, where it recommends, its item table as ``top_items`` reads it fastest."""
        network = self.bundle.network.to(self.device).eval()
        recommends = "recommendation" in self.tasks
        return network, network.settled(), by_columns(network.micro.embedding.ids.weight) if recommends else None

    def _batches(
        self,
        histories: Histories,
        rows: NDArray[np.int64],
        prefix: Prefix,
        batch_size: int,
        *,
        held_out_B: NDArray[np.int8] | None = None,
        query_time: int | None = None,
    ) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Positions in ``rows`` and batch, users of like length together."""
        held_out_B = np.zeros(len(histories), np.int8) if held_out_B is None else held_out_B
        lengths = np.maximum(histories.macro.lengths, histories.micro.lengths)[rows]
        for positions in batches(lengths, batch_size, shuffle=False):
            batch = collate(
                histories,
                rows[positions],
                prefix=prefix,
                held_out_B=held_out_B,
                max_macro_length=self.bundle.config.max_macro_length,
                max_micro_length=self.bundle.config.max_micro_length,
                query_time=query_time,
                max_ids=self.bundle.config.max_ids if prefix == "full" else 0,
            ).to(self.device)
            yield positions, batch

    def _seen(self, micro: ViewHistories, rows: NDArray[np.int64], dropped: int) -> Tensor:
        return torch.as_tensor(micro.padded_ids(rows, dropped=dropped), device=self.device)

    def _keep_items(self, sink: "_Sink", positions: NDArray[np.int64], ids_BK: NDArray[np.int64], scores_BK: NDArray[np.float32]) -> None:
        tokens_BK = self.bundle.vocabularies.micro_id.decode(ids_BK.ravel()).reshape(ids_BK.shape)
        rankable_BK = np.isfinite(scores_BK) & (ids_BK > UNKNOWN)
        for row, position in enumerate(positions):
            sink.items[position] = tokens_BK[row][rankable_BK[row]]
            sink.scores[position] = scores_BK[row][rankable_BK[row]]


class _Sink:
    """Room for the answers of all batches, in the order of the question."""

    def __init__(self, num_users: int, predictor: Predictor) -> None:
        bundle = predictor.bundle
        self.user_BD = np.zeros((num_users, bundle.network.user_width), np.float32)
        self.activity_B = np.zeros(num_users, np.float32)
        self.attributes = {name: np.zeros((num_users, len(classes)), np.float32) for name, classes in bundle.attribute_classes.items()}
        self.items: list[NDArray[np.object_]] = [np.empty(0, object)] * num_users
        self.scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * num_users


def _before(histories: Histories, time: int) -> Histories:
    """The same users without their events at or after ``time``."""
    if _all_before(histories.macro, time) and _all_before(histories.micro, time):
        return histories
    keep = histories.micro.times < time
    return Histories(
        histories.user_ids, _kept(histories.macro, histories.macro.times < time), _kept(histories.micro, keep), histories.macro_before[keep]
    )


def _all_before(view: ViewHistories, time: int) -> bool:
    return len(view.times) == 0 or int(view.times.max()) < time


def _kept(view: ViewHistories, keep: NDArray[np.bool_]) -> ViewHistories:
    kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)])
    return ViewHistories(kept_before[view.offsets], view.ids[keep], view.categories[keep], view.times[keep])


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()
