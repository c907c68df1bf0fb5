"""Figures of many models and seeds as one table: means, intervals, and the difference of each model to ours.

Two questions are asked apart. *Would other seeds give this?* The t-interval of the mean over seeds, and a paired t-test. *Would other
users give this?* The bootstrap over test users of the mean over seeds; for a difference the same users are drawn for both models. The
verdict is the bootstrap's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from mfn_core.errors import ArtifactError
from mfn_core.evaluation.bootstrap import MIN_DEFINED_SHARE, PERCENTILES, reflected
from mfn_core.evaluation.evaluator import by_label, figures_of
from mfn_core.schema import USER_ID, DownstreamTask

MAIN_METRICS: Mapping[DownstreamTask, tuple[str, ...]] = {
    "activity": ("auc",),
    "attribute": ("auc",),
    "recommendation": ("hr@10", "ndcg@10"),
}

Interval = tuple[float, float] | tuple[None, None]
Verdict = Literal["better", "worse", "no difference"]
PermutationVerdict = Literal["vanishes", "told apart", "not told apart", "no gain"]
Scores = Mapping[str, Mapping[int, pa.Table]]  # of one label, by model and seed

_LOWER_IS_BETTER = {"ece", "brier"}
_TRUTH: Mapping[DownstreamTask, str] = {"activity": "label", "attribute": "label", "recommendation": "baseline_rank"}
_LEVEL = 0.95


@dataclass(frozen=True)
class Row:
    """One figure of one model on one label."""

    model: str
    task: DownstreamTask
    label: str  # the attribute's name, else the task's
    metric: str
    n: int  # users
    seeds: int
    seconds: float | None  # mean over seeds of tuning, training and scoring of all labels
    mean: float | None  # over seeds
    low: float | None  # 95 % t-interval over seeds; None for one seed
    high: float | None
    users_low: float | None  # 95 % bootstrap interval over users
    users_high: float | None
    difference: float | None  # the reference minus this model
    difference_low: float | None  # 95 % paired bootstrap interval over users
    difference_high: float | None
    p: float | None  # of the paired t-test over seeds
    verdict: Verdict | None  # of the reference against this model, by the bootstrap
    by_seed: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object without NaN."""
        return asdict(self)


@dataclass(frozen=True)
class _Sampled:
    """A model's figures on all users by seed, and on resampled users as the mean over seeds."""

    by_seed: Mapping[int, Mapping[str, float | None]]
    samples: Mapping[str, NDArray[np.float64]]  # NaN where undefined


def rows_of(
    task: DownstreamTask,
    scores: Mapping[str, Mapping[int, pa.Table]],
    seconds: Mapping[str, float],
    *,
    reference: str,
    samples: int,
    seed: int = 0,
) -> list[Row]:
    """All figures of a downstream task.

    Args:
        task: of all scores.
        scores: ``Evaluation.scores`` by model and seed.
        seconds: by model.
        reference: the model that the others are compared with; may be absent.
        samples: bootstrap resamples of the users.
        seed: of the resamples.

    Raises:
        ArtifactError: two models were asked about different users, or of different truths.
    """
    by_label_of = {model: {number: by_label(task, table) for number, table in tables.items()} for model, tables in scores.items()}
    labels = list(dict.fromkeys(label for tables in by_label_of.values() for parts in tables.values() for label in parts))
    rows: list[Row] = []
    for label in labels:
        of_label = {
            model: {number: parts[label] for number, parts in tables.items() if label in parts} for model, tables in by_label_of.items()
        }
        aligned = _aligned(task, label, {model: tables for model, tables in of_label.items() if tables})
        rows += _rows_of_label(task, label, aligned, seconds, reference, samples, seed)
    return rows


