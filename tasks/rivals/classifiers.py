"""Classical rivals for the activity and the attributes: logistic regression and gradient boosting on counts.

Fitted on the training users, tuned on the validation users: ``trials`` settings each, the best validation AUC wins, and boosting stops
where the validation loss does. The test users are looked at once, by the winner. The same seed gives the same scores.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from mfn_core.data.dataset import Dataset
from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.evaluation.scores import activity_scores, attribute_scores
from mfn_core.metrics import multiclass_metrics
from mfn_core.schema import DownstreamTask
from tasks.rivals.features import category_counts, category_crosses, id_counts, recency_and_volume, side_by_side

MIN_USERS_OF_AN_ID = 20  # a rarer id is noise to a tree
MAX_CLASSES_OF_ITEMS = 10  # one tree per class and round, over thousands of columns
_MAX_ROUNDS = 1000
_PATIENCE = 50  # rounds without a better validation loss
_MAX_ITERATIONS = 1000

Settings = dict[str, float]
Predict = Callable[[sp.csr_matrix], NDArray[np.float64]]  # [users x features] -> [users x classes]


@dataclass(frozen=True)
class _Examples:
    """Labelled users: of training, of validation, and those to be scored."""

    train: sp.csr_matrix
    train_labels: NDArray[np.integer]
    validation: sp.csr_matrix
    validation_labels: NDArray[np.integer]
    num_classes: int


Fit = Callable[[_Examples, int, int], Iterator[tuple[Settings, Predict]]]  # examples, seed, trials


def logistic(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """Logistic regression on log counts of apps, items and their categories; ``trials`` values of C, evenly spread in its logarithm."""
    features = side_by_side(id_counts(dataset), category_counts(dataset))
    return _score(dataset, task, features, _fit_logistic, split=split, seed=seed, trials=trials)


def lightgbm_counts(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """LightGBM on category counts, recency and volume."""
    features = side_by_side(category_counts(dataset), recency_and_volume(dataset))
    return _score(dataset, task, features, _fit_lightgbm, split=split, seed=seed, trials=trials)


def lightgbm_crosses(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """LightGBM on category counts, recency, volume, and the outer product of both views' category shares."""
    features = side_by_side(category_counts(dataset), recency_and_volume(dataset), category_crosses(dataset))
    return _score(dataset, task, features, _fit_lightgbm, split=split, seed=seed, trials=trials)


