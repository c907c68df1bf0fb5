"""Rows of another day than their folder's: they land once, in the day of their event time, or in quarantine."""

from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mfn_core.schema import APP_LOGS
from tasks import audit, curated, ingest
from tasks.audit import Verdict
from tasks.ingest_plan import plan_ingest
from tests.tasks.raw_files import NOW, app_rows, counts, curated_files, curated_rows, deliver, deliver_day, digest, ingest_days

ANN_1 = ("ann", "bank", "finance", "2026-06-01T09:00")
BOB_1 = ("bob", "chess", "games", "2026-06-01T23:59")
CAT_2 = ("cat", "maps", "travel", "2026-06-02T11:00")
DAN_2 = ("dan", "mail", "work", "2026-06-02T12:00")


@pytest.fixture(autouse=True)
def _approving_judge(monkeypatch):
    monkeypatch.setattr(audit, "judge", lambda *_: Verdict("stub", True, 0, (), (), ""))


def test_a_late_row_lands_in_the_day_of_its_event_time(settings):
    deliver_day(settings, "2026-06-01", [ANN_1])
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-01")
    summaries = ingest_days(settings, "2026-06-02")
    assert (curated_rows(settings, "2026-06-01"), curated_rows(settings, "2026-06-02")) == ([ANN_1, BOB_1], [CAT_2])
    assert [(each["dt"], each["changed"]) for each in summaries] == [("2026-06-01", True), ("2026-06-02", True)]


def test_late_rows_are_counted_in_the_day_they_land_in(settings):
    deliver_day(settings, "2026-06-01", [ANN_1])
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-01", "2026-06-02")
    assert counts(settings, "2026-06-01") == {"read": 2, "accepted": 2, "quarantined": 0, "duplicates": 0, "late": 1}
    assert counts(settings, "2026-06-02") == {"read": 1, "accepted": 1, "quarantined": 0, "duplicates": 0, "late": 0}


def test_a_late_row_does_not_rewrite_the_file_of_its_day(settings):
    deliver_day(settings, "2026-06-01", [ANN_1])
    ingest_days(settings, "2026-06-01")
    (before,) = curated_files(settings, APP_LOGS)
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-02")
    assert curated_files(settings, APP_LOGS, date(2026, 6, 1))[0] == before


def test_late_rows_of_a_run_that_died_before_its_receipt_are_withdrawn_with_the_folder(settings, monkeypatch):
    deliver_day(settings, "2026-06-02", [CAT_2])
    ingest_days(settings, "2026-06-02")
    deliver_day(settings, "2026-06-01", [ANN_1, DAN_2])

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_acknowledge", die)
        with pytest.raises(KeyboardInterrupt):
            ingest_days(settings, "2026-06-01")
    assert curated_rows(settings, "2026-06-02") == [CAT_2, DAN_2]
    deliver_day(settings, "2026-06-01", [ANN_1])
    ingest_days(settings, "2026-06-01")
    assert (curated_rows(settings, "2026-06-01"), curated_rows(settings, "2026-06-02")) == ([ANN_1], [CAT_2])


def test_the_order_of_ingest_does_not_matter(settings, tmp_path):
    other = settings.model_copy(update={"var": tmp_path / "other"})
    for each, order in ((settings, ("2026-06-01", "2026-06-02")), (other, ("2026-06-02", "2026-06-01"))):
        deliver_day(each, "2026-06-01", [ANN_1])
        deliver_day(each, "2026-06-02", [CAT_2, BOB_1])
        for day in order:
            ingest_days(each, day)
    assert digest(settings, "2026-06-01") == digest(other, "2026-06-01")
    assert counts(settings, "2026-06-01") == counts(other, "2026-06-01")


def test_reading_the_day_itself_again_keeps_the_late_rows(settings):
    deliver_day(settings, "2026-06-01", [ANN_1])
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-01", "2026-06-02")
    deliver_day(settings, "2026-06-01", [ANN_1, ("eve", "mail", "work", "2026-06-01T08:00")])
    ingest_days(settings, "2026-06-01")
    assert curated_rows(settings, "2026-06-01") == [ANN_1, BOB_1, ("eve", "mail", "work", "2026-06-01T08:00")]


