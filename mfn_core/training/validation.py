"""How good the network is on what it does not learn from: the score that early stopping watches.

Activity and attributes are measured on users of the validation split, on everything before the cut; the next item on the
second last micro event of any user, from the prefix before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.batching import batches, collate
from mfn_core.data.dataset import Dataset
from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS
from mfn_core.data.histories import Histories
from mfn_core.metrics import auc, multiclass_metrics, ranking_metrics
from mfn_core.model.builder import Network
from mfn_core.model.ranking import target_ranks
from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains
from mfn_core.schema import SPLITS, UNKNOWN
from mfn_core.training.feed import Rows, feed

MAX_RANKED_USERS = 20_000
_VALIDATION = SPLITS.index("validation")


@dataclass(frozen=True)
class Answer:
    """What a network says of the second last micro event of B users."""

    positions: Rows  # in ``ranked_rows``
    own: ItemScores
    gains: tuple[Gains, ...]  # what the network blends in, by source
    target_B: Tensor  # UNKNOWN where the vocabulary lacks the item
    seen_BL: Tensor | None  # not to be recommended, padded with PAD; None: all may be


class Validation:
    """The fixed questions of one run, asked again after every epoch."""

    def __init__(self, dataset: Dataset, network_config: NetworkConfig, config: TrainingConfig) -> None:
        """Choose the users: every labelled one of the validation split, and up to 20,000 with a held-out item."""
        self._dataset, self._network_config, self._config = dataset, network_config, config
        self._mask_seen = dataset.masks_seen(config.mask_seen)
        in_split_B = dataset.split_B == _VALIDATION
        labelled_B = (dataset.activity_B >= 0) | (dataset.attributes_BA >= 0).any(axis=1)
        self._label_rows = np.flatnonzero(in_split_B & labelled_B)
        ranked = np.flatnonzero(dataset.held_out_B == HELD_OUT_EVENTS)
        if len(ranked) > MAX_RANKED_USERS:
            ranked = np.sort(np.random.default_rng(config.seed).choice(ranked, MAX_RANKED_USERS, replace=False))
        self.ranked_rows = ranked
        self._label_steps, self._ranked_steps = (
            -(-len(rows) // config.evaluation_batch_size) for rows in (self._label_rows, self.ranked_rows)
        )

    @torch.inference_mode()
    def answers(self, network: Network, tick: Callable[[int], None] = lambda _: None) -> list[Answer]:
        """The network's answers to all next-item questions, users of like length together.

        Args:
            network: left in evaluation mode.
            tick: told the number of steps done, after each.
        """
        network.eval()
        dataset, micro, rows, device = self._dataset, self._dataset.histories.micro, self.ranked_rows, _device(network)

        def make(positions: Rows) -> Batch:
            return collate(
                dataset.histories,
                rows[positions],
                prefix="validation",
                held_out_B=dataset.held_out_B,
                max_macro_length=self._network_config.max_macro_length,
                max_micro_length=self._network_config.max_micro_length,
            )

        order = self._order(rows)
        said: list[Answer] = []
        dropped = DROPPED["validation"]
        for step, (positions, batch) in enumerate(zip(order, feed(make, order, device), strict=True), start=1):
            own, gains = network.unblended_ranking_scores(batch)
            users = rows[positions]
            target_B = torch.as_tensor(micro.ids[micro.offsets[users + 1] - dropped].astype(np.int64), device=device)
            seen_BL = torch.as_tensor(micro.padded_ids(users, dropped=dropped), device=device) if self._mask_seen else None
            said.append(Answer(positions, own, gains, target_B, seen_BL))
            tick(step)
        return said

    def num_steps(self, *, labels: bool) -> int:
        """Steps of a measurement, with or without activity and attributes."""
        return self._ranked_steps + (self._label_steps if labels else 0)

    def measure(
        self, network: Network, tick: Callable[[int], None], *, labels: bool, answers: Sequence[Answer] | None = None
    ) -> dict[str, float]:
        """Every figure that the data gives.

        Args:
            network: left in evaluation mode.
            tick: told the number of steps done, after each.
            labels: measure activity and attributes too.
            answers: of this network as it is, where they are at hand.

        Returns:
            ``activity_auc``, ``attribute_<name>_auc`` and their mean ``attribute_auc``, ``hr@10``, ``ndcg@10``; a figure
            that the validation users cannot give is left out: where the vocabulary lacks all their items no epoch is better than another.
        """
        said = self.answers(network, tick) if answers is None else answers
        network.eval()
        with torch.inference_mode():
            figures = self._label_figures(network, lambda step: tick(self._ranked_steps + step)) if labels else {}
            figures |= self._ranking_figures(network, said)
        return {name: value for name, value in figures.items() if value is not None}

    def _label_figures(self, network: Network, tick: Callable[[int], None]) -> dict[str, float | None]:
        dataset, rows = self._dataset, self._label_rows
        activity_B = np.zeros(len(rows), np.float32)
        attributes = {name: np.zeros((len(rows), len(classes)), np.float32) for name, classes in dataset.attribute_classes.items()}
        device = _device(network)

        def make(positions: Rows):
            return collate(
                dataset.histories,
                rows[positions],
                prefix="full",
                held_out_B=dataset.held_out_B,
                max_macro_length=self._network_config.max_macro_length,
                max_micro_length=self._network_config.max_micro_length,
                query_time=dataset.cut,
                max_ids=self._network_config.max_ids,
            )

        order = self._order(rows)
        for step, (positions, batch) in enumerate(zip(order, feed(make, order, device), strict=True), start=1):
            outputs = network(batch)
            activity_B[positions] = outputs.activity_logits_B.float().cpu().numpy()
            for name, logits in zip(attributes, outputs.attribute_logits, strict=True):
                attributes[name][positions] = torch.softmax(logits.float(), dim=-1).cpu().numpy()
            tick(step)
        figures: dict[str, float | None] = {"activity_auc": _labelled_auc(dataset.activity_B[rows], activity_B)}
        for index, (name, probabilities) in enumerate(attributes.items()):
            labels_B = dataset.attributes_BA[rows, index]
            figures[f"attribute_{name}_auc"] = multiclass_metrics(labels_B[labels_B >= 0], probabilities[labels_B >= 0])["auc"]
        defined = [value for name, value in figures.items() if name.startswith("attribute_") and value is not None]
        return figures | {"attribute_auc": float(np.mean(defined)) if defined else None}

    def _ranking_figures(self, network: Network, answers: Sequence[Answer]) -> dict[str, float | None]:
        ranks_B = np.full(len(self.ranked_rows), np.inf)
        for said in answers:
            ranks = target_ranks(network.blend(said.own, said.gains), said.target_B, said.seen_BL).cpu().numpy()
            ranks_B[said.positions] = np.where(said.target_B.cpu().numpy() > UNKNOWN, ranks, np.inf)
        if np.isinf(ranks_B).all():
            return {}
        metrics = ranking_metrics(ranks_B)
        return {"hr@10": metrics["hr@10"], "ndcg@10": metrics["ndcg@10"]}

    def _order(self, rows: Rows) -> list[Rows]:
        """Positions in ``rows``, users of like length together."""
        lengths = window_lengths(self._dataset.histories, self._network_config)[rows]
        return list(batches(lengths, self._config.evaluation_batch_size, seed=0, epoch=0, shuffle=False))


def window_lengths(histories: Histories, config: NetworkConfig) -> NDArray[np.int64]:
    """Per user, the longer of the two windows that the network reads: users of like length share a batch."""
    return np.maximum(
        np.minimum(histories.macro.lengths, config.max_macro_length), np.minimum(histories.micro.lengths, config.max_micro_length)
    )


def score(figures: dict[str, float]) -> float | None:
    """Mean over the downstream tasks of what was measured; None where nothing could be."""
    watched = [figures[name] for name in ("activity_auc", "attribute_auc", "ndcg@10") if name in figures]
    return float(np.mean(watched)) if watched else None


def _labelled_auc(labels_B: NDArray[np.int8], scores_B: NDArray[np.float32]) -> float | None:
    return auc(labels_B[labels_B >= 0], scores_B[labels_B >= 0])


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device
