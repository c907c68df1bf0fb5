"""Every suite accepts the frame it describes, and each of its limits, broken alone, is found."""

from typing import get_args

import pandas as pd
import pyarrow.compute as pc
import pytest

from expectations import dataset, day, log_partition, scores, users
from mfn_core.config import SimulationConfig
from mfn_core.data.attributes import MAX_AUTO_CLASSES
from mfn_core.data.dataset import Shard
from mfn_core.data.summary import summarize
from mfn_core.data.window import Window
from mfn_core.errors import AuditError
from mfn_core.schema import APP_LOGS, USER_ID
from mfn_core.simulation import simulate
from tasks import audit
from tests.factories import app_log, dataset_of

_DAY = {"min_volume_ratio": 0.2, "max_volume_ratio": 5.0, "max_new_category_share": 0.2, "min_user_overlap": 0.1}
SUITES = {
    "log_partition": lambda: log_partition.suite(APP_LOGS),
    "users": users.suite,
    "day": lambda: day.suite(**_DAY, fail_on_drift=False),
    "day, failing on drift": lambda: day.suite(**_DAY, fail_on_drift=True),
    "day, any overlap": lambda: day.suite(**_DAY | {"min_user_overlap": 0.0}, fail_on_drift=False),
    "dataset": lambda: dataset.suite(min_users=100),
    "scores": scores.suite,
}
_DAY_LIMITED = {"volume_ratio": 1.0, "new_category_share": 0.0, "silent_hours": 0.0, "user_overlap": 0.5}
_DAY_ROW = {"day": "2026-06-01 app_logs", "rows": 5, "new_categories": "music"} | _DAY_LIMITED
_PARTITION_COUNTS = {"read": 5, "accepted": 5, "quarantined": 0, "duplicates": 0, "late": 0, "users": 3, "entities": 4, "categories": 2}
_PARTITION_FAULTS = {"null_keys": 0, "equal_rows": 0, "outside_day": 0, "null_seq_no": 0, "negative_durations": 0}
_DATASET_FAULTS = {"split_mismatch": 0, "leak_violations": 0, "null_tokens": 0, "events_after_cut": 0, "empty_histories": 0}
_SCORE_FAULTS = {"missing_users": 0, "repeated_users": 0, "not_finite": 0, "outside_unit": 0, "without_items": 0, "repeated_items": 0}
GOOD = {
    "log_partition": {"dt": "2026-06-01"} | _PARTITION_COUNTS | _PARTITION_FAULTS,
    "users": {"column": "gender", "rows": 5, "null_ids": 0, "repeated_ids": 0, "classes": 2, "labelled_share": 0.9},
    "day": _DAY_ROW,
    "day, failing on drift": _DAY_ROW,
    "day, any overlap": _DAY_ROW,
    "dataset": {"dataset": "d", "num_users": 100, "num_train": 80, "num_validation": 10, "num_test": 10, "unknown_share": 0.0}
    | {"returning_share": 0.2}
    | _DATASET_FAULTS,
    "scores": {"scores": "s", "users": 5, "largest_sum_error": 0.0, "mean_activity": 0.4} | _SCORE_FAULTS,
}
CRITICAL = [
    ("log_partition", "accepted", 0),
    ("log_partition", "null_keys", 1),
    ("log_partition", "equal_rows", 1),
    ("log_partition", "outside_day", 1),
    ("log_partition", "null_seq_no", 1),
    ("users", "rows", 0),
    ("users", "null_ids", 1),
    ("users", "repeated_ids", 1),
    ("day", "rows", 0),
    ("day", "user_overlap", 0.05),
    ("day, failing on drift", "volume_ratio", 0.1),
    ("day, failing on drift", "volume_ratio", 6.0),
    ("day", "new_category_share", 0.3),
    ("dataset", "num_users", 99),
    ("dataset", "num_train", 0),
    ("dataset", "num_validation", 0),
    ("dataset", "num_test", 0),
    *(("dataset", column, 1) for column in _DATASET_FAULTS),
    ("scores", "users", 0),
    *(("scores", column, 1) for column in ("missing_users", "repeated_users", "not_finite", "outside_unit", "repeated_items")),
    ("scores", "largest_sum_error", 0.01),
    ("scores", "mean_activity", 1.5),
]
WARNING = [
    ("log_partition", "negative_durations", 1),
    ("log_partition", "users", 1),
    ("log_partition", "categories", 1),
    ("log_partition", "quarantined", 1),
    ("users", "classes", 1),
    ("users", "labelled_share", 0.001),
    ("day", "volume_ratio", 0.1),
    ("day", "silent_hours", 7.0),
    ("day, any overlap", "user_overlap", 0.005),
    ("dataset", "unknown_share", 0.5),
    ("dataset", "returning_share", 0.21),
    ("scores", "without_items", 1),
]