def test_reading_the_late_folder_again_replaces_its_late_rows(settings):
    deliver_day(settings, "2026-06-01", [ANN_1])
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-01", "2026-06-02")
    deliver_day(settings, "2026-06-02", [CAT_2])
    ingest_days(settings, "2026-06-02")
    assert curated_rows(settings, "2026-06-01") == [ANN_1]


def test_a_row_in_two_folders_is_kept_once_and_counted(settings):
    deliver_day(settings, "2026-06-01", [ANN_1, BOB_1])
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-01")
    ingest_days(settings, "2026-06-02")
    assert curated_rows(settings, "2026-06-01") == [ANN_1, BOB_1]
    assert counts(settings, "2026-06-01") == {"read": 3, "accepted": 2, "quarantined": 0, "duplicates": 1, "late": 0}


def test_a_row_in_two_folders_survives_when_either_drops_it(settings):
    deliver_day(settings, "2026-06-01", [ANN_1, BOB_1])
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-01", "2026-06-02")
    before = digest(settings, "2026-06-01")
    deliver_day(settings, "2026-06-01", [ANN_1])
    ingest_days(settings, "2026-06-01")
    assert curated_rows(settings, "2026-06-01") == [ANN_1, BOB_1]
    assert digest(settings, "2026-06-01") == before


def test_a_late_row_makes_a_day_that_has_no_folder_and_takes_it_away_again(settings):
    deliver_day(settings, "2026-06-02", [CAT_2, ANN_1])
    ingest_days(settings, "2026-06-02")
    assert curated_rows(settings, "2026-06-01") == [ANN_1]
    deliver_day(settings, "2026-06-02", [CAT_2])
    summaries = ingest_days(settings, "2026-06-02")
    assert [each.facts["dt"] for each in curated.partitions(settings, APP_LOGS)] == ["2026-06-02"]
    assert [each["dt"] for each in summaries] == ["2026-06-02"]


def test_late_rows_of_two_folders_make_one_day(settings):
    deliver_day(settings, "2026-06-02", [CAT_2, ANN_1])
    deliver_day(settings, "2026-06-03", [("dan", "mail", "work", "2026-06-03T12:00"), ANN_1, BOB_1])
    ingest_days(settings, "2026-06-03")
    ingest_days(settings, "2026-06-02")
    assert curated_rows(settings, "2026-06-01") == [ANN_1, BOB_1]
    assert counts(settings, "2026-06-01") == {"read": 3, "accepted": 2, "quarantined": 0, "duplicates": 1, "late": 2}


def test_a_daily_folder_takes_its_place_before_a_first_load(settings):
    deliver(settings, "app_logs.parquet", app_rows([ANN_1, CAT_2]))
    ingest_days(settings, "2026-06-01", "2026-06-02")
    deliver_day(settings, "2026-06-02", [CAT_2, DAN_2])
    ingest_days(settings, "2026-06-02")
    assert curated_rows(settings, "2026-06-02") == [CAT_2, DAN_2]
    assert counts(settings, "2026-06-02") == {"read": 3, "accepted": 2, "quarantined": 0, "duplicates": 1, "late": 0}


def test_late_rows_go_to_quarantine_by_setting(settings):
    strict = settings.model_copy(update={"late_rows": "quarantine", "max_rejected_share": 0.5})
    deliver_day(strict, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(strict, "2026-06-02")
    (file,) = Path(strict.store, "quarantine/app_logs/dt=2026-06-02").iterdir()
    assert pq.read_table(file)["_reason"].to_pylist() == ["event_time is on another day than its folder"]
    assert curated_rows(strict) == [CAT_2]


def test_another_setting_for_late_rows_is_work_again(settings):
    deliver_day(settings, "2026-06-02", [CAT_2, BOB_1])
    ingest_days(settings, "2026-06-02")
    strict = settings.model_copy(update={"late_rows": "quarantine"})
    assert plan_ingest(strict, APP_LOGS, None, None, 31, now=NOW) == [{"first_day": "2026-06-02", "last_day": "2026-06-02"}]
