"""Prints what the DAG files are, as JSON. Runs in a process of its own, so that it sees what parsing them imports."""

import json
import sys
import warnings
from typing import Any

_NUMBERS = {"torch", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "lightgbm", "matplotlib"}
HEAVY = _NUMBERS | {"mlflow", "great_expectations", "duckdb", "ibis"}


def main(folder: str) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bag = DagBag(folder)
    return {
        "import_errors": bag.import_errors,
        "warnings": [str(warning.message) for warning in caught] + [line for lines in bag.captured_warnings.values() for line in lines],
        "heavy": sorted(HEAVY & sys.modules.keys()),
        "dags": {dag.dag_id: _dag(dag) for dag in bag.dags.values()},
    }


def _dag(dag: Any) -> dict[str, Any]:
    return {
        "doc": dag.doc_md or "",
        "tags": sorted(dag.tags),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "timetable": type(dag.timetable).__name__,
        "params": {name: param.value for name, param in dag.params.items()},
        "tasks": {task.task_id: _task(task) for task in dag.tasks},
    }


def _task(task: Any) -> dict[str, Any]:
    from airflow.sdk.exceptions import AirflowTaskTimeout

    return {
        "owner": task.owner,
        "pool": task.pool,
        "timeout": task.execution_timeout.total_seconds() if task.execution_timeout else None,
        "retries": task.retries,
        "retry_delay": task.retry_delay.total_seconds(),
        "tells_permanent_from_transient": "ExceptionRetryPolicy" in type(_retry_policy(task)).__name__,
        "retries_a_timeout": _retry_policy(task).evaluate(AirflowTaskTimeout(), 1, 2).action.value != "fail",
        "after": sorted(task.upstream_task_ids),
        "trigger_rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        "outlets": [outlet.name for outlet in task.outlets],
    }


def _retry_policy(task: Any) -> Any:
    return task.partial_kwargs.get("retry_policy") if hasattr(task, "partial_kwargs") else task.retry_policy


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
