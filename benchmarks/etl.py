"""From raw Parquet to point-in-time histories: rows a second, peak memory, and what one more day costs.

``python -m benchmarks.etl --rows 10000000``: writes simulated raw logs of both views as daily folders, then runs what the DAGs run
(ingest of either log, validation of the days, the dataset), each stage in a process of its own under the memory limit of the
installation. Then one more day arrives, and is ingested and validated. Beside it DuckDB alone, on the same files: read both logs, sort
by user and time, write.
"""

import argparse
import tempfile
from datetime import date, timedelta
from pathlib import Path

import duckdb

from benchmarks.record import Timed, in_process, write
from benchmarks.rounds import ONE_MORE_DAY
from mfn_core.config import DatasetConfig
from mfn_core.schema import LOGS, LogSchema
from tasks.dag_configs import IngestConfig, TrainConfig, ValidateConfig
from tasks.settings import Settings

_IMPORTS = (
    "great_expectations",
    "tasks.ingest",
    "tasks.validate",
    "tasks.build_dataset",
    "tasks.plan",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
_FIRST_DAY = date(2026, 1, 1)
_EVENTS_PER_USER = 100
_ENTITIES, _CATEGORIES = {"macro": 2_000, "micro": 50_000}, {"macro": 20, "micro": 50}


def main() -> None:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="mfn-etl-", dir=options.folder) as folder:
        _run(Path(folder), options)


def _run(folder: Path, options: argparse.Namespace) -> None:
    settings = Settings(var=folder / "var", raw_uri=str(folder / "raw"), duckdb_memory_limit=options.memory_limit)
    rows_per_day = options.rows // 2 // options.days
    in_process(write_raw, folder / "raw", _FIRST_DAY, options.days, rows_per_day, options.rows)
    in_process(make_registry, settings)
    rows = 2 * options.days * rows_per_day
    stages: dict[str, Timed] = {}
    for view, log in LOGS.items():
        stages[f"ingest {log.dataset}"] = in_process(ingest, settings, view, imports=_IMPORTS)
    stages["validate days"] = in_process(validate, settings, imports=_IMPORTS)
    stages["dataset"] = in_process(dataset, settings, imports=_IMPORTS)
    stages["DuckDB alone: sort and write"] = in_process(plain_sort, settings, folder / "plain")
    in_process(write_raw, folder / "raw", _FIRST_DAY + timedelta(days=options.days), 1, rows_per_day, options.rows)
    for view, log in LOGS.items():
        stages[f"one more day: ingest {log.dataset}"] = in_process(ingest, settings, view, imports=_IMPORTS)
    stages["one more day: validate"] = in_process(validate, settings, imports=_IMPORTS)
    rounds = {name: {"seconds": round(timed.seconds, 3), "peak_rss_gib": round(timed.peak_rss_gib, 3)} for name, timed in stages.items()}
    for name, figures in rounds.items():
        print(f"{name}: {figures['seconds']} s, {figures['peak_rss_gib']} GiB")
    history = [timed for name, timed in stages.items() if name.startswith(("ingest", "validate", "dataset"))]
    increment = [timed for name, timed in stages.items() if name.startswith("one more day")]
    write(
        options.name,
        {
            "etl_rows": rows,
            "etl_rows_per_s": rows / sum(timed.seconds for timed in history),
            "etl_dataset_rows_per_s": rows / stages["dataset"].seconds,
            "etl_peak_rss_gb": max(timed.peak_rss_gib for timed in history),
            "etl_duckdb_sort_rows_per_s": rows / stages["DuckDB alone: sort and write"].seconds,
            "etl_one_more_day_s": sum(timed.seconds for timed in increment),
            "etl_one_more_day_rows": 2 * rows_per_day,
        },
        rounds,
        ("duckdb", "ibis-framework", "pyarrow", "numpy", "great-expectations"),
        [
            f"{options.days} daily folders of either log; DuckDB's memory limit {options.memory_limit}; "
            "imports, and making MLflow's tables, are not timed",
            ONE_MORE_DAY,
        ],
    )


