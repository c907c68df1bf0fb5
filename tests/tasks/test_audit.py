"""The judge: what a suite says of a frame becomes a verdict, a page of Data Docs, or an error."""

import re
from pathlib import Path

import pandas as pd
import pytest
from great_expectations import ExpectationSuite
from great_expectations.expectations import ExpectColumnValuesToBeBetween

from mfn_core.errors import AuditError
from tasks import audit


def suite():
    return ExpectationSuite(
        name="parcels",
        expectations=[
            ExpectColumnValuesToBeBetween(column="rows", min_value=1, severity="critical", meta={"remedy": "deliver it again"}),
            ExpectColumnValuesToBeBetween(column="dust", max_value=2, severity="warning", meta={"remedy": "wipe it"}),
        ],
    )


def frame(rows, dust):
    return pd.DataFrame({"dt": ["mon", "tue"], "rows": rows, "dust": dust})


def test_a_passed_frame_has_a_page_in_data_docs(settings):
    verdict = audit.judge(frame([1, 2], [0, 0]), suite(), "week", settings)
    assert (verdict.suite, verdict.success, verdict.expectations, verdict.critical, verdict.warnings) == ("parcels", True, 2, (), ())
    assert Path(verdict.docs).is_relative_to(settings.var / "data_docs")
    assert "week" in (settings.var / "data_docs" / "index.html").read_text()


def test_the_templates_of_the_pages_are_compiled_once(settings):
    def compiled():
        return {path.name: path.stat().st_mtime_ns for path in (settings.var / "data_docs_templates").iterdir()}

    audit.judge(frame([1, 2], [0, 0]), suite(), "week", settings)
    after_one = compiled()
    audit.judge(frame([1, 2], [0, 0]), suite(), "another week", settings)
    assert len(after_one) > 10
    assert compiled() == after_one


def test_a_page_stays_when_its_result_is_not_stored_any_longer(settings, monkeypatch, caplog):
    monkeypatch.setattr(audit, "_RESULTS_KEPT", 1)
    first, _, last = [audit.judge(frame([1, 2], [0, 0]), suite(), name, settings) for name in ("parcels-1", "parcels-2", "parcels-3")]
    assert Path(first.docs).exists()
    index = (settings.var / "data_docs" / "index.html").read_text()
    assert [name in index for name in (Path(first.docs).parent.name, Path(last.docs).parent.name)] == [False, True]
    assert "not found" not in caplog.text


def test_a_warning_is_said_and_logged(settings, caplog):
    verdict = audit.judge(frame([1, 2], [0, 5]), suite(), "week", settings)
    assert verdict.success
    assert verdict.warnings == ("dust = 5 at dt tue, expected at most 2 (wipe it)",)
    assert "week: dust = 5 at dt tue" in caplog.text


def test_a_critical_failure_names_column_value_row_limit_and_remedy(settings):
    with pytest.raises(AuditError) as caught:
        audit.judge(frame([1, 0], [0, 0]), suite(), "week", settings)
    message = str(caught.value)
    assert (
        "week: 1 of 2 expectations of suite parcels failed critically: rows = 0 at dt tue, expected at least 1 (deliver it again)"
        in message
    )
    assert re.search(r"\(deliver it again\)\. Nothing is published\. Report: \S+\.html$", message)


def test_a_metric_that_is_null_everywhere_is_not_judged(settings):
    assert audit.judge(frame([1, 2], [None, None]).astype({"dust": float}), suite(), "week", settings).warnings == ()


def test_a_suite_that_does_not_fit_its_frame_is_a_programmer_error(settings):
    with pytest.raises(AssertionError, match="suite parcels does not fit its frame"):
        audit.judge(pd.DataFrame({"dt": ["mon"], "rows": [1]}), suite(), "week", settings)
