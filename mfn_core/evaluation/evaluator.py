"""One downstream task on one split: figures with n, 95 % intervals, and the trivial baseline's figures beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS
from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.evaluation.baselines import base_rate, class_shares, popularity_ranks
from mfn_core.evaluation.bootstrap import Figures, Interval, intervals, reflected
from mfn_core.evaluation.scores import ATTRIBUTE, activity_scores, attribute_scores, recommendation_scores
from mfn_core.inference.predictor import Predictor
from mfn_core.metrics import (
    Weights,
    binary_metrics,
    binary_metrics_of,
    multiclass_metrics,
    multiclass_metrics_of,
    ranking_metrics,
    ranking_metrics_of,
)
from mfn_core.schema import SPLITS, DownstreamTask

_WHY_UNDEFINED = {
    "auc": "the users are all of one class",
    "precision": "nobody is predicted positive",
    "recall": "nobody is positive",
    "f1": "nobody is positive or predicted positive",
}


@dataclass(frozen=True)
class Measurement:
    """The figures of one label: the activity, one attribute, or the next item."""

    n: int  # users measured
    metrics: dict[str, float | None]
    intervals: dict[str, Interval | None]
    baseline: dict[str, float | None]
    undefined: dict[str, str]  # why a figure is None, by name

    def to_json(self) -> dict[str, Any]:
        """As a JSON object without NaN."""
        spans = {name: None if interval is None else list(interval) for name, interval in self.intervals.items()}
        return {"n": self.n, "metrics": self.metrics, "intervals": spans, "baseline": self.baseline, "undefined": self.undefined}


@dataclass(frozen=True)
class Evaluation:
    """A downstream task's measurements and the scores they came from.

    ``measurements`` has one entry under the task's name or, for the attribute task, one under each attribute's. ``scores`` has
    the form of ``scores.py``.
    """

    task: DownstreamTask
    measurements: dict[str, Measurement]
    scores: pa.Table


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    task: DownstreamTask,
    *,
    split: Literal["validation", "test"] = "test",
    mask_seen: bool = True,
    batch_size: int = 128,
    samples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure a model.

    Activity and attributes: the split's labelled users, each from the whole history before the cut, which is what serving sees.
    Recommendation: every user with held-out events; the test target is the last micro event, the validation target the one before.

    Args:
        predictor: the model; its vocabularies must be those that the histories are encoded with.
        dataset: histories and labels.
        task: one that both the dataset and the model can do.
        split: users, or held-out events, to measure on.
        mask_seen: leave out items met before the target.
        batch_size: users per forward pass.
        samples: bootstrap resamples.
        seed: of the resamples.

    Raises:
        ConfigError: the dataset or the model leaves the task out.
    """
    if task not in dataset.tasks or task not in predictor.tasks:
        reason = dataset.skipped.get(task, "the model was not trained for it")
        raise ConfigError(f"downstream task {task} cannot be evaluated: {reason}; can be: {', '.join(dataset.tasks)}")
    scores = score(predictor, dataset, task, split=split, mask_seen=mask_seen, batch_size=batch_size)
    baselines = _baselines(dataset, task, scores)
    measured: dict[str, Measurement] = {}
    for name, table in by_label(task, scores).items():
        figures = figures_of(task, table)
        values, spans = measure(figures, table.num_rows, samples, seed)
        beside = {f"baseline {key}": value for key, value in baselines[name].items()}
        undefined = _undefined(values | beside, table.num_rows)
        measured[name] = Measurement(table.num_rows, values, spans, baselines[name], undefined)
    return Evaluation(task, measured, scores)


def score(
    predictor: Predictor, dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], mask_seen: bool, batch_size: int
) -> pa.Table:
    """What the model says about each user of the split, beside the truth; see ``Evaluation.scores``.

    Raises:
        InsufficientDataError: no user of the split has a label.
    """
    if task == "recommendation":
        table = _recommendation_scores(predictor, dataset, split, mask_seen, batch_size)
    elif task == "activity":
        table = _activity_scores(predictor, dataset, split, batch_size)
    else:
        table = _attribute_scores(predictor, dataset, split, batch_size)
    if table.num_rows == 0:
        raise InsufficientDataError(
            f"downstream task {task}: 0 users of the {split} split have a label, 1 is needed; give more users or another split_seed"
        )
    return table


def by_label(task: DownstreamTask, scores: pa.Table) -> dict[str, pa.Table]:
    """The scores of each label: one entry per attribute, or one under the task's name."""
    if task != "attribute":
        return {task: scores}
    names = scores["attribute"].unique().to_pylist()
    return {name: scores.filter(pc.equal(scores["attribute"], name)) for name in names}


def figures_of(task: DownstreamTask, scores: pa.Table) -> Callable[[NDArray[np.int64]], Figures]:
    """The metrics of any selection of rows of one label's scores."""
    weighted = _weighted_figures(task, scores)
    return lambda chosen: weighted(np.bincount(chosen, minlength=scores.num_rows))


