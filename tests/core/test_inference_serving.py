"""A serving request: raw histories as the logs hold them, answered row by row."""

import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from mfn_core.errors import ConfigError, SchemaError
from mfn_core.inference.serving import answer, example_request
from tests.factories import app_log, dataset_of, item_log
from tests.models import predictor_of

APPS = [("ann", "bank", "finance", "2026-05-01T08:00:00"), ("ann", "chat", "social", "2026-05-03T08:00:00")]
ITEMS = [("ann", f"i{n}", "news", f"2026-05-0{n}T09:00:00") for n in (1, 2, 3)] + [("bob", "i4", "news", "2026-05-01T09:00:00")]
ANN = {
    "user_id": "ann",
    "macro_ids": ["bank", "chat"],
    "macro_categories": ["finance", "social"],
    "macro_times": ["2026-05-01T08:00:00Z", "2026-05-03T08:00:00Z"],
    "micro_ids": ["i1", "i2", "i3"],
    "micro_categories": ["news", "news", "news"],
    "micro_times": ["2026-05-01T09:00:00Z", "2026-05-02T09:00:00Z", "2026-05-03T09:00:00Z"],
}
AS_OF = "2026-06-01"
JUNE = 1780272000


@pytest.fixture(scope="module")
def dataset():
    return dataset_of(
        app_log(APPS), item_log(ITEMS), users=["ann", "bob"], activity={"ann": 1}, attributes={"colour": {"ann": "red", "bob": "blue"}}
    )


@pytest.fixture(scope="module")
def predictor(dataset, tmp_path_factory):
    return predictor_of(dataset, tmp_path_factory.mktemp("bundle"))


def test_a_request_is_answered_as_the_dataset_is_evaluated(predictor, dataset):
    row = answer(predictor, pd.DataFrame([ANN]), as_of=AS_OF).iloc[0]
    said = predictor.predict(dataset.histories, query_time=JUNE, rows=np.array([0]))
    assert row["user_id"] == "ann"
    assert row["embedding"] == pytest.approx(said.embedding_BD[0].tolist(), abs=1e-6)
    assert row["activity_probability"] == pytest.approx(float(said.activity_B[0]), abs=1e-6)
    assert row["top_items"] == ["i4"]


def test_attribute_probabilities_are_by_attribute_and_class(predictor):
    row = answer(predictor, pd.DataFrame([ANN]), as_of=AS_OF).iloc[0]
    assert set(row["attribute_probabilities"]) == {"colour"}
    assert set(row["attribute_probabilities"]["colour"]) == {"blue", "red"}
    assert sum(row["attribute_probabilities"]["colour"].values()) == pytest.approx(1)


def test_the_answer_is_json(predictor):
    json.dumps(answer(predictor, example_request()).to_dict(orient="records"), allow_nan=False)


def test_an_absent_view_and_a_null_cell_are_empty_histories(predictor):
    columns = ["user_id", "macro_ids", "macro_categories", "macro_times"]
    without_columns = answer(predictor, pd.DataFrame([ANN])[columns], as_of=AS_OF)
    nulls = pd.DataFrame([ANN | {"micro_ids": None, "micro_categories": None, "micro_times": None}])
    assert without_columns["embedding"].tolist() == answer(predictor, nulls, as_of=AS_OF)["embedding"].tolist()


def test_unknown_ids_are_answered(predictor):
    strange = ANN | {"macro_ids": ["never", "seen"], "micro_ids": ["nor", "these", "three"]}
    assert np.isfinite(answer(predictor, pd.DataFrame([strange]), as_of=AS_OF).iloc[0]["embedding"]).all()


def test_as_of_hides_later_events(predictor):
    then = answer(predictor, pd.DataFrame([ANN]), as_of="2026-05-01T00:00:00Z")
    nothing = answer(predictor, pd.DataFrame([{"user_id": "ann"}]))
    assert then["embedding"].tolist() == nothing["embedding"].tolist()


def test_an_event_of_the_second_that_runs_is_before_now_and_not_before_a_time_that_is_named(predictor, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 5, 1, 12, 0, 5, 900_000, tzinfo=tz)

    def said(**asked):
        clicked = {"user_id": "ann", "micro_ids": ["i1"], "micro_categories": ["news"], "micro_times": ["2026-05-01T12:00:05.3Z"]}
        return answer(predictor, pd.DataFrame([clicked]), **asked)["embedding"].tolist()

    after = said(as_of="2026-05-01T12:00:06Z")
    assert said(as_of="2026-05-01T12:00:05.9Z") == said(as_of="2026-05-01T12:00:05Z") != after  # of another second nothing may leak
    monkeypatch.setattr("mfn_core.inference.serving.datetime", Clock)
    assert said() == after


@pytest.mark.parametrize("as_of", ["yesterday", "2026-06-01T00:00:00"])
def test_an_as_of_that_is_no_time_or_has_no_zone_is_refused(predictor, as_of):
    with pytest.raises(ConfigError, match=f"as_of='{as_of}'.*2026-03-04T09:12:07Z"):
        answer(predictor, pd.DataFrame([ANN]), as_of=as_of)


@pytest.mark.parametrize("top_k", [0, 1001])
def test_a_top_k_out_of_range_is_refused(predictor, top_k):
    with pytest.raises(ConfigError, match=f"top_k={top_k} is outside 1 to 1000"):
        answer(predictor, pd.DataFrame([ANN]), top_k=top_k)


def test_lists_of_unequal_length_are_refused(predictor):
    with pytest.raises(SchemaError, match="ann"):
        answer(predictor, pd.DataFrame([ANN | {"micro_ids": ["i1"]}]))
