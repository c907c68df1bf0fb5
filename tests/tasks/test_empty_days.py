"""A day that no log has is told by the day after it, unless its raw rows wait to be read."""

from datetime import date

import pytest

from mfn_core.schema import APP_LOGS, ITEM_LOGS
from tasks import curated, manifest
from tasks.empty_days import empty_days_before
from tasks.manifest import Manifest
from tests.tasks.raw_files import app_rows, deliver, deliver_day

SUNDAY = [("ann", "bank", "finance", "2026-06-21T09:00")]


def publish(settings, *days, logs=(APP_LOGS, ITEM_LOGS)):
    for log in logs:
        for day in days:
            manifest.write(
                Manifest(kind="curated", uri=curated.partition_uri(settings, log, date(2026, 6, day)), digest="d", facts={"dt": str(day)})
            )


def test_a_day_that_no_log_has_goes_with_the_next(settings, caplog):
    publish(settings, 19, 20, 22)
    assert empty_days_before(settings, ["2026-06-22"]) == ["2026-06-21"]
    assert "1 days that no log has are announced with the day after them: 2026-06-21; if there are logs, ingest them" in caplog.text


def test_a_day_is_not_told_before_the_next_is_there(settings):
    publish(settings, 19, 20)
    assert empty_days_before(settings, ["2026-06-19", "2026-06-20"]) == []


def test_a_day_that_one_of_the_logs_has_is_none(settings):
    publish(settings, 20, 22)
    publish(settings, 21, logs=[ITEM_LOGS])
    assert empty_days_before(settings, ["2026-06-22"]) == []


def test_days_before_the_first_are_none(settings):
    publish(settings, 22)
    assert empty_days_before(settings, ["2026-06-22"]) == []


def test_of_a_long_gap_thirteen_days_are_told_which_hold_its_last_complete_week(settings):
    publish(settings, 1, 28)
    assert empty_days_before(settings, ["2026-06-28"]) == [f"2026-06-{day}" for day in range(15, 28)]


def test_a_day_whose_raw_rows_nobody_could_read_is_none(settings):
    publish(settings, 20, 22)
    deliver_day(settings, "2026-06-21", SUNDAY)
    assert empty_days_before(settings, ["2026-06-22"]) == []


def test_a_day_whose_raw_file_is_broken_is_none(settings):
    publish(settings, 20, 22)
    deliver_day(settings, "2026-06-21", SUNDAY).write_bytes(b"no Parquet")
    assert empty_days_before(settings, ["2026-06-22"]) == []


def test_a_raw_file_without_rows_is_no_log(settings):
    publish(settings, 20, 22)
    deliver(settings, "item_logs/dt=2026-06-21/a.parquet", app_rows([]).rename_columns(list(ITEM_LOGS.required)))
    assert empty_days_before(settings, ["2026-06-22"]) == ["2026-06-21"]


@pytest.mark.parametrize("view", ["macro", "micro"])
def test_only_the_logs_of_the_deployment_count(settings, view):
    publish(settings, 20, 22)
    publish(settings, 21, logs=[ITEM_LOGS if view == "macro" else APP_LOGS])
    assert empty_days_before(settings.model_copy(update={"views": (view,)}), ["2026-06-22"]) == ["2026-06-21"]