def permutation_rows(rows: Sequence[Row], shuffled_rows: Sequence[Row], between: Sequence[Row]) -> list[dict[str, Any]]:
    """What the second view gives, and what is left of that when it is another user's: of every figure that all lists have.

    Args:
        rows: of the model that reads one view, the reference being the network.
        shuffled_rows: of the same model, the reference being the network that reads views which do not belong together.
        between: of that network, the reference being the network.

    Returns:
        ``task, label, metric``, both gains over the one view and the difference of the networks, each with its 95 % paired
        interval over users, and the ``verdict`` of ``permutation_verdict``.
    """
    shuffled = {(row.label, row.metric): _difference(row) for row in shuffled_rows}
    differences = {(row.label, row.metric): _difference(row) for row in between}
    return [
        {
            "task": row.task,
            "label": row.label,
            "metric": row.metric,
            "gain": _difference(row),
            "shuffled_gain": shuffled[key],
            "difference": differences[key],
            "verdict": permutation_verdict(row.metric, _difference(row), shuffled[key], differences[key]),
        }
        for row in rows
        if (key := (row.label, row.metric)) in shuffled.keys() & differences.keys()
    ]


def permutation_verdict(
    metric: str, gain: Sequence[float | None], shuffled_gain: Sequence[float | None], difference: Sequence[float | None]
) -> PermutationVerdict | None:
    """Whether the second view must be the user's own, by intervals over users.

    That one gain is beyond chance and the other is not tells nothing of the two: their paired difference does.

    Args:
        metric: of all three, which are a value and its interval.
        gain: of the network over the one view.
        shuffled_gain: of the network on views which do not belong together, over the same.
        difference: the network minus that other.

    Returns:
        ``no gain`` that could vanish; own and other views ``not told apart``; the gain ``vanishes``: it is more than that of
        other views, which is none; else they are ``told apart`` only. None where an interval is undefined.
    """
    own, of_shuffled, between = (_verdict(metric, low, high) for _, low, high in (gain, shuffled_gain, difference))
    if own is None or of_shuffled is None or between is None:
        return None
    if own != "better":
        return "no gain"
    if between == "no difference":
        return "not told apart"
    return "vanishes" if (between, of_shuffled) == ("better", "no difference") else "told apart"


def _difference(row: Row) -> list[float | None]:
    return [row.difference, row.difference_low, row.difference_high]


def _rows_of_label(
    task: DownstreamTask, label: str, scores: Scores, seconds: Mapping[str, float], reference: str, samples: int, seed: int
) -> list[Row]:
    sampled = {model: _sample(task, tables, samples, seed) for model, tables in scores.items()}
    return [
        _row(
            model,
            task,
            label,
            metric,
            n=next(iter(scores[model].values())).num_rows,
            seconds=seconds[model],
            own=own,
            reference=None if model == reference else sampled.get(reference),
        )
        for model, own in sampled.items()
        for metric in own.samples
    ]


def _aligned(task: DownstreamTask, label: str, scores: Scores) -> dict[str, dict[int, pa.Table]]:
    """The scores in one order of users, who must be the same everywhere, with the same truths."""
    ordered = {model: {number: table.sort_by(USER_ID) for number, table in tables.items()} for model, tables in scores.items()}
    first = next(iter(ordered))
    expected = next(iter(ordered[first].values()))
    for model, tables in ordered.items():
        for number, table in tables.items():
            if table[USER_ID].to_pylist() != expected[USER_ID].to_pylist():
                common = len(set(table[USER_ID].to_pylist()) & set(expected[USER_ID].to_pylist()))
                raise ArtifactError(
                    f"{label}: {model} of seed {number} was asked about {table.num_rows} users, {first} about {expected.num_rows}, "
                    f"{common} of them the same; measure both on the same dataset"
                )
            if not np.array_equal(table[_TRUTH[task]].to_numpy(), expected[_TRUTH[task]].to_numpy()):
                raise ArtifactError(
                    f"{label}: {model} of seed {number} has other values of {_TRUTH[task]} than {first}; measure both on the same dataset"
                )
    return ordered


