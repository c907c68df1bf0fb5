"""The classical rivals that the network is compared with, each tuned on the validation split with a stated number of trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol

import pyarrow as pa

from mfn_core.data.dataset import Dataset
from mfn_core.schema import DownstreamTask
from tasks.rivals import classifiers, recommenders


class FitAndScore(Protocol):
    """Fit on the training part of a dataset, tune on its validation part, score a split."""

    def __call__(
        self,
        dataset: Dataset,
        task: DownstreamTask,
        *,
        split: Literal["validation", "test"],
        seed: int,
        trials: int,
        mask_seen: bool = True,
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Score one downstream task.

        Args:
            dataset: histories and labels.
            task: one of the rival's.
            split: users, or held-out events, to score.
            seed: of the settings that are tried and of the model; the same seed gives the same scores.
            trials: settings to try on the validation split, at least 1.
            mask_seen: for recommendation: leave out items met before the target.

        Returns:
            Scores in the columns of ``mfn_core.evaluation.evaluator.Evaluation.scores``, of the users that the evaluator measures; and by
            label (the task, or an attribute) what tuning chose: ``settings, validation_<metric>, trials, seconds``, or
            ``left_out`` with the reason.

        Raises:
            ConfigError: the dataset leaves the task out.
            InsufficientDataError: no label can be learned, or no user of the split has one.
        """
        ...


@dataclass(frozen=True)
class Rival:
    """A classical model."""

    tasks: tuple[DownstreamTask, ...]  # the downstream tasks that it can do
    fit_and_score: FitAndScore


_LABELS: tuple[DownstreamTask, ...] = ("activity", "attribute")
_ITEMS: tuple[DownstreamTask, ...] = ("recommendation",)

RIVALS: Mapping[str, Rival] = MappingProxyType(
    {
        "popularity": Rival(_ITEMS, recommenders.popularity),
        "bigram": Rival(_ITEMS, recommenders.bigram),
        "skip_bigram": Rival(_ITEMS, recommenders.skip_bigram),
        "item_knn": Rival(_ITEMS, recommenders.item_knn),
        "logistic": Rival(_LABELS, classifiers.logistic),
        "lightgbm_counts": Rival(_LABELS, classifiers.lightgbm_counts),
        "lightgbm_crosses": Rival(_LABELS, classifiers.lightgbm_crosses),
        "lightgbm_items": Rival(_LABELS, classifiers.lightgbm_items),
    }
)