def write_raw(folder: Path, first_day: date, num_days: int, rows_per_day: int, all_rows: int) -> None:
    """Simulated raw logs: users, apps and items drawn with a skew, one Parquet file a day."""
    with duckdb.connect() as connection:
        for number in range(num_days):
            day = first_day + timedelta(days=number)
            for view, log in LOGS.items():
                path = folder / log.dataset / f"dt={day}" / "part-0.parquet"
                path.parent.mkdir(parents=True)
                connection.execute(_raw_day(view, log, day, rows_per_day, all_rows // 2 // _EVENTS_PER_USER, path))


def _raw_day(view: str, log: LogSchema, day: date, rows: int, users: int, path: Path) -> str:
    entities, categories = _ENTITIES[view], _CATEGORIES[view]
    start = (day.toordinal() * len(LOGS) + list(LOGS).index(view)) * rows
    uniform = {salt: f"(hash((i + {start}) * 4 + {salt}) / 18446744073709551616.0)" for salt in (1, 2, 3)}
    return f"""
        COPY (
            SELECT 'u' || (floor({uniform[1]} * {users}))::BIGINT AS user_id,
                   entity::VARCHAR AS {log.id},
                   'c' || (entity % {categories}) AS {log.category},
                   TIMESTAMPTZ '{day} 00:00:00+00' + to_microseconds((floor({uniform[3]} * 86400e6))::BIGINT) AS event_time
            FROM (SELECT i, (floor(pow({uniform[2]}, 3) * {entities}))::BIGINT AS entity FROM range({rows}) AS t(i))
        ) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
    """


def make_registry(settings: Settings) -> None:
    """The tables of MLflow, which an installation makes once: the dataset is planned by the versions that are registered."""
    from tasks.tracking import registry

    assert not registry.versions(settings)


def ingest(settings: Settings, view: str) -> int:
    from tasks.ingest import ingest_chunk
    from tasks.ingest_plan import plan_ingest

    log = LOGS[view]
    chunks = plan_ingest(settings, log, None, None, IngestConfig().days_per_chunk)
    for chunk in chunks:
        ingest_chunk(settings, log, date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"]))
    return len(chunks)


def validate(settings: Settings) -> int:
    from tasks.validate import validate_range
    from tasks.validated import days_to_validate

    return len(validate_range(settings, days_to_validate(settings, ValidateConfig()), ValidateConfig()))


def dataset(settings: Settings) -> dict[str, int]:
    from tasks.build_dataset import build_dataset
    from tasks.plan import plan_training

    config = TrainConfig()
    shape = DatasetConfig(**config.model_dump(include=set(DatasetConfig.model_fields)))
    return build_dataset(settings, shape, plan_training(settings, config), mask_seen="auto")["rows"]


def plain_sort(settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True)
    with duckdb.connect(config={"memory_limit": settings.duckdb_memory_limit, "threads": settings.duckdb_threads}) as connection:
        for log in LOGS.values():
            connection.execute(
                f"COPY (SELECT * FROM read_parquet('{settings.raw}/{log.dataset}/*/*.parquet', hive_partitioning=false) "
                f"ORDER BY user_id, event_time) TO '{folder / log.dataset}.parquet' (FORMAT parquet, COMPRESSION zstd)"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="raw rows of both logs together")
    parser.add_argument("--days", type=int, default=50)
    parser.add_argument("--memory-limit", default="4GB", help="of DuckDB, as MFN_DUCKDB_MEMORY_LIMIT sets it")
    parser.add_argument("--folder", type=Path, help="where the logs are simulated; default: the temporary folder")
    parser.add_argument("--name", default="etl", help="of the record")
    return parser


if __name__ == "__main__":
    main()
