"""Figures of merit of the three downstream tasks, on numpy alone.

A figure that a sample cannot give (an AUC of one class, a precision of no predicted positive) is None, never NaN: it travels
through JSON and Airflow's XCom, which refuse NaN. Ties count half, as in scikit-learn.

Averages over classes (*macro*, here in the sense of the metric, not of the view):

* AUC: one class against the rest, over the classes that have both a member and a non-member in the sample. Two classes share
  one AUC, that of the second class's probability.
* Precision, recall and F1: over the classes that occur in the labels or among the predictions, a class never predicted
  counting precision 0 and a class without a member recall 0. That is scikit-learn's ``average="macro", zero_division=0``. Two
  classes are averaged alike, since no value of an attribute is "the positive one"; only the activity task has a positive class.

A class that is neither in the labels nor predicted is left out of both.

Calibration, lower is better:

* ECE, the expected calibration error, 0 to 1: predictions fall by their probability into 15 bins of equal width, ``((m - 1) / 15,
  m / 15]`` with 0 in the first; a bin's gap between its mean probability and the share of its outcomes that came true is weighted
  with its share of the predictions (Guo et al. 2017). Activity: the probability and the share of label 1. An attribute, of two
  classes too: the probability of the predicted class, and how often it is the right one (top-label ECE). Over few users it is
  biased upwards: where a bin holds ten, chance alone opens a gap of about 0.1.
* Brier score: activity, the mean squared difference of probability and label, 0 to 1; an attribute, of two classes too, the mean
  squared distance of the probabilities to the one-hot label, summed over the classes, 0 to 2. Both scales are those of
  scikit-learn's ``brier_score_loss``, which however counts two classes as one.

Every figure has two forms. ``auc(labels, scores)`` is of a sample in which each user counts once. ``auc_of(labels, scores)`` sorts and
compares that sample once and answers for any weights, whole numbers that say how often each user counts: what a sample gives that holds
a user of weight 2 twice and one of weight 0 not at all. A bootstrap asks it a thousand times.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CUTOFFS = (5, 10)

Weights = NDArray[np.int64]  # [B] how often each user counts

_NUM_BINS = 15
_BIN_EDGES = np.linspace(0, 1, _NUM_BINS + 1)[1:-1]
_ROUNDING = 1e-6  # a softmax in single precision may sum up to a little more than 1


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a positive outscores a negative, a tie counting half.

    Args:
        labels: [B] 0 or 1.
        scores: [B] higher means more likely positive.

    Returns:
        None unless both classes occur.
    """
    return auc_of(labels, scores)(_once(labels))


def auc_of(labels: ArrayLike, scores: ArrayLike) -> Callable[[Weights], float | None]:
    """``auc`` for any weights: the scores are sorted once."""
    positive_B = np.asarray(labels).astype(bool)
    scores_B = _finite(scores)
    assert positive_B.shape == scores_B.shape, (positive_B.shape, scores_B.shape)
    order = np.argsort(scores_B)
    positives = np.flatnonzero(positive_B)
    first, stop = (np.searchsorted(scores_B, scores_B[positives], side=side, sorter=order) for side in ("left", "right"))

    def weighted(weights_B: Weights) -> float | None:
        weights = weights_B[positives]
        num_positive = int(weights.sum())
        num_negative = int(weights_B.sum()) - num_positive
        if num_positive == 0 or num_negative == 0:
            return None
        below = np.append(0, weights_B[order].cumsum())
        # A positive beats those below and half of those tied; positives against positives come to half their square. Doubled, all is whole.
        twice_won = int((below[first] + below[stop]) @ weights) - num_positive**2
        return twice_won / (2 * num_positive * num_negative)

    return weighted


