"""The audit of one curated day, as ingest does it, against plain DuckDB that asks the same questions of the same file.

``python -m benchmarks.audit --rows 10000000``. Ours: the measures that ingest takes while it writes, here of the written file and on one
thread, judged by Great Expectations, with Data Docs. Plain: one SQL statement and comparisons in Python. Imports are not timed; memory
is that of a process of its own.
"""

import argparse
import tempfile
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.etl import write_raw
from benchmarks.record import Timed, in_process, interleaved, write
from benchmarks.rounds import of_audit, typical
from mfn_core.schema import ITEM_LOGS
from tasks.settings import Settings

_DAY = date(2026, 1, 1)
_ROWS_PER_BATCH = 500_000
_IMPORTS = ("great_expectations", "tasks.ingest", "tasks.publication", "expectations.log_partition")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the day")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="4GB", help="of DuckDB, as MFN_DUCKDB_MEMORY_LIMIT sets it")
    parser.add_argument("--name", default="audit", help="of the record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mfn-audit-") as folder:
        _run(Path(folder), options)


def _run(folder: Path, options: argparse.Namespace) -> None:
    settings = Settings(var=folder / "var", raw_uri=str(folder / "raw"), duckdb_memory_limit=options.memory_limit)
    in_process(write_raw, folder / "raw", _DAY, 1, options.rows, 2 * options.rows)
    settings.scratch.mkdir(parents=True)
    in_process(_curate, settings, imports=_IMPORTS)
    peaks = {"mfn": 0.0, "duckdb": 0.0}

    def seconds_of(name: str, timed: Timed) -> float:
        peaks[name] = max(peaks[name], timed.peak_rss_gib)
        return timed.seconds

    rounds = interleaved(
        {
            "mfn": lambda: seconds_of("mfn", in_process(_audit, settings, imports=_IMPORTS)),
            "duckdb": lambda: seconds_of("duckdb", in_process(_plain, settings)),
        },
        options.rounds,
    )
    write(
        options.name,
        {
            "audit_rows": options.rows,
            **typical(of_audit(rounds)),
            "audit_peak_rss_gb": peaks["mfn"],
        },
        rounds,
        ("duckdb", "ibis-framework", "great-expectations"),
        [f"DuckDB's memory limit {options.memory_limit}, {settings.duckdb_threads} threads on both sides"],
    )


def _curate(settings: Settings) -> None:
    from tasks.ingest import ingest_chunk

    ingest_chunk(settings, ITEM_LOGS, _DAY, _DAY)


def _audit(settings: Settings) -> str:
    from tasks import coding, curated, day_parts, publication
    from tasks.measures import Measures

    (day,) = curated.partitions(settings, ITEM_LOGS, _DAY, _DAY)
    contributions = {name: publication.Contribution(**fields) for name, fields in day.facts["contributions"].items()}
    measures = Measures(ITEM_LOGS, _DAY)
    for rows in (rows for path in curated.part_uris(day) for rows in pq.ParquetFile(path).iter_batches(_ROWS_PER_BATCH)):
        measures.add(coding.compact(rows), pa.array(np.zeros(rows.num_rows, np.uint64)))
    merged = day_parts.MergedDay(_DAY, measures, 0, None)
    return publication._audit(
        settings, ITEM_LOGS, [publication._metrics(publication.Day(_DAY, None, contributions), merged)], "benchmark"
    ).docs


def _plain(settings: Settings) -> None:
    from tasks import curated

    (day,) = curated.partitions(settings, ITEM_LOGS, _DAY, _DAY)
    with duckdb.connect(config={"memory_limit": settings.duckdb_memory_limit, "threads": settings.duckdb_threads}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        accepted, users, items, categories, null_keys, equal_rows, outside, null_seq_no, negative, *_ = connection.execute(f"""
            WITH log AS (
                SELECT *, hash(user_id, item_id, item_category, event_time, event_type, dwell_s, seq_no) AS row_hash
                FROM read_parquet({curated.part_uris(day)}, hive_partitioning=false)
            )
            SELECT count(*), count(DISTINCT user_id), count(DISTINCT item_id), count(DISTINCT item_category),
                   count_if(user_id IS NULL OR item_id IS NULL OR item_category IS NULL OR event_time IS NULL),
                   count(*) - count(DISTINCT row_hash), count_if(event_time::DATE != DATE '{_DAY}'), count_if(seq_no IS NULL),
                   coalesce(count_if(dwell_s < 0), 0), epoch_us(min(event_time)), epoch_us(max(event_time)), sum(row_hash::HUGEINT)
            FROM log
        """).fetchone()
    assert accepted >= 1
    assert users >= 2
    assert items >= 1
    assert 2 <= categories <= 10_000
    found = (null_keys, equal_rows, outside, null_seq_no, negative)
    assert found == (0, 0, 0, 0, 0), f"the day is sound, yet plain DuckDB counts {found}"


if __name__ == "__main__":
    main()
