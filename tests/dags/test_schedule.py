"""What Airflow's timetable makes of the daily schedule: why it does not catch up, and that no day is lost by it."""

from datetime import UTC, date, datetime, timedelta

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables import trigger
from airflow.timetables.base import DagRunInfo, TimeRestriction

from tasks.airflow_adapter import DAILY
from tasks.settings import Settings

NOW = datetime(2026, 6, 28, 9, tzinfo=UTC)


@pytest.fixture
def following(monkeypatch: pytest.MonkeyPatch):
    """The partition of the run after another, seen at 09:00 on 28 June."""
    timetable = decode_timetable(encode_timetable(DAILY))  # what the scheduler has of a DAG

    def after(last: DagRunInfo | None, *, catchup: bool, now: datetime = NOW) -> str | None:
        monkeypatch.setattr(trigger, "utcnow", lambda: now)
        found = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=TimeRestriction(None, None, catchup))
        return found.partition_key if found else None

    return after


def run_for(day: str, *, hours_later: int = 24) -> DagRunInfo:
    """The clock makes a run when its day is over; a backfill gives a run the time at which its day begins."""
    partition = pendulum.parse(day)
    return DagRunInfo(run_after=partition.add(hours=hours_later), data_interval=None, partition_date=partition, partition_key=day)


@pytest.mark.parametrize(("hour", "day"), [(1, "2026-06-27"), (9, "2026-06-28")])
def test_a_new_installation_starts_with_yesterday_shortly_after_midnight_and_with_today_later(following, hour: int, day: str) -> None:
    assert following(None, catchup=False, now=NOW.replace(hour=hour)) == day


def test_each_day_follows_the_one_before(following) -> None:
    assert following(run_for("2026-06-26"), catchup=False) == "2026-06-27"


def test_after_an_interruption_the_next_run_is_yesterdays_and_looks_at_the_days_that_were_missed(following) -> None:
    assert following(run_for("2026-06-23"), catchup=False) == "2026-06-27"
    assert date(2026, 6, 27) - timedelta(days=Settings().redelivery_days) <= date(2026, 6, 24)


def test_a_schedule_that_caught_up_would_make_a_run_for_every_day_since_an_old_backfill(following) -> None:
    last_of_backfill = run_for("2025-01-07", hours_later=0)
    assert following(last_of_backfill, catchup=True) == "2025-01-07"
    assert following(run_for("2025-01-07"), catchup=True) == "2025-01-08"
    assert following(last_of_backfill, catchup=False) == "2026-06-27"
