"""Who is in which slice, and what is said of it."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mfn_core.data.dataset import Dataset
from mfn_core.evaluation.slices import SliceRow, as_markdown, slice_rows
from mfn_core.schema import UNKNOWN
from tests.factories import app_log, dataset_of, item_log


def of_hours(user, names, hours):
    return [(user, name, "any", f"2026-05-01T{hour:02d}:00:00") for name, hour in zip(names, hours, strict=True)]


def activity_scores(users, labels=None):
    labels = [number % 2 for number in range(len(users))] if labels is None else labels
    return pa.table({"user_id": users, "label": labels, "score": np.where(np.array(labels) == 1, 0.9, 0.1)})


def ranking(users):
    return pa.table({"user_id": users, "rank": np.zeros(len(users), np.float32)})


def sizes(rows, label=None):
    return {row.slice: row.n for row in rows if label in (None, row.label)}


def without_items(*users):
    """Users with as many app events as the number says."""
    apps = [event for user, length in users for event in of_hours(user, ["mail"] * length, range(length))]
    return dataset_of(app_log(apps), item_log([]), users=[user for user, _ in users], activity={users[0][0]: 1})


@pytest.fixture
def dataset() -> Dataset:
    apps = of_hours("both", ["mail"] * 2, [1, 9]) + of_hours("apps", ["mail"] * 4, range(4)) + of_hours("late", ["mail"], [20])
    items = of_hours("both", "abc", [2, 5, 8]) + of_hours("late", "aab", [1, 2, 3]) + of_hours("items", "aaaaad", range(6))
    return dataset_of(app_log(apps), item_log(items), users=["apps", "both", "items", "late"], activity={"apps": 1})


def test_views_and_cold_users_before_the_cut(dataset):
    found = sizes(slice_rows("activity", activity_scores(["items", "both", "apps", "late"]), dataset))
    assert found["all"] == 4
    assert (found["both views"], found["macro missing"], found["micro missing"]) == (2, 1, 1)
    assert found["cold users"] == 2  # apps and late have four events, both five, items six
    assert not {"head items", "tail items", "cold items"} & found.keys()


def test_recommendation_is_asked_before_its_target(dataset):
    # Of both, mail of 1 o'clock and two items are older than the target of 8; of late no app event is; of items five events are.
    found = sizes(slice_rows("recommendation", ranking(["both", "items", "late"]), dataset))
    assert (found["both views"], found["macro missing"], found["micro missing"]) == (1, 2, 0)
    assert found["cold users"] == 2


def test_the_validation_target_comes_one_earlier(dataset):
    found = sizes(slice_rows("recommendation", ranking(["items"]), dataset, split="validation"))
    assert found["cold users"] == 1
    assert found["cold items"] == 0  # the target is then a, not d


@pytest.mark.parametrize(
    ("lengths", "short", "long"),
    [
        ((1, 2, 3, 4, 5, 6, 7), 3, 2),  # at most 3, above 5
        ((2, 2, 2, 2), 4, 0),
        ((1, 9), 1, 1),
    ],
)
def test_short_and_long_are_the_thirds_of_the_users_measured(lengths, short, long):
    dataset = without_items(*((f"u{number}", length) for number, length in enumerate(lengths)), ("unmeasured", 20))
    found = sizes(slice_rows("activity", activity_scores([f"u{number}" for number in range(len(lengths))]), dataset))
    assert (found["short histories"], found["long histories"]) == (short, long)


@pytest.mark.parametrize(
    ("user", "slices"),
    [
        ("of a", {"head items"}),
        ("of b", {"head items"}),
        ("of c", {"tail items"}),  # as frequent as b, which is the first by name
        ("of d", {"tail items", "cold items"}),
        ("of an unknown", {"tail items", "cold items"}),
    ],
)
def test_head_tail_and_cold_items_by_training_events(user, slices):
    # Events: a 9, b 5, c 5, e 2, d 1, f 1, x 1. The head of seven items is two.
    histories = {"of a": "aaaaaa", "of b": "abbbbb", "of c": "ccccc", "of d": "eefd", "of an unknown": "aax"}
    items = [event for owner, ids in histories.items() for event in of_hours(owner, ids, range(len(ids)))]
    dataset = dataset_of(app_log([]), item_log(items), users=list(histories))
    dataset.histories.micro.ids[-1] = UNKNOWN  # x
    found = sizes(slice_rows("recommendation", ranking([user]), dataset))
    assert {name for name, n in found.items() if name.endswith("items") and n} == slices


def test_thirty_users_are_enough_and_one_less_is_counted_only():
    with_apps, with_items = ([f"{kind}{number}" for number in range(count)] for kind, count in (("app", 30), ("item", 29)))
    apps = [event for user in with_apps for event in of_hours(user, ["mail"], [1])]
    items = [event for user in with_items for event in of_hours(user, ["a"], [1])]
    users = [*with_apps, *with_items]
    dataset = dataset_of(app_log(apps), item_log(items), users=users)
    rows = slice_rows("activity", activity_scores(users), dataset)
    enough, few = ({row.metric: row for row in rows if row.slice == name} for name in ("micro missing", "macro missing"))
    assert (enough["accuracy"].n, enough["accuracy"].value, enough["accuracy"].low, enough["accuracy"].high) == (30, 1.0, 1.0, 1.0)
    assert {(row.n, row.value, row.low, row.high) for row in few.values()} == {(29, None, None, None)}
    assert list(few) == list(enough) == ["auc", "accuracy", "precision", "recall", "f1", "ece", "brier"]


def test_an_undefined_figure_of_a_large_slice_is_none():
    dataset = without_items(*((f"u{number}", 1) for number in range(30)))
    rows = slice_rows("activity", activity_scores([f"u{number}" for number in range(30)], [1] * 30), dataset)
    assert {(row.value, row.low) for row in rows if row.metric == "auc"} == {(None, None)}


def test_figures_are_those_of_the_members_alone():
    # 30 users of one app event, all ranked first; 40 of two, all ranked sixth
    histories = {f"u{number}": 1 + (number >= 30) for number in range(70)}
    apps = [event for user, length in histories.items() for event in of_hours(user, ["mail"] * length, range(length))]
    items = [event for user in histories for event in of_hours(user, "aab", [10, 11, 12])]
    dataset = dataset_of(app_log(apps), item_log(items), users=list(histories))
    scores = pa.table({"user_id": list(histories), "rank": np.array([0.0] * 30 + [5.0] * 40, np.float32)})
    rows = {(row.slice, row.metric): row for row in slice_rows("recommendation", scores, dataset)}
    assert (rows["short histories", "hr@5"].n, rows["short histories", "hr@5"].value) == (30, 1.0)
    assert rows["all", "hr@5"].value == pytest.approx(30 / 70)
    assert rows["all", "hr@5"].low < 30 / 70 < rows["all", "hr@5"].high
    assert rows["all", "hr@10"].value == 1.0


def test_each_attribute_has_its_own_users():
    dataset = without_items(("u0", 1), ("u1", 1), ("u2", 9))
    scores = pa.table(
        {
            "user_id": ["u0", "u1", "u2", "u2"],
            "attribute": ["age", "age", "age", "city"],
            "label": [0, 1, 0, 1],
            "probabilities": pa.array([[0.5, 0.5]] * 4, pa.list_(pa.float32())),
        }
    )
    rows = slice_rows("attribute", scores, dataset)
    assert (sizes(rows, "age")["all"], sizes(rows, "city")["all"]) == (3, 1)
    assert (sizes(rows, "age")["short histories"], sizes(rows, "city")["short histories"]) == (2, 1)
    assert (sizes(rows, "age")["cold users"], sizes(rows, "city")["cold users"]) == (2, 0)


def test_rows_are_flat_json_without_nan(dataset):
    row = slice_rows("activity", activity_scores(["items"]), dataset)[0].to_json()
    assert list(row) == ["task", "label", "slice", "n", "metric", "value", "low", "high"]
    json.dumps(row, allow_nan=False)


def test_scores_of_strangers_are_a_programming_error(dataset):
    with pytest.raises(AssertionError, match="outside the dataset"):
        slice_rows("activity", activity_scores(["nobody"]), dataset)


def test_the_table_has_a_line_per_slice_and_a_column_per_metric():
    rows = [
        SliceRow("recommendation", "recommendation", "all", 1200, "hr@5", 0.25, 0.2, 0.3),
        SliceRow("recommendation", "recommendation", "all", 1200, "hr@10", 0.5, None, None),
        SliceRow("recommendation", "recommendation", "cold users", 3, "hr@5", None, None, None),
        SliceRow("recommendation", "recommendation", "cold users", 3, "hr@10", None, None, None),
    ]
    assert as_markdown(rows).splitlines()[:6] == [
        "## recommendation",
        "",
        "| slice | n | hr@5 | hr@10 |",
        "| --- | ---: | ---: | ---: |",
        "| all | 1,200 | 0.250 [0.200, 0.300] | 0.500 |",
        "| cold users | 3 |  |  |",
    ]
