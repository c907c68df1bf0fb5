"""Great Expectations stands between a curated day and its readers."""

from datetime import date
from pathlib import Path

import pytest

from mfn_core.errors import AuditError
from mfn_core.schema import APP_LOGS
from tasks import curated, publication
from tests.tasks.raw_files import app_rows, curated_rows, deliver, deliver_day, ingest_days

ANN = ("ann", "bank", "finance", "2026-06-01T09:00")
BOB = ("bob", "chess", "games", "2026-06-01T10:00")
CAT = ("cat", "maps", "travel", "2026-06-02T11:00")


def test_the_manifest_holds_the_verdict(settings):
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    ingest_days(settings, "2026-06-01")
    verdict = curated.partitions(settings, APP_LOGS)[0].facts["verdict"]
    assert (verdict["suite"], verdict["success"], verdict["critical"], verdict["warnings"]) == ("app_logs_partition", True, [], [])
    assert Path(verdict["docs"]).is_file()


@pytest.fixture
def failing(monkeypatch):
    accounts = publication._accounts
    return lambda: monkeypatch.setattr(publication, "_accounts", lambda *day: accounts(*day) | {"null_keys": 3})


def test_a_critical_verdict_publishes_nothing(settings, failing):
    failing()
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    with pytest.raises(AuditError, match=r"null_keys = 3 at dt 2026-06-01, expected 0"):
        ingest_days(settings, "2026-06-01")
    assert curated.partition(settings, APP_LOGS, date(2026, 6, 1)) is None


def test_a_critical_verdict_withdraws_nothing_either(settings, failing):
    deliver(settings, "app_logs.parquet", app_rows([ANN, CAT]))
    ingest_days(settings, "2026-06-01", "2026-06-02")
    deliver(settings, "app_logs.parquet", app_rows([BOB]))
    failing()
    with pytest.raises(AuditError, match="null_keys = 3"):
        ingest_days(settings, "2026-06-01", "2026-06-02")
    assert curated_rows(settings) == [ANN, CAT]