def _sample(task: DownstreamTask, tables: Mapping[int, pa.Table], samples: int, seed: int) -> _Sampled:
    figures = {number: figures_of(task, table) for number, table in tables.items()}
    by_seed = {number: figure(np.arange(tables[number].num_rows)) for number, figure in figures.items()}
    # A model without chance says the same at every seed: it is resampled once.
    distinct: list[int] = []
    for number, table in tables.items():
        if not any(table.equals(tables[other]) for other in distinct):
            distinct.append(number)
    weights = [sum(tables[number].equals(table) for table in tables.values()) for number in distinct]
    generator = np.random.default_rng(seed)
    num_users = next(iter(tables.values())).num_rows
    drawn: dict[str, list[float]] = {}
    for _ in range(samples):
        users = generator.integers(0, num_users, num_users)
        said = [figures[number](users) for number in distinct]
        for metric in said[0]:
            drawn.setdefault(metric, []).append(_weighted([each[metric] for each in said], weights))
    return _Sampled(by_seed, {metric: np.array(values) for metric, values in drawn.items()})


def _weighted(values: Sequence[float | None], weights: Sequence[int]) -> float:
    return float("nan") if None in values else float(np.average(np.array(values, float), weights=weights))


def _row(
    model: str, task: DownstreamTask, label: str, metric: str, *, n: int, seconds: float, own: _Sampled, reference: _Sampled | None
) -> Row:
    values = {number: figures[metric] for number, figures in own.by_seed.items()}
    mean = _mean(list(values.values()))
    low, high = _over_seeds(list(values.values()))
    users_low, users_high = _over_users(own.samples[metric], mean if metric == "ece" else None)
    difference, difference_low, difference_high, p = None, None, None, None
    if reference is not None:
        theirs = {number: figures[metric] for number, figures in reference.by_seed.items()}
        reference_mean = _mean(list(theirs.values()))
        difference = None if mean is None or reference_mean is None else reference_mean - mean
        difference_low, difference_high = _over_users(reference.samples[metric] - own.samples[metric])
        p = _paired_p(theirs, values)
    return Row(
        model=model,
        task=task,
        label=label,
        metric=metric,
        n=n,
        seeds=len(values),
        seconds=seconds,
        mean=mean,
        low=low,
        high=high,
        users_low=users_low,
        users_high=users_high,
        difference=difference,
        difference_low=difference_low,
        difference_high=difference_high,
        p=p,
        verdict=_verdict(metric, difference_low, difference_high),
        by_seed={str(number): value for number, value in values.items()},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(np.array(values, float)))


def _over_seeds(values: Sequence[float | None]) -> Interval:
    """The t-interval of the mean."""
    if None in values or len(values) < 2:
        return None, None
    array = np.array(values, float)
    half = float(stats.t.ppf((1 + _LEVEL) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return float(array.mean()) - half, float(array.mean()) + half


def _over_users(samples: NDArray[np.float64], reflected_at: float | None = None) -> Interval:
    """Percentiles of the resamples; reflected for the ECE, whose bias resampling doubles (see ``evaluator.measure``)."""
    defined = samples[~np.isnan(samples)]
    if len(defined) < MIN_DEFINED_SHARE * len(samples) or len(defined) == 0:
        return None, None
    low, high = (float(value) for value in np.percentile(defined, PERCENTILES))
    return (low, high) if reflected_at is None else reflected(low, high, reflected_at)


def _paired_p(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> float | None:
    pairs = [(ours[number], theirs[number]) for number in ours if number in theirs]
    defined = np.array([pair for pair in pairs if None not in pair], float)
    # Without any spread of the differences there is nothing to test by.
    if len(defined) < 2 or np.ptp(defined[:, 0] - defined[:, 1]) == 0:
        return None
    return float(stats.ttest_rel(defined[:, 0], defined[:, 1]).pvalue)


def _verdict(metric: str, low: float | None, high: float | None) -> Verdict | None:
    """Of the reference, from the interval of the reference minus the model."""
    if low is None or high is None:
        return None
    if low <= 0 <= high:
        return "no difference"
    return "better" if (low > 0) != (metric in _LOWER_IS_BETTER) else "worse"