def ece(outcomes: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Expected calibration error, as the head of this module defines it.

    Args:
        outcomes: [B] 1 where what was predicted came true, else 0.
        probabilities: [B] what it was predicted with.

    Returns:
        None for an empty sample.
    """
    return ece_of(outcomes, probabilities)(_once(outcomes))


def ece_of(outcomes: ArrayLike, probabilities: ArrayLike) -> Callable[[Weights], float | None]:
    """``ece`` for any weights."""
    outcomes_B = np.asarray(outcomes).astype(bool)
    probabilities_B = _finite(probabilities)
    assert outcomes_B.shape == probabilities_B.shape, (outcomes_B.shape, probabilities_B.shape)
    assert ((probabilities_B >= 0) & (probabilities_B <= 1 + _ROUNDING)).all(), "calibration is of probabilities, not of logits"
    bin_B = np.searchsorted(_BIN_EDGES, probabilities_B, side="left")
    gap_B = probabilities_B - outcomes_B

    def weighted(weights_B: Weights) -> float | None:
        gaps = np.bincount(bin_B, weights=weights_B * gap_B, minlength=_NUM_BINS)
        return _ratio(np.abs(gaps).sum(), weights_B.sum())

    return weighted


def binary_metrics(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> dict[str, float | None]:
    """AUC, accuracy, precision, recall, F1 of the positive class, and calibration.

    Args:
        labels: [B] 0 or 1.
        scores: [B] probability of 1.
        threshold: a score at or above it predicts 1.

    Returns:
        ``auc, accuracy, precision, recall, f1, ece, brier``. None: precision where nothing is predicted positive, recall where
        nothing is positive, F1 where neither occurs, everything for an empty sample.
    """
    return binary_metrics_of(labels, scores, threshold)(_once(labels))


def binary_metrics_of(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> Callable[[Weights], dict[str, float | None]]:
    """``binary_metrics`` for any weights."""
    positive_B, scores_B = np.asarray(labels).astype(bool), _finite(scores)
    predicted_B = scores_B >= threshold
    hit_B, right_B, squared_B = positive_B & predicted_B, positive_B == predicted_B, (scores_B - positive_B) ** 2
    area, calibration = auc_of(positive_B, scores_B), ece_of(positive_B, scores_B)

    def weighted(weights_B: Weights) -> dict[str, float | None]:
        hits, num_positive, num_predicted = ((weights_B * flags_B).sum() for flags_B in (hit_B, positive_B, predicted_B))
        return {
            "auc": area(weights_B),
            "accuracy": _mean(right_B, weights_B),
            "precision": _ratio(hits, num_predicted),
            "recall": _ratio(hits, num_positive),
            "f1": _ratio(2 * hits, num_positive + num_predicted),
            "ece": calibration(weights_B),
            "brier": _mean(squared_B, weights_B),
        }

    return weighted


def multiclass_metrics(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float | None]:
    """Macro one-vs-rest AUC, accuracy, macro-averaged precision, recall, F1, and calibration.

    Args:
        labels: [B] class, 0 to C - 1.
        probabilities: [B x C]; the highest is the prediction, the lowest class winning a tie.

    Returns:
        ``auc, accuracy, precision, recall, f1, ece, brier``, averaged as the head of this module says; all None for an empty
        sample, AUC None where one class only occurs.
    """
    return multiclass_metrics_of(labels, probabilities)(_once(labels))


def multiclass_metrics_of(labels: ArrayLike, probabilities: ArrayLike) -> Callable[[Weights], dict[str, float | None]]:
    """``multiclass_metrics`` for any weights; holds [B x C] whole numbers, the order of the users by each class's probability."""
    labels_B = np.asarray(labels).astype(np.int64)
    probabilities_BC = _finite(probabilities)
    assert labels_B.shape == probabilities_BC.shape[:1], (labels_B.shape, probabilities_BC.shape)
    num_classes = probabilities_BC.shape[1]
    assert ((labels_B >= 0) & (labels_B < num_classes)).all(), f"a label is not among the {num_classes} classes"
    scored = (1,) if num_classes == 2 else range(num_classes)
    predicted_B = probabilities_BC.argmax(axis=1)
    right_B = labels_B == predicted_B
    distance_B = ((probabilities_BC - (labels_B[:, None] == np.arange(num_classes))) ** 2).sum(axis=1)
    areas = [auc_of(labels_B == c, probabilities_BC[:, c]) for c in scored]
    calibration = ece_of(right_B, probabilities_BC.max(axis=1))

    def weighted(weights_B: Weights) -> dict[str, float | None]:
        if not weights_B.any():
            return dict.fromkeys(("auc", "accuracy", "precision", "recall", "f1", "ece", "brier"))
        hits_C = np.bincount(labels_B, weights_B * right_B, num_classes)
        members_C = np.bincount(labels_B, weights_B, num_classes)
        predicted_C = np.bincount(predicted_B, weights_B, num_classes)
        occurs_C = (members_C + predicted_C) > 0
        return {
            "auc": _mean_of_defined([area(weights_B) for area in areas]),
            "accuracy": _mean(right_B, weights_B),
            "precision": float((hits_C / np.maximum(predicted_C, 1))[occurs_C].mean()),
            "recall": float((hits_C / np.maximum(members_C, 1))[occurs_C].mean()),
            "f1": float((2 * hits_C / np.maximum(members_C + predicted_C, 1))[occurs_C].mean()),
            "ece": calibration(weights_B),
            "brier": _mean(distance_B, weights_B),
        }

    return weighted


def ranking_metrics(ranks: ArrayLike) -> dict[str, float | None]:
    """Hit rate and NDCG at 5 and 10 of one relevant item per user.

    Args:
        ranks: [B] rank of the target among all items, 0 for the best; a tie stands at the middle of its ranks, and an
            item that cannot be ranked at all stands at infinity.

    Returns:
        ``hr@5, hr@10, ndcg@5, ndcg@10``: hr@k is the share of ranks below k, and a rank r below k adds
        1 / log2(r + 2) to ndcg@k. None for an empty sample.
    """
    return ranking_metrics_of(ranks)(_once(ranks))


def ranking_metrics_of(ranks: ArrayLike) -> Callable[[Weights], dict[str, float | None]]:
    """``ranking_metrics`` for any weights."""
    ranks_B = np.asarray(ranks, dtype=np.float64)
    assert (ranks_B >= 0).all(), "ranks count from 0 and are never NaN"
    gain_B = 1 / np.log2(ranks_B + 2)
    hits = {f"hr@{k}": ranks_B < k for k in CUTOFFS}
    gains = {f"ndcg@{k}": gain_B * (ranks_B < k) for k in CUTOFFS}
    return lambda weights_B: {name: _mean(values_B, weights_B) for name, values_B in (hits | gains).items()}


def _once(users: ArrayLike) -> Weights:
    return np.ones(len(np.asarray(users)), np.int64)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert np.isfinite(array).all(), "scores must be finite: a network that gives NaN is broken, not bad"
    return array


def _mean(values_B: NDArray[np.float64] | NDArray[np.bool_], weights_B: Weights) -> float | None:
    return _ratio((weights_B * values_B).sum(), weights_B.sum())


def _ratio(part: np.number, whole: np.number) -> float | None:
    return float(part / whole) if whole else None


def _mean_of_defined(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