def measure(
    figures: Callable[[NDArray[np.int64]], Figures], num_rows: int, samples: int, seed: int = 0
) -> tuple[dict[str, float | None], dict[str, Interval | None]]:
    """The figures of all rows, and the 95 % interval of each.

    The interval is that of the resamples' percentiles, but for the ECE. Chance opens gaps between probabilities and outcomes, and
    resampling opens them once more: the percentiles of a calibrated model lie above its figure, which itself is above the true 0. Their
    reflection at the figure (the basic bootstrap), widened to the figure, takes most of that bias off; a true ECE of exactly 0 it still
    covers in fewer than half of the samples only, so that no claim of perfect calibration can be tested with it.

    Args:
        figures: from positions of rows, which may repeat, to figures by name.
        num_rows: rows to draw from.
        samples: bootstrap resamples.
        seed: of the resamples.
    """
    values = dict(figures(np.arange(num_rows)))
    drawn = intervals(figures, num_rows, samples, seed)
    spans = {name: drawn.get(name) for name in values}
    value, span = values.get("ece"), spans.get("ece")
    if value is not None and span is not None:
        spans["ece"] = reflected(*span, value)
    return values, spans


def probabilities_of(scores: pa.Table) -> NDArray[np.float32]:
    """[users x classes] of one attribute's scores."""
    return np.stack(scores["probabilities"].to_numpy()) if scores.num_rows else np.empty((0, 1), np.float32)


def _activity_scores(predictor: Predictor, dataset: Dataset, split: str, batch_size: int) -> pa.Table:
    rows = np.flatnonzero((dataset.split_B == SPLITS.index(split)) & (dataset.activity_B >= 0))
    said = predictor.predict(dataset.histories, query_time=dataset.cut, rows=rows, top_k=1, batch_size=batch_size)
    assert said.activity_B is not None
    return activity_scores(said.user_ids, dataset.activity_B[rows], said.activity_B)


def _attribute_scores(predictor: Predictor, dataset: Dataset, split: str, batch_size: int) -> pa.Table:
    rows = np.flatnonzero((dataset.split_B == SPLITS.index(split)) & (dataset.attributes_BA >= 0).any(axis=1))
    said = predictor.predict(dataset.histories, query_time=dataset.cut, rows=rows, top_k=1, batch_size=batch_size)
    tables: list[pa.Table] = []
    for column, (name, classes) in enumerate(dataset.attribute_classes.items()):
        if name not in said.attributes:
            continue
        probability_BC = _over_classes(said.attributes[name], said.attribute_classes[name], classes)
        labels = dataset.attributes_BA[rows, column]
        labelled = np.flatnonzero(labels >= 0)
        tables.append(attribute_scores(said.user_ids[labelled], name, labels[labelled], probability_BC[labelled]))
    return pa.concat_tables([ATTRIBUTE.empty_table(), *tables])


def _over_classes(probability_BC: NDArray[np.float32], known: tuple[str, ...], classes: tuple[str, ...]) -> NDArray[np.float32]:
    """Probabilities over the dataset's classes; 0 for one that the model, trained on other data, does not know."""
    padded = np.pad(probability_BC, ((0, 0), (0, 1)))
    return padded[:, [known.index(value) if value in known else len(known) for value in classes]]


def _recommendation_scores(
    predictor: Predictor, dataset: Dataset, split: Literal["validation", "test"], mask_seen: bool, batch_size: int
) -> pa.Table:
    histories, dropped = dataset.histories, DROPPED[split]
    rows = np.flatnonzero(dataset.held_out_B == HELD_OUT_EVENTS)
    ranks = predictor.rank_targets(histories, rows, dataset.held_out_B, prefix=split, mask_seen=mask_seen, batch_size=batch_size)
    counts = predictor.bundle.vocabularies.micro_id.counts
    popular = popularity_ranks(histories.micro, rows, counts, dropped=dropped, mask_seen=mask_seen)
    return recommendation_scores(histories.user_ids[rows], ranks, popular)


def _baselines(dataset: Dataset, task: DownstreamTask, scores: pa.Table) -> dict[str, dict[str, float | None]]:
    if task == "recommendation":
        return {task: ranking_metrics(scores["baseline_rank"].to_numpy())}
    train_B = dataset.split_B == SPLITS.index("train")
    if task == "activity":
        rate = base_rate(dataset.activity_B[train_B])
        return {task: binary_metrics(scores["label"].to_numpy(), np.full(scores.num_rows, rate))}
    baselines: dict[str, dict[str, float | None]] = {}
    names = list(dataset.attribute_classes)
    for name, table in by_label(task, scores).items():
        shares_C = class_shares(dataset.attributes_BA[train_B, names.index(name)], len(dataset.attribute_classes[name]))
        baselines[name] = multiclass_metrics(table["label"].to_numpy(), np.tile(shares_C, (table.num_rows, 1)))
    return baselines


def _weighted_figures(task: DownstreamTask, scores: pa.Table) -> Callable[[Weights], Figures]:
    if task == "recommendation":
        return ranking_metrics_of(scores["rank"].to_numpy())
    if task == "activity":
        return binary_metrics_of(scores["label"].to_numpy(), scores["score"].to_numpy())
    return multiclass_metrics_of(scores["label"].to_numpy(), probabilities_of(scores))


def _undefined(metrics: Mapping[str, float | None], n: int) -> dict[str, str]:
    why = {name: _WHY_UNDEFINED[name.removeprefix("baseline ")] for name, value in metrics.items() if value is None}
    return {name: f"{reason} (n = {n})" for name, reason in why.items()}
