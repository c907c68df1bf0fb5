"""The engine: what is asked of DuckDB beyond what Ibis can say."""

import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import engine

TIME = pa.timestamp("us", tz="UTC")


@pytest.fixture
def connection(settings):
    with engine.connect(settings) as connected:
        yield connected


def test_no_connection_draws_a_progress_bar_into_the_log(connection):
    with engine.beside(connection) as other:
        for each in (connection, other):
            assert each.raw_sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_what_a_killed_process_has_spilled_is_removed_by_the_next_connection(settings):
    script = f"""
import os, signal
from pathlib import Path
from tasks import engine
from tasks.settings import Settings
with engine.connect(Settings(var=Path({str(settings.var)!r}))) as connection:
    spill = connection.raw_sql("SELECT current_setting('temp_directory')").fetchone()[0]
    Path(spill, "spilled.bin").write_text("much")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGKILL
    assert len(list(settings.scratch.rglob("spilled.bin"))) == 1
    with engine.connect(settings):
        assert list(settings.scratch.rglob("spilled.bin")) == []
    assert list(settings.scratch.iterdir()) == []


def test_the_hash_of_a_row_is_that_of_the_installed_engine(connection):
    # Another number after an upgrade of DuckDB is no defect, but belongs into the changelog: days that are read again count as changed.
    row = ibis.memtable(pa.table({"user_id": ["ann"], "seq_no": [7], "duration_s": pa.array([None], pa.float64())}))
    assert engine.row_hash(row, ["user_id", "seq_no", "duration_s"]).to_pyarrow().to_pylist() == [8784321692203041897]


def test_the_hash_of_a_row_knows_its_columns_apart(connection):
    rows = ibis.memtable(pa.table({"a": ["x", "y"], "b": ["y", "x"]}))
    first, second = connection.to_pyarrow(engine.row_hash(rows, ["a", "b"])).to_pylist()
    assert first != second


@pytest.mark.parametrize(
    ("microseconds", "day"),
    [(-1, date(1969, 12, 31)), (0, date(1970, 1, 1)), (86_399_999_999, date(1970, 1, 1)), (86_400_000_000, date(1970, 1, 2))],
)
def test_a_day_begins_at_midnight_utc_before_1970_too(connection, microseconds, day):
    rows = ibis.memtable(pa.table({"time": pa.array([microseconds], TIME)}))
    assert connection.to_pyarrow(engine.utc_day(rows["time"])).to_pylist() == [day]


def test_every_row_says_its_file_and_its_place_in_it(connection, tmp_path):
    paths = [str(tmp_path / name) for name in ("b's.parquet", "a.parquet")]
    for path, users in zip(paths, (["ann", "bob"], ["cai"]), strict=True):
        pq.write_table(pa.table({"user_id": users}), path)
    rows = engine.read_parquet(connection, paths, with_origin=True)
    assert sorted(tuple(row.values()) for row in rows.to_pyarrow().to_pylist()) == [("ann", 0, 0), ("bob", 0, 1), ("cai", 1, 0)]


def test_a_connection_beside_sees_the_tables_of_the_first(connection):
    connection.create_table("numbers", pa.table({"n": [1, 2]}))
    with engine.beside(connection) as other:
        assert other.table("numbers").to_pyarrow()["n"].to_pylist() == [1, 2]