def lightgbm_items(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """LightGBM on category counts, recency, volume, and the counts of apps and items that enough training users have met.

    An attribute of more than ``MAX_CLASSES_OF_ITEMS`` classes is left out, for its time.
    """
    ids = id_counts(dataset)
    users_of_id = np.bincount(ids[dataset.rows_of("train")].indices, minlength=ids.shape[1])
    frequent = ids[:, np.flatnonzero(users_of_id >= MIN_USERS_OF_AN_ID)]
    features = side_by_side(category_counts(dataset), recency_and_volume(dataset), frequent)
    return _score(dataset, task, features, _fit_lightgbm, split=split, seed=seed, trials=trials, max_classes=MAX_CLASSES_OF_ITEMS)


def _score(
    dataset: Dataset,
    task: DownstreamTask,
    features: sp.csr_matrix,
    fit: Fit,
    *,
    split: Literal["validation", "test"],
    seed: int,
    trials: int,
    max_classes: int | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Scores of every label of the task, and by label what tuning chose or why the label was left out."""
    assert trials >= 1
    if task not in dataset.tasks:
        raise ConfigError(f"downstream task {task} cannot be scored: {dataset.skipped[task]}; can be: {', '.join(dataset.tasks)}")
    tables: list[pa.Table] = []
    chosen: dict[str, Any] = {}
    for name, labels_B, num_classes in _labels(dataset, task):
        started = time.perf_counter()
        reason = _why_left_out(dataset, labels_B, num_classes, split, max_classes)
        if reason is not None:
            chosen[name] = {"left_out": reason}
            continue
        examples = _examples(dataset, features, labels_B, num_classes)
        settings, validation_auc, predict = _best(examples, fit, seed, trials)
        rows = _labelled(dataset, labels_B, split)
        user_ids, probability_BC = dataset.histories.user_ids[rows], predict(features[rows])
        tables.append(
            activity_scores(user_ids, labels_B[rows], probability_BC[:, 1])
            if task == "activity"
            else attribute_scores(user_ids, name, labels_B[rows], probability_BC)
        )
        seconds = time.perf_counter() - started
        chosen[name] = {"settings": settings, "validation_auc": validation_auc, "trials": trials, "seconds": round(seconds, 3)}
    if not tables:
        reasons = "; ".join(f"{name}: {facts['left_out']}" for name, facts in chosen.items())
        raise InsufficientDataError(f"downstream task {task} cannot be scored: {reasons}; give more users or another split_seed")
    return pa.concat_tables(tables), chosen


def _labels(dataset: Dataset, task: DownstreamTask) -> list[tuple[str, NDArray[np.integer], int]]:
    """Name, label per user (-1 unlabelled) and number of classes of each label of the task."""
    if task == "activity":
        return [("activity", dataset.activity_B, 2)]
    return [
        (name, dataset.attributes_BA[:, column], len(classes)) for column, (name, classes) in enumerate(dataset.attribute_classes.items())
    ]


def _labelled(dataset: Dataset, labels_B: NDArray[np.integer], split: Literal["train", "validation", "test"]) -> NDArray[np.int64]:
    rows = dataset.rows_of(split)
    return rows[labels_B[rows] >= 0]


def _why_left_out(
    dataset: Dataset, labels_B: NDArray[np.integer], num_classes: int, split: Literal["validation", "test"], max_classes: int | None
) -> str | None:
    if max_classes is not None and num_classes > max_classes:
        return f"{num_classes} classes, at most {max_classes} are fitted"
    num_known = len(np.unique(labels_B[_labelled(dataset, labels_B, "train")]))
    if num_known < 2:
        return f"classes among the labelled training users: {num_known}, at least 2 are needed"
    empty = [name for name in ("validation", split) if len(_labelled(dataset, labels_B, name)) == 0]
    return f"0 users of the {empty[0]} split have a label, 1 is needed" if empty else None


def _examples(dataset: Dataset, features: sp.csr_matrix, labels_B: NDArray[np.integer], num_classes: int) -> _Examples:
    train, validation = (_labelled(dataset, labels_B, split) for split in ("train", "validation"))
    return _Examples(features[train], labels_B[train], features[validation], labels_B[validation], num_classes)


def _best(examples: _Examples, fit: Fit, seed: int, trials: int) -> tuple[Settings, float | None, Predict]:
    """The trial of the best validation AUC, the earliest of equals; an AUC of one class only is None and less than any."""
    tried = [
        (multiclass_metrics(examples.validation_labels, predict(examples.validation))["auc"], settings, predict)
        for settings, predict in fit(examples, seed, trials)
    ]
    validation_auc, settings, predict = max(tried, key=lambda trial: -1 if trial[0] is None else trial[0])
    return settings, validation_auc, predict


def _fit_logistic(examples: _Examples, seed: int, trials: int) -> Iterator[tuple[Settings, Predict]]:
    # From strong to weak regularization, each trial starting where the last ended: fewer iterations than from zero.
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True, random_state=seed)
    for exponent in -3 + 3 * (np.arange(trials) + 0.5) / trials:  # the middles of equal parts of 0.001 … 1
        model.set_params(C=float(10**exponent)).fit(examples.train, examples.train_labels)
        yield {"C": float(10**exponent)}, _over_all_classes(deepcopy(model), examples.num_classes)


def _over_all_classes(model: LogisticRegression, num_classes: int) -> Predict:
    """Probabilities of the dataset's classes; 0 for one that no training user has."""

    def predict(features: sp.csr_matrix) -> NDArray[np.float64]:
        probability_BC = np.zeros((features.shape[0], num_classes))
        probability_BC[:, model.classes_] = model.predict_proba(features)
        return probability_BC

    return predict


def _fit_lightgbm(examples: _Examples, seed: int, trials: int) -> Iterator[tuple[Settings, Predict]]:
    fixed = {"seed": seed, "deterministic": True, "force_row_wise": True, "feature_pre_filter": False, "verbosity": -1}
    objective = {"objective": "binary"} if examples.num_classes == 2 else {"objective": "multiclass", "num_class": examples.num_classes}
    train = lgb.Dataset(examples.train, examples.train_labels, params=fixed, free_raw_data=False)
    validation = lgb.Dataset(examples.validation, examples.validation_labels, reference=train, params=fixed, free_raw_data=False)
    stop = lgb.early_stopping(_PATIENCE, verbose=False)
    for settings in _lightgbm_settings(seed, trials):
        parameters = fixed | objective | settings | {"bagging_fraction": 0.8, "bagging_freq": 1}
        model = lgb.train(parameters, train, _MAX_ROUNDS, valid_sets=[validation], callbacks=[stop])
        yield settings | {"rounds": model.best_iteration}, _two_columns(model)


def _two_columns(model: lgb.Booster) -> Predict:
    """A binary booster speaks of the second class alone."""

    def predict(features: sp.csr_matrix) -> NDArray[np.float64]:
        said = np.asarray(model.predict(features))
        return np.stack([1 - said, said], axis=1) if said.ndim == 1 else said

    return predict


def _lightgbm_settings(seed: int, trials: int) -> list[Settings]:
    """Settings that mostly do well, then random ones."""
    generator = np.random.default_rng(seed)
    usual: Settings = {"num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 20, "feature_fraction": 0.5, "lambda_l2": 1.0}
    drawn: list[Settings] = [
        {
            "num_leaves": int(generator.choice([4, 7, 15, 31, 63])),
            "learning_rate": float(10 ** generator.uniform(-1.7, -0.7)),
            "min_data_in_leaf": int(generator.choice([5, 10, 20, 40, 80])),
            "feature_fraction": float(generator.uniform(0.2, 1)),
            "lambda_l2": float(10 ** generator.uniform(-2, 1.5)),
        }
        for _ in range(trials - 1)
    ]
    return [usual, *drawn]
