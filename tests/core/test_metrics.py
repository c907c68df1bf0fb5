"""Every metric by hand, then against an independent reference on random inputs with ties."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from mfn_core.metrics import (
    auc,
    auc_of,
    binary_metrics,
    binary_metrics_of,
    ece,
    ece_of,
    multiclass_metrics,
    multiclass_metrics_of,
    ranking_metrics,
    ranking_metrics_of,
)

SEEDS = range(20)


def mean_gap(outcomes, probabilities):
    """ECE in a plain loop over the bins."""
    gap = 0.0
    for number in range(15):
        within = [
            (outcome, probability)
            for outcome, probability in zip(outcomes, probabilities, strict=True)
            if number / 15 < probability <= (number + 1) / 15 or (number == 0 and probability == 0)
        ]
        if within:
            true, said = np.mean(within, axis=0)
            gap += len(within) / len(outcomes) * abs(true - said)
    return gap


def test_auc_counts_a_tie_half():
    # pairs (positive, negative): .5>.1 yes, .5=.5 half, .9>.1 yes, .9>.5 yes
    assert auc([0, 1, 0, 1], [0.1, 0.5, 0.5, 0.9]) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1, 1]])
def test_auc_of_one_class_is_undefined(labels):
    assert auc(labels, [0.5] * len(labels)) is None


def test_binary_metrics_by_hand():
    # predicted 1 at or above .5: users 1, 2, 3; of them 1 and 3 are positive, and positive user 4 is missed
    assert binary_metrics([0, 1, 0, 1, 1], [0.1, 0.5, 0.7, 0.9, 0.2]) == pytest.approx(
        {
            "auc": 4 / 6,
            "accuracy": 3 / 5,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "ece": (0.1 + 0.5 + 0.7 + 0.1 + 0.8) / 5,  # everybody in a bin of their own
            "brier": (0.1**2 + 0.5**2 + 0.7**2 + 0.1**2 + 0.8**2) / 5,
        }
    )


@pytest.mark.parametrize(
    ("labels", "scores", "undefined"),
    [
        ([0, 1], [0.1, 0.2], {"precision"}),
        ([0, 0], [0.1, 0.9], {"auc", "recall"}),
        ([0, 0], [0.1, 0.2], {"auc", "precision", "recall", "f1"}),
        ([], [], {"auc", "accuracy", "precision", "recall", "f1", "ece", "brier"}),
    ],
    ids=["nothing predicted positive", "nothing positive", "neither", "empty"],
)
def test_undefined_binary_figures_are_none(labels, scores, undefined):
    metrics = binary_metrics(labels, scores)
    assert {name for name, value in metrics.items() if value is None} == undefined
    assert "NaN" not in json.dumps(metrics)


@pytest.mark.parametrize("seed", SEEDS)
def test_binary_metrics_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    scores = rng.integers(0, 8, 200) / 7  # eight values for 200 users: ties everywhere
    predicted = scores >= 0.5
    assert binary_metrics(labels, scores) == pytest.approx(
        {
            "auc": reference.roc_auc_score(labels, scores),
            "accuracy": reference.accuracy_score(labels, predicted),
            "precision": reference.precision_score(labels, predicted),
            "recall": reference.recall_score(labels, predicted),
            "f1": reference.f1_score(labels, predicted),
            "ece": mean_gap(labels, scores),
            "brier": reference.brier_score_loss(labels, scores),
        },
        abs=1e-6,
    )


def test_multiclass_metrics_by_hand():
    probabilities = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]]
    # predicted 0, 0, 1, 2 for 0, 1, 1, 2; AUC of class 0: 1, class 1: 3.5 of 4 pairs (.3 ties .3), class 2: 1
    assert multiclass_metrics([0, 1, 1, 2], probabilities) == pytest.approx(
        {
            "auc": (1 + 3.5 / 4 + 1) / 3,
            "accuracy": 3 / 4,
            "precision": (1 / 2 + 1 + 1) / 3,
            "recall": (1 + 1 / 2 + 1) / 3,
            "f1": (2 / 3 + 2 / 3 + 1) / 3,
            "ece": (abs(0.8 - 1) + abs(0.6 - 0) + abs(0.7 - 1) + abs(0.4 - 1)) / 4,
            "brier": (0.04 + 0.01 + 0.01 + 0.36 + 0.49 + 0.01 + 0.04 + 0.09 + 0.01 + 0.09 + 0.09 + 0.36) / 4,
        }
    )


def test_two_classes_have_one_auc_and_averages_over_both():
    metrics = multiclass_metrics([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    assert metrics == pytest.approx(
        {
            "auc": 1.0,
            "accuracy": 2 / 3,
            "precision": (1 + 1 / 2) / 2,
            "recall": (1 / 2 + 1) / 2,
            "f1": (2 / 3 + 2 / 3) / 2,
            "ece": (abs(0.9 - 1) + abs(0.6 - 0) + abs(0.7 - 1)) / 3,
            "brier": (2 * 0.1**2 + 2 * 0.6**2 + 2 * 0.3**2) / 3,
        }
    )


def averages(metrics):
    return {name: value for name, value in metrics.items() if name not in ("ece", "brier")}


def test_a_class_neither_in_the_labels_nor_predicted_is_left_out():
    metrics = multiclass_metrics([0, 1], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert averages(metrics) == {"auc": 1.0, "accuracy": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_a_class_predicted_but_absent_counts_zero():
    metrics = multiclass_metrics([0, 1], [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    expected = {"auc": (1 + 1 / 2) / 2, "accuracy": 1 / 2, "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3}
    assert averages(metrics) == pytest.approx(expected)


def test_undefined_multiclass_figures_are_none():
    assert multiclass_metrics([1, 1], [[0.2, 0.7, 0.1], [0.2, 0.7, 0.1]])["auc"] is None
    assert set(multiclass_metrics([], np.zeros((0, 3))).values()) == {None}


@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("seed", SEEDS)
def test_multiclass_metrics_agree_with_scikit_learn(seed, num_classes):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, 150)])
    weights = rng.integers(1, 5, (len(labels), num_classes))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    one_vs_rest = probabilities[:, 1] if num_classes == 2 else probabilities
    assert multiclass_metrics(labels, probabilities) == pytest.approx(
        {
            "auc": reference.roc_auc_score(labels, one_vs_rest, multi_class="ovr", average="macro"),
            "accuracy": reference.accuracy_score(labels, predicted),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "ece": mean_gap(labels == predicted, probabilities.max(axis=1)),
            "brier": reference.brier_score_loss(labels, probabilities, labels=range(num_classes), scale_by_half=False),
        },
        abs=1e-6,
    )


def test_multiclass_auc_of_a_sample_that_lacks_a_class_averages_the_others():
    labels = np.array([0, 2, 0, 2, 2])
    probabilities = np.array([[0.5, 0.2, 0.3], [0.5, 0.1, 0.4], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    expected = np.mean([reference.roc_auc_score(labels == c, probabilities[:, c]) for c in (0, 2)])
    assert multiclass_metrics(labels, probabilities)["auc"] == pytest.approx(expected, abs=1e-6)


def test_ece_by_hand():
    # bin ]1/15, 2/15]: .1 and .13, one of two came true, gap |.115 - .5|; bin ]14/15, 1]: .95 and 1, both, gap |.975 - 1|
    assert ece([1, 0, 1, 1], [0.1, 0.13, 0.95, 1.0]) == pytest.approx((2 * 0.385 + 2 * 0.025) / 4)


def test_gaps_of_one_bin_cancel_and_gaps_of_two_bins_add_up():
    assert ece([1, 0], [0.5, 0.5]) == 0
    assert ece([1, 0], [0.45, 0.55]) == pytest.approx(0.55)


def test_an_upper_bin_edge_belongs_to_the_bin_and_zero_to_the_first():
    # .2 = 3/15 closes the bin of .19, and .01 that of 0: each pair cancels to its mean
    assert ece([1, 0], [0.2, 0.19]) == pytest.approx((1 - 0.39) / 2)
    assert ece([1, 0], [0.0, 0.01]) == pytest.approx((1 - 0.01) / 2)


def test_certainty_in_the_truth_is_perfect_and_in_the_contrary_the_worst():
    assert (binary_metrics([1, 0], [1, 0])["ece"], binary_metrics([1, 0], [1, 0])["brier"]) == (0, 0)
    assert (binary_metrics([1, 0], [0, 1])["ece"], binary_metrics([1, 0], [0, 1])["brier"]) == (1, 1)
    assert (multiclass_metrics([0], [[0, 0, 1]])["ece"], multiclass_metrics([0], [[0, 0, 1]])["brier"]) == (1, 2)


def test_what_is_no_probability_has_no_calibration():
    with pytest.raises(AssertionError, match="not of logits"):
        ece([1, 0], [1.5, 0.2])


def test_ranking_metrics_by_hand():
    # ranks 0, 4, 7, 20: three in the first ten, two in the first five
    assert ranking_metrics([0, 4, 7, 20]) == pytest.approx(
        {
            "hr@5": 2 / 4,
            "hr@10": 3 / 4,
            "ndcg@5": (1 + 1 / math.log2(6)) / 4,
            "ndcg@10": (1 + 1 / math.log2(6) + 1 / math.log2(9)) / 4,
        }
    )


def test_an_item_that_cannot_be_ranked_is_a_miss():
    assert ranking_metrics([0, float("inf")]) == {"hr@5": 0.5, "hr@10": 0.5, "ndcg@5": 0.5, "ndcg@10": 0.5}


def test_ranking_metrics_of_nobody_are_undefined():
    assert ranking_metrics([]) == {"hr@5": None, "hr@10": None, "ndcg@5": None, "ndcg@10": None}


@pytest.mark.parametrize("seed", SEEDS)
def test_ranking_metrics_agree_with_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, (60, 30)).astype(float)
    targets = rng.integers(0, 30, 60)
    ranks = []
    expected = dict.fromkeys(("hr@5", "hr@10", "ndcg@5", "ndcg@10"), 0.0)
    for row, target in zip(scores, targets, strict=True):
        above = sum(1 for score in row if score > row[target])
        level = sum(1 for score in row if score == row[target]) - 1
        ranks.append(above + level / 2)
        for k in (5, 10):
            if ranks[-1] < k:
                expected[f"hr@{k}"] += 1 / 60
                expected[f"ndcg@{k}"] += 1 / math.log2(ranks[-1] + 2) / 60
    assert ranking_metrics(ranks) == pytest.approx(expected, abs=1e-6)


def test_a_score_that_is_not_finite_is_a_programming_error():
    with pytest.raises(AssertionError, match="finite"):
        auc([0, 1], [0.1, float("nan")])
    with pytest.raises(AssertionError, match="never NaN"):
        ranking_metrics([0, float("nan")])


# A user of weight 2 counts as two users, one of weight 0 as none.


def test_auc_of_weighted_users_by_hand():
    # positives .5 (twice) and .9 (once) against negatives .1 (three times) and .5 (once); the positive .7 of weight 0 is nobody
    weighted = auc_of([0, 1, 0, 1, 1], [0.1, 0.5, 0.5, 0.9, 0.7])
    assert weighted(np.array([3, 2, 1, 1, 0])) == (2 * (3 + 1 / 2) + 1 * (3 + 1)) / (3 * 4)


@pytest.mark.parametrize("weights", [[0, 0, 0], [2, 1, 0], [0, 0, 3]])
def test_auc_is_undefined_where_the_users_of_one_class_have_no_weight(weights):
    assert auc_of([0, 0, 1], [0.1, 0.2, 0.3])(np.array(weights)) is None


def test_ece_of_weighted_users_by_hand():
    # bin ]1/15, 2/15]: .1 that came true twice and .13 that did not, gap |.33 - 2|; bin ]14/15, 1]: .95 five times, gap |.95 - 1|
    assert ece_of([1, 0, 1, 1], [0.1, 0.13, 0.95, 1.0])(np.array([2, 1, 5, 0])) == pytest.approx((1.67 + 5 * 0.05) / 8)


def test_binary_metrics_of_weighted_users_by_hand():
    # predicted 1: users 1 (once), 2 (thrice), 3 (twice); positive: 1, 3 and the missed user 4 (once); user 0 four times
    weighted = binary_metrics_of([0, 1, 0, 1, 1], [0.1, 0.5, 0.7, 0.9, 0.2])
    assert weighted(np.array([4, 1, 3, 2, 1])) == pytest.approx(
        {
            "auc": (1 * 4 + 2 * 7 + 1 * 4) / (4 * 7),
            "accuracy": 7 / 11,
            "precision": 3 / 6,
            "recall": 3 / 4,
            "f1": 6 / 10,
            "ece": (4 * 0.1 + 1 * 0.5 + 3 * 0.7 + 2 * 0.1 + 1 * 0.8) / 11,
            "brier": (4 * 0.1**2 + 1 * 0.5**2 + 3 * 0.7**2 + 2 * 0.1**2 + 1 * 0.8**2) / 11,
        }
    )


def test_multiclass_metrics_of_weighted_users_by_hand():
    probabilities = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]]
    # predicted 0, 0, 1, 2 for 0, 1, 1, 2, who count once, twice, once, thrice; AUC of class 1: .3 (twice) beats .1 and ties .3 (thrice)
    assert multiclass_metrics_of([0, 1, 1, 2], probabilities)(np.array([1, 2, 1, 3])) == pytest.approx(
        {
            "auc": (1 + (2 * (1 + 3 / 2) + 1 * 4) / (3 * 4) + 1) / 3,
            "accuracy": 5 / 7,
            "precision": (1 / 3 + 1 + 1) / 3,
            "recall": (1 + 1 / 3 + 1) / 3,
            "f1": (2 / 4 + 2 / 4 + 1) / 3,
            "ece": (0.2 + 2 * 0.6 + 0.3 + 3 * 0.6) / 7,
            "brier": (1 * 0.06 + 2 * (0.36 + 0.49 + 0.01) + 1 * 0.14 + 3 * (0.09 + 0.09 + 0.36)) / 7,
        }
    )


def test_a_class_whose_users_have_no_weight_is_left_out():
    metrics = multiclass_metrics_of([0, 1, 2], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]])(np.array([1, 1, 0]))
    assert averages(metrics) == {"auc": 1.0, "accuracy": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_ranking_metrics_of_weighted_users_by_hand():
    # ranks 0 (twice), 4 (never), 7 (once), 20 (twice)
    weighted = ranking_metrics_of([0, 4, 7, 20])
    assert weighted(np.array([2, 0, 1, 2])) == pytest.approx(
        {"hr@5": 2 / 5, "hr@10": 3 / 5, "ndcg@5": 2 / 5, "ndcg@10": (2 + 1 / math.log2(9)) / 5}
    )


@pytest.mark.parametrize(
    "weighted",
    [binary_metrics_of([0, 1], [0.1, 0.9]), multiclass_metrics_of([0, 1], [[0.9, 0.1], [0.1, 0.9]]), ranking_metrics_of([0, 4])],
    ids=["binary", "multiclass", "ranking"],
)
def test_every_figure_is_undefined_where_nobody_has_weight(weighted):
    assert set(weighted(np.array([0, 0])).values()) == {None}


@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("seed", SEEDS)
def test_weights_are_repetitions(seed, num_classes):
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(0, num_classes, 60), rng.integers(0, 4, 60)
    parts = rng.integers(1, 5, (60, num_classes))
    probabilities = parts / parts.sum(axis=1, keepdims=True)
    repeated = multiclass_metrics(labels.repeat(weights), probabilities.repeat(weights, axis=0))
    assert multiclass_metrics_of(labels, probabilities)(weights) == pytest.approx(repeated, rel=1e-12)
