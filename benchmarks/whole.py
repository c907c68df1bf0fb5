"""Where the time of the whole goes: raw logs to a champion that scores, task by task, under a real scheduler.

``python -m benchmarks.whole --rows 1000000 --minutes 3``: simulates raw logs of a first load, starts Airflow with an installation of its
own, triggers the DAGs in the order of the demo, and asks Airflow when every task began and ended. Then the DAGs that have a plan run once
more: it finds nothing to do, so what it takes is Airflow's start of a task, and imports. What the modules of the tasks take to
import is measured beside it, each in a process of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.record import write
from deploy.local.environment import HOME
from mfn_core.config import SimulationConfig
from mfn_core.simulation import simulate
from tests.dags.running import Airflow, running

_DAGS = ("mfn_ingest_app_logs", "mfn_ingest_item_logs", "mfn_ingest_users", "mfn_validate", "mfn_train", "mfn_promote", "mfn_score")
_PLANNED = ("mfn_ingest_app_logs", "mfn_ingest_item_logs", "mfn_validate", "mfn_train")
_BODIES = ("ingest", "ingest_users", "plan", "validate", "build_dataset", "train", "evaluate", "gate", "register", "promote", "score")
_HEAVY = ("great_expectations", "mlflow", "torch", "ibis")
_LONGEST_S = 4 * 3600

Span = tuple[datetime, datetime]


def main() -> None:
    options = _parser().parse_args()
    imports = {body: _import(f"tasks.{body}") for body in _BODIES}
    with tempfile.TemporaryDirectory(prefix="mfn-whole-", dir=options.folder) as folder:
        raw, no_more_dags = Path(folder) / "raw", Path(folder) / "dags"
        rows = _write_raw(raw, options.rows)
        no_more_dags.mkdir()
        os.environ["MFN_RAW_URI"] = str(raw)
        with running(Path(folder) / "var", no_more_dags) as airflow:
            settings = {"mfn_train": {"max_minutes": options.minutes}}
            runs = [_run(airflow, dag_id, settings.get(dag_id, {})) for dag_id in _DAGS]
            idle = [_run(airflow, dag_id, settings.get(dag_id, {}))[f"{dag_id}.plan"] for dag_id in _PLANNED]
    tasks = {name: round(covered(spans), 3) for run in runs for name, spans in run.items()}
    loaded = "; ".join(f"{body}: {', '.join(said['loads']) or 'none'}" for body, said in imports.items())
    write(
        options.name,
        {
            "whole_rows": rows,
            "whole_s": sum(covered([_from_to(run)]) for run in runs),
            "whole_between_tasks_s": sum(
                covered([_from_to(run)]) - covered([span for spans in run.values() for span in spans]) for run in runs
            ),
            "whole_plan_that_finds_nothing_s": statistics.median(covered(spans) for spans in idle),
            **{f"whole_s {name}": seconds for name, seconds in sorted(tasks.items(), key=lambda item: -item[1])},
            **{f"import_s tasks.{body}": said["seconds"] for body, said in imports.items()},
        },
        {"tasks": tasks, "imports": imports},
        ("apache-airflow", "torch", "great-expectations", "mlflow", "duckdb"),
        [
            f"one first load, training ended after {options.minutes:g} minutes; OMP_NUM_THREADS=1 in the tasks",
            "a task's seconds are those that Airflow recorded, imports included; between tasks: of the same runs, when no task ran",
            f"import: of the module alone, in a process of its own; loads: {loaded}",
        ],
    )


def _write_raw(folder: Path, rows: int) -> int:
    config = SimulationConfig(num_users=round(rows / (2 * SimulationConfig().events_per_user)))
    world = simulate(config)
    folder.mkdir()
    for name in ("app_logs", "item_logs", "users"):
        pq.write_table(getattr(world, name), folder / f"{name}.parquet")
    return len(world.app_logs) + len(world.item_logs)


def _run(airflow: Airflow, dag_id: str, conf: dict[str, Any]) -> dict[str, list[Span]]:
    """When each task of a new run ran, one span for each mapped instance."""
    airflow.unpause(dag_id)
    run_id = airflow.succeed(dag_id, conf, _LONGEST_S)
    airflow.pause(dag_id)  # or what the next DAG announces would start it again
    spans: dict[str, list[Span]] = {}
    for task in airflow.tasks(dag_id, run_id):
        if task["start_date"] and task["end_date"]:
            span = datetime.fromisoformat(task["start_date"]), datetime.fromisoformat(task["end_date"])
            spans.setdefault(f"{dag_id}.{task['task_id']}", []).append(span)
    return spans


def _from_to(run: dict[str, list[Span]]) -> Span:
    """From the first task to the last."""
    spans = [span for each in run.values() for span in each]
    return min(began for began, _ in spans), max(ended for _, ended in spans)


def covered(spans: Sequence[Span]) -> float:
    """Seconds in which at least one of the spans ran."""
    seconds, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for began, ended in sorted(spans):
        seconds += max((ended - max(began, until)).total_seconds(), 0.0)
        until = max(ended, until)
    return seconds


def _import(module: str) -> dict[str, Any]:
    """Seconds that a module takes to import, and which heavy ones come with it."""
    program = (
        "import json, sys, time; began = time.perf_counter(); __import__(sys.argv[1]); seconds = time.perf_counter() - began; "
        "print(json.dumps({'seconds': round(seconds, 3), 'loads': [name for name in sys.argv[2:] if name in sys.modules]}))"
    )
    command = [sys.executable, "-c", program, module, *_HEAVY]
    return json.loads(subprocess.run(command, cwd=HOME, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="raw rows of both logs together, about")
    parser.add_argument("--minutes", type=float, default=3, help="limit of the training")
    parser.add_argument("--folder", type=Path, help="where the installation lies; default: the temporary folder")
    parser.add_argument("--name", default="whole", help="of the record")
    return parser


if __name__ == "__main__":
    main()