def rows_broken(name, cases):
    """The good row, then one row for every case of the suite with one column out of its limit."""
    faults = [(column, value) for suite, column, value in cases if suite == name]
    frame = pd.DataFrame([GOOD[name], *(GOOD[name] | {column: value} for column, value in faults)])
    key = frame.columns[0]
    frame[key] = ["good", *(f"{column} {value}" for column, value in faults)]
    return frame, [f"{column} = " for column, _ in faults]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_accepts_what_it_describes(name, settings):
    verdict = audit.judge(pd.DataFrame([GOOD[name]]), SUITES[name](), name, settings)
    assert (verdict.success, verdict.warnings) == (True, ())


def test_one_log_alone_has_no_users_to_compare(settings):
    frame = pd.DataFrame([_DAY_ROW]).assign(user_overlap=float("nan"))
    assert audit.judge(frame, SUITES["day, any overlap"](), "one log", settings).warnings == ()


def test_a_curated_day_is_judged_by_the_columns_that_are_handed_over():
    assert tuple(GOOD["log_partition"]) == log_partition.COLUMNS


@pytest.mark.parametrize("name", SUITES)
def test_every_expectation_says_what_to_do(name):
    expectations = SUITES[name]().expectations
    assert [each.column for each in expectations if not (each.meta or {}).get("remedy")] == []


@pytest.mark.parametrize("name", sorted({suite for suite, _, _ in CRITICAL}))
def test_every_critical_limit_is_found(name, settings):
    frame, named = rows_broken(name, CRITICAL)
    with pytest.raises(AuditError) as caught:
        audit.judge(frame, SUITES[name](), name, settings)
    sentences = str(caught.value).partition("failed critically: ")[2].split("; ")
    assert [each for each in named if not any(sentence.startswith(each) for sentence in sentences)] == []


@pytest.mark.parametrize(("classes", "warned"), [(MAX_AUTO_CLASSES, False), (MAX_AUTO_CLASSES + 1, True)])
def test_a_column_that_training_would_leave_out_is_warned_of(classes, warned, settings):
    verdict = audit.judge(pd.DataFrame([GOOD["users"] | {"classes": classes}]), users.suite(), "users", settings)
    assert bool(verdict.warnings) == warned


@pytest.mark.parametrize("name", sorted({suite for suite, _, _ in WARNING}))
def test_every_other_limit_is_a_warning(name, settings):
    frame, named = rows_broken(name, WARNING)
    verdict = audit.judge(frame, SUITES[name](), name, settings)
    assert [each for each in named if not any(warning.startswith(each) for warning in verdict.warnings)] == []


def test_no_simulated_world_is_taken_for_one_where_people_return_to_items(settings):
    rows = []
    for world in get_args(SimulationConfig.model_fields["world"].annotation):
        logs = simulate(SimulationConfig(world=world))
        users = pc.unique(logs.item_logs[USER_ID]).to_pylist()
        data = dataset_of(app_log([]), logs.item_logs, users=users)
        shard = Shard(data.histories, data.split_B, data.activity_B, data.activity_time_B, data.attributes_BA)
        rows.append(GOOD["dataset"] | {"dataset": world, "returning_share": summarize([shard], Window(0, None, "")).returning_share})
    verdict = audit.judge(pd.DataFrame(rows), SUITES["dataset"](), "worlds", settings)
    assert verdict.warnings == ()
