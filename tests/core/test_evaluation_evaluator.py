"""A downstream task measured: the right users, hand-computed figures, the baseline beside them, JSON without NaN."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.evaluation.evaluator import evaluate, figures_of, measure
from mfn_core.inference.predictor import Predictions
from tests.factories import app_log, dataset_of, item_log
from tests.models import predictor_of

USERS = ["t1", "t2", "t3", "t4", "n1", "n2", "n3", "v1"]
SPLIT = {user: {"t": "test", "n": "train", "v": "validation"}[user[0]] for user in USERS}
ACTIVITY = {"t1": 1, "t2": 0, "t3": 1, "n1": 1, "n2": 0, "n3": 0, "v1": 1}  # t4 is unlabelled
COLOURS = {"t1": "red", "t2": "blue", "t4": "red", "n1": "red", "n2": "blue", "n3": "blue"}
ITEMS = [("t1", item, "news", f"2026-05-0{day}T09:00:00") for day, item in enumerate("abc", start=1)] + [
    (user, item, "news", "2026-05-01T09:00:00") for user, item in (("t2", "a"), ("n1", "d"), ("n2", "d"), ("n3", "c"))
]


class Scripted:
    """Says what the test wants to hear."""

    tasks = ("activity", "attribute", "recommendation")

    def __init__(self, activity=None, colours=None, classes=("blue", "red")):
        self.activity, self.colours, self.classes = activity or {}, colours or {}, classes
        self.asked = []

    def predict(self, histories, *, query_time, rows, top_k, batch_size):
        users = histories.user_ids[rows]
        self.asked += users.tolist()
        probability_BC = np.array([self.colours.get(user, [0.5] * len(self.classes)) for user in users], np.float32)
        activity_B = np.array([self.activity.get(user, 0.5) for user in users], np.float32)
        embedding_BD = np.zeros((len(rows), 8), np.float32)
        return Predictions(users, embedding_BD, activity_B, {"colour": probability_BC}, {"colour": self.classes}, [], [])


@pytest.fixture
def dataset():
    return dataset_of(app_log([]), item_log(ITEMS), users=USERS, split=SPLIT, activity=ACTIVITY, attributes={"colour": COLOURS})


def test_activity_is_measured_on_the_labelled_users_of_the_split(dataset):
    predictor = Scripted()
    evaluate(predictor, dataset, "activity", samples=100)
    assert predictor.asked == ["t1", "t2", "t3"]


def test_activity_figures_by_hand(dataset):
    measured = evaluate(Scripted({"t1": 0.9, "t2": 0.6, "t3": 0.4}), dataset, "activity", samples=100).measurements["activity"]
    assert measured.n == 3
    assert measured.metrics == pytest.approx(
        {
            "auc": 0.5,
            "accuracy": 1 / 3,
            "precision": 0.5,
            "recall": 0.5,
            "f1": 0.5,
            "ece": (0.1 + 0.6 + 0.6) / 3,
            "brier": (0.1**2 + 0.6**2 + 0.6**2) / 3,
        }
    )


def test_the_activity_baseline_gives_everybody_the_base_rate_of_the_training_users(dataset):
    baseline = evaluate(Scripted(), dataset, "activity", samples=100).measurements["activity"].baseline
    # A third of the training users is active, two thirds of the measured ones: the gap of the one bin is a third.
    assert baseline == {
        "auc": 0.5,
        "accuracy": pytest.approx(1 / 3),
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
        "ece": pytest.approx(1 / 3),
        "brier": pytest.approx((2 * (2 / 3) ** 2 + (1 / 3) ** 2) / 3),
    }


def test_an_attribute_is_measured_on_its_labelled_test_users(dataset):
    colours = {"t1": [0.2, 0.8], "t2": [0.7, 0.3], "t4": [0.6, 0.4]}
    measured = evaluate(Scripted(colours=colours), dataset, "attribute", samples=100).measurements["colour"]
    assert measured.n == 3
    assert measured.metrics["auc"] == 1.0
    assert measured.metrics["accuracy"] == pytest.approx(2 / 3)
    assert measured.metrics["ece"] == pytest.approx((0.2 + 0.3 + 0.6) / 3)
    assert measured.metrics["brier"] == pytest.approx(2 * (0.2**2 + 0.3**2 + 0.6**2) / 3)


def test_the_attribute_baseline_is_the_most_frequent_training_class(dataset):
    baseline = evaluate(Scripted(), dataset, "attribute", samples=100).measurements["colour"].baseline
    assert baseline["accuracy"] == pytest.approx(1 / 3)


def test_a_model_that_orders_the_classes_otherwise_is_read_by_name(dataset):
    colours = {"t1": [0.8, 0.2, 0.0], "t2": [0.3, 0.7, 0.0], "t4": [0.4, 0.6, 0.0]}
    predictor = Scripted(colours=colours, classes=("red", "blue", "violet"))
    assert evaluate(predictor, dataset, "attribute", samples=100).measurements["colour"].metrics["auc"] == 1.0


def test_recommendation_is_measured_on_every_user_with_held_out_items(dataset, tmp_path):
    measured = evaluate(predictor_of(dataset, tmp_path), dataset, "recommendation", samples=100)
    assert measured.scores["user_id"].to_pylist() == ["t1"]


def test_the_recommendation_baseline_ranks_by_training_popularity(dataset, tmp_path):
    # Counts: a 2, c 2, d 2, b 1. The target of t1 is c; a and b are seen, d ties.
    measured = evaluate(predictor_of(dataset, tmp_path), dataset, "recommendation", samples=100)
    assert measured.scores["baseline_rank"].to_pylist() == [0.5]


def test_an_undefined_figure_is_null_with_its_reason(dataset):
    actives = replace(dataset, activity_B=np.where(dataset.activity_B == 0, -1, dataset.activity_B))
    measured = evaluate(Scripted(), actives, "activity", samples=100).measurements["activity"]
    assert measured.metrics["auc"] is None
    assert measured.intervals["auc"] is None
    assert measured.undefined["auc"] == "the users are all of one class (n = 2)"


def test_a_measurement_is_json_without_nan(dataset):
    for task in ("activity", "attribute"):
        for measured in evaluate(Scripted(), dataset, task, samples=100).measurements.values():
            json.dumps(measured.to_json(), allow_nan=False)


def test_every_figure_lies_within_its_interval(dataset, tmp_path):
    predictor = predictor_of(dataset, tmp_path)
    for task in dataset.tasks:
        for measured in evaluate(predictor, dataset, task, samples=200).measurements.values():
            for name, (low, high) in ((name, span) for name, span in measured.intervals.items() if span):
                assert low <= measured.metrics[name] <= high


@pytest.mark.parametrize(
    ("task", "columns", "figure", "value"),
    [
        ("activity", {"label": [0, 1, 1], "score": [0.1, 0.2, 0.9]}, "accuracy", 1 / 4),
        ("attribute", {"label": [0, 1, 1], "probabilities": [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]}, "accuracy", 1 / 4),
        ("recommendation", {"rank": [3, 12, 0]}, "hr@5", 1 / 4),
    ],
)
def test_a_row_counts_as_often_as_it_is_chosen(task, columns, figure, value):
    assert figures_of(task, pa.table(columns))(np.array([1, 0, 1, 1]))[figure] == value


@pytest.mark.parametrize(
    ("figure", "drawn", "interval"),
    [
        (0.10, 0.13, (0.07, 0.10)),  # .10 - .03, and up to the figure
        (0.10, 0.08, (0.12, 0.12)),
        (0.02, 0.05, (0.0, 0.02)),  # no error below 0
    ],
)
def test_the_interval_of_the_ece_is_reflected_since_resampling_adds_to_its_bias(figure, drawn, interval):
    answers = iter([figure] + [drawn] * 100)
    values, spans = measure(lambda chosen: {"ece": next(answers)}, 5, samples=100)
    assert values == {"ece": figure}
    assert spans == {"ece": pytest.approx(interval)}


def test_every_other_interval_is_that_of_the_resamples():
    answers = iter([0.10] + [0.13] * 100)
    assert measure(lambda chosen: {"brier": next(answers)}, 5, samples=100)[1] == {"brier": (0.13, 0.13)}


def test_a_figure_without_an_interval_is_listed_all_the_same():
    assert measure(lambda chosen: {"auc": None, "ece": None}, 5, samples=100) == ({"auc": None, "ece": None}, {"auc": None, "ece": None})


def test_a_task_that_the_dataset_leaves_out_is_refused_with_its_reason(dataset):
    without = dataset_of(app_log([]), item_log(ITEMS), users=USERS, split=SPLIT, attributes={"colour": COLOURS})
    with pytest.raises(ConfigError, match="activity cannot be evaluated: left out by the test; can be: attribute, recommendation"):
        evaluate(Scripted(), without, "activity")


def test_a_split_without_a_labelled_user_is_refused(dataset):
    nobody = replace(dataset, activity_B=np.full(len(USERS), -1, np.int8))
    with pytest.raises(InsufficientDataError, match="activity: 0 users of the test split have a label"):
        evaluate(Scripted(), nobody, "activity")
