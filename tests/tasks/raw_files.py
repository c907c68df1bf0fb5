"""Raw Parquet files written down row by row."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfn_core.schema import APP_LOGS, EVENT_TIME, USER_ID, LogSchema
from tasks import curated, ingest
from tasks.settings import Settings

NOW = datetime(2026, 7, 1, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")
Row = tuple[Any, Any, Any, str | None]  # user, app, category, "2026-06-01T09:00"


def app_rows(rows: Sequence[Row], **columns: pa.Array) -> pa.Table:
    """Raw app log; times are UTC. ``columns`` are added, or take the place of those of the rows."""
    users, apps, categories, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    instants = [None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC) for time in times]
    named = {
        USER_ID: pa.array(users, pa.string()),
        APP_LOGS.id: pa.array(apps, pa.string()),
        APP_LOGS.category: pa.array(categories, pa.string()),
        EVENT_TIME: pa.array(instants, TIME),
    }
    return pa.table(named | columns)


def deliver(settings: Settings, path: str, table: pa.Table) -> Path:
    """Write a raw file, in place of the one that was there."""
    file = Path(settings.raw) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def deliver_day(settings: Settings, day: str, rows: Sequence[Row]) -> Path:
    """Write the only file of a daily folder of the app log."""
    return deliver(settings, f"app_logs/dt={day}/part-0.parquet", app_rows(rows))


def ingest_days(settings: Settings, first: str, last: str | None = None) -> list[dict[str, Any]]:
    """Ingest days of the app log as one chunk."""
    return ingest.ingest_chunk(settings, APP_LOGS, date.fromisoformat(first), date.fromisoformat(last or first), now=NOW)


def curated_files(settings: Settings, log: LogSchema, day: date | None = None) -> list[str]:
    """The files of a published day, or of all, sorted by day."""
    return [uri for each in curated.partitions(settings, log, day, day) for uri in curated.part_uris(each)]


def curated_rows(settings: Settings, day: str | None = None) -> list[tuple[str, str, str, str]]:
    """User, app, category and time of the curated app log, sorted."""
    only = date.fromisoformat(day) if day else None
    tables = [pq.read_table(file) for file in curated_files(settings, APP_LOGS, only)]
    return sorted(
        (row[USER_ID], row[APP_LOGS.id], row[APP_LOGS.category], row[EVENT_TIME].strftime("%Y-%m-%dT%H:%M"))
        for table in tables
        for row in table.to_pylist()
    )


def counts(settings: Settings, day: str) -> dict[str, int]:
    """The counts in the manifest of a curated day."""
    found = curated.partition(settings, APP_LOGS, date.fromisoformat(day))
    assert found is not None, f"{day} is not published"
    return found.rows


def digest(settings: Settings, day: str) -> str:
    """The digest of a curated day."""
    found = curated.partition(settings, APP_LOGS, date.fromisoformat(day))
    assert found is not None, f"{day} is not published"
    return found.digest
