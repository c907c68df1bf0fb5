"""The run of a day also reads the days before it that were delivered late, unfinished or anew; its own day is always in its plan."""

from datetime import date

import pytest

from mfn_core.errors import PartitionNotReadyError, SchemaError
from mfn_core.schema import APP_LOGS
from tasks import audit, ingest
from tasks.audit import Verdict
from tasks.ingest_plan import plan_partition
from tests.tasks.raw_files import NOW, app_rows, curated_rows, deliver, deliver_day, ingest_days

OWN = "2026-06-10"


@pytest.fixture(autouse=True)
def _approving_judge(monkeypatch):
    monkeypatch.setattr(audit, "judge", lambda *_: Verdict("stub", True, 0, (), (), ""))


def row(day, hour=9):
    return ("ann", "bank", "finance", f"{day}T{hour:02}:00")


def plan(settings, earliest="2026-06-03"):
    """Days of the chunks of the run of 10 June; each must be a chunk of its own."""
    chunks = plan_partition(settings, APP_LOGS, date.fromisoformat(earliest), date.fromisoformat(OWN))
    assert all(chunk["first_day"] == chunk["last_day"] for chunk in chunks)
    return [chunk["first_day"] for chunk in chunks]


def read(settings, day):
    return ingest.ingest_planned(settings, APP_LOGS, {"first_day": day, "last_day": day}, now=NOW)


def test_a_day_that_was_not_whole_when_it_was_read_is_read_again_by_the_run_of_the_next_day(settings):
    deliver_day(settings, "2026-06-09", [row("2026-06-09", 1)])
    ingest_days(settings, "2026-06-09")
    deliver(settings, "app_logs/dt=2026-06-09/hour-23.parquet", app_rows([row("2026-06-09", 23)]))
    deliver_day(settings, OWN, [row(OWN)])
    assert plan(settings) == ["2026-06-09", OWN]
    read(settings, "2026-06-09")
    assert curated_rows(settings, "2026-06-09") == [row("2026-06-09", 1), row("2026-06-09", 23)]


def test_days_that_were_missed_while_nothing_ran_are_in_the_plan_in_order(settings):
    for day in ("2026-06-07", "2026-06-08", "2026-06-09", OWN):
        deliver_day(settings, day, [row(day)])
    ingest_days(settings, "2026-06-07")
    assert plan(settings) == ["2026-06-08", "2026-06-09", OWN]


def test_days_before_the_earliest_and_after_the_own_are_not_looked_at(settings):
    for day in ("2026-06-02", "2026-06-03", OWN, "2026-06-11"):
        deliver_day(settings, day, [row(day)])
    assert plan(settings) == ["2026-06-03", OWN]
    assert plan(settings, earliest=OWN) == [OWN]


def test_days_before_its_own_that_have_not_arrived_do_not_stop_a_run(settings):
    for day in ("2026-06-07", OWN):
        deliver_day(settings, day, [row(day)])
    assert plan(settings) == ["2026-06-07", OWN]


def test_a_day_that_has_not_arrived_waits_in_its_own_chunk_and_holds_up_no_earlier_one(settings):
    deliver_day(settings, "2026-06-09", [row("2026-06-09")])
    assert plan(settings) == ["2026-06-09", OWN]
    assert read(settings, "2026-06-09")["late"] == ["2026-06-09"]
    with pytest.raises(PartitionNotReadyError, match=r"app_logs/dt=2026-06-10 has no Parquet file yet"):
        read(settings, OWN)


def test_a_run_whose_own_day_is_read_already_finds_it_published_and_can_announce_it(settings):
    deliver_day(settings, OWN, [row(OWN)])
    ingest_days(settings, OWN)
    assert plan(settings) == [OWN]
    assert read(settings, OWN) == {"days": [OWN], "late": []}


def test_a_day_is_late_for_the_first_who_reads_it_alone(settings):
    deliver_day(settings, OWN, [row(OWN)])
    assert read(settings, OWN)["late"] == [OWN]
    deliver_day(settings, OWN, [row(OWN), row(OWN, 10)])
    assert read(settings, OWN) == {"days": [OWN], "late": []}


def test_late_rows_make_no_late_day(settings):
    deliver_day(settings, OWN, [row(OWN), row("2026-06-09")])
    assert read(settings, OWN) == {"days": ["2026-06-09", OWN], "late": [OWN]}


def test_a_day_whose_reader_died_is_late_for_the_next(settings, monkeypatch):
    deliver_day(settings, OWN, [row(OWN)])

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_acknowledge", die)
        with pytest.raises(KeyboardInterrupt):
            read(settings, OWN)
    assert read(settings, OWN)["late"] == [OWN]


def test_a_bad_day_before_the_own_is_a_chunk_that_fails_alone(settings):
    deliver_day(settings, "2026-06-09", [row("2026-06-01")])
    deliver_day(settings, OWN, [row(OWN)])
    assert plan(settings) == ["2026-06-09", OWN]
    with pytest.raises(SchemaError, match="none of 1 rows has an event_time on 2026-06-09"):
        read(settings, "2026-06-09")
    assert read(settings, OWN)["days"] == [OWN]
