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
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CUTOFFS = (5, 10)

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
    positive_B = np.asarray(labels).astype(bool)
    scores_B = _finite(scores)
    assert positive_B.shape == scores_B.shape, (positive_B.shape, scores_B.shape)
    num_positive = int(positive_B.sum())
    num_negative = len(positive_B) - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    _, group_B, sizes = np.unique(scores_B, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = float(mid_ranks[group_B][positive_B].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def ece(outcomes: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Expected calibration error, as the head of this module defines it.

    Args:
        outcomes: [B] 1 where what was predicted came true, else 0.
        probabilities: [B] what it was predicted with.

    Returns:
        None for an empty sample.
    """
    outcomes_B = np.asarray(outcomes).astype(bool)
    probabilities_B = _finite(probabilities)
    assert outcomes_B.shape == probabilities_B.shape, (outcomes_B.shape, probabilities_B.shape)
    assert ((probabilities_B >= 0) & (probabilities_B <= 1 + _ROUNDING)).all(), "calibration is of probabilities, not of logits"
    bin_B = np.searchsorted(_BIN_EDGES, probabilities_B, side="left")
    gaps = np.bincount(bin_B, weights=probabilities_B - outcomes_B, minlength=_NUM_BINS)
    return _ratio(float(np.abs(gaps).sum()), len(outcomes_B))


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
    positive_B, scores_B = np.asarray(labels).astype(bool), _finite(scores)
    predicted_B = scores_B >= threshold
    hits = int((positive_B & predicted_B).sum())
    num_positive, num_predicted = int(positive_B.sum()), int(predicted_B.sum())
    return {
        "auc": auc(positive_B, scores),
        "accuracy": _ratio(int((positive_B == predicted_B).sum()), len(positive_B)),
        "precision": _ratio(hits, num_predicted),
        "recall": _ratio(hits, num_positive),
        "f1": _ratio(2 * hits, num_positive + num_predicted),
        "ece": ece(positive_B, scores_B),
        "brier": _ratio(float(((scores_B - positive_B) ** 2).sum()), len(positive_B)),
    }


def multiclass_metrics(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float | None]:
    """Macro one-vs-rest AUC, accuracy, macro-averaged precision, recall, F1, and calibration.

    Args:
        labels: [B] class, 0 to C - 1.
        probabilities: [B x C]; the highest is the prediction, the lowest class winning a tie.

    Returns:
        ``auc, accuracy, precision, recall, f1, ece, brier``, averaged as the head of this module says; all None for an empty
        sample, AUC None where one class only occurs.
    """
    labels_B = np.asarray(labels).astype(np.int64)
    probabilities_BC = _finite(probabilities)
    assert labels_B.shape == probabilities_BC.shape[:1], (labels_B.shape, probabilities_BC.shape)
    num_classes = probabilities_BC.shape[1]
    if len(labels_B) == 0:
        return dict.fromkeys(("auc", "accuracy", "precision", "recall", "f1", "ece", "brier"))
    assert ((labels_B >= 0) & (labels_B < num_classes)).all(), f"a label is not among the {num_classes} classes"
    scored = (1,) if num_classes == 2 else range(num_classes)
    predicted_B = probabilities_BC.argmax(axis=1)
    distance_BC = probabilities_BC - (labels_B[:, None] == np.arange(num_classes))
    hits_C = np.bincount(labels_B[labels_B == predicted_B], minlength=num_classes)
    members_C = np.bincount(labels_B, minlength=num_classes)
    predicted_C = np.bincount(predicted_B, minlength=num_classes)
    occurs_C = (members_C + predicted_C) > 0
    return {
        "auc": _mean_of_defined([auc(labels_B == c, probabilities_BC[:, c]) for c in scored]),
        "accuracy": float((labels_B == predicted_B).mean()),
        "precision": float((hits_C / np.maximum(predicted_C, 1))[occurs_C].mean()),
        "recall": float((hits_C / np.maximum(members_C, 1))[occurs_C].mean()),
        "f1": float((2 * hits_C / np.maximum(members_C + predicted_C, 1))[occurs_C].mean()),
        "ece": ece(labels_B == predicted_B, probabilities_BC.max(axis=1)),
        "brier": float((distance_BC**2).sum(axis=1).mean()),
    }


def ranking_metrics(ranks: ArrayLike) -> dict[str, float | None]:
    """Hit rate and NDCG at 5 and 10 of one relevant item per user.

    Args:
        ranks: [B] rank of the target among all items, 0 for the best; a tie stands at the middle of its ranks, and an
            item that cannot be ranked at all stands at infinity.

    Returns:
        ``hr@5, hr@10, ndcg@5, ndcg@10``: hr@k is the share of ranks below k, and a rank r below k adds
        1 / log2(r + 2) to ndcg@k. None for an empty sample.
    """
    ranks_B = np.asarray(ranks, dtype=np.float64)
    assert (ranks_B >= 0).all(), "ranks count from 0 and are never NaN"
    gain_B = 1 / np.log2(ranks_B + 2)
    hits = {f"hr@{k}": _ratio(int((ranks_B < k).sum()), len(ranks_B)) for k in CUTOFFS}
    gains = {f"ndcg@{k}": _ratio(float(gain_B[ranks_B < k].sum()), len(ranks_B)) for k in CUTOFFS}
    return hits | gains


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert np.isfinite(array).all(), "scores must be finite: a network that gives NaN is broken, not bad"
    return array


def _ratio(part: float, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _mean_of_defined(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
