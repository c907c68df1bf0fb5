"""Prints the picture of the flow in README.md, as Mermaid, from the DAGs themselves: ``make picture``.

Boxes are DAGs with their tasks, in order; an arrow is an asset that one DAG emits and another waits for.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from deploy.local.environment import HOME, composed


def mermaid(folder: str) -> str:
    """The flow of the DAGs in a folder."""
    from airflow.dag_processing.dagbag import DagBag

    dags = sorted(DagBag(folder).dags.values(), key=lambda dag: dag.dag_id)
    boxes = [f'    {dag.dag_id}["<b>{dag.dag_id}</b><br/>{" → ".join(task.task_id for task in dag.topological_sort())}"]' for dag in dags]
    return "\n".join(["flowchart TD", *boxes, *sorted({line for dag in dags for line in _arrows(dag, dags)})])


def _arrows(dag: Any, dags: list[Any]) -> Iterator[str]:
    awaited = set(_names(dag.timetable.asset_condition))
    for producer in dags:
        emitted = {outlet.name for task in producer.tasks for outlet in task.outlets}
        for name in emitted & awaited:
            yield f"    {producer.dag_id} -- {name} --> {dag.dag_id}"


def _names(condition: Any) -> Iterator[str]:
    """Names of the assets in a schedule's condition; "all of" and "any of" hold others."""
    if hasattr(condition, "objects"):
        for part in condition.objects:
            yield from _names(part)
    elif hasattr(condition, "name"):
        yield condition.name


if __name__ == "__main__":
    # Airflow reads its environment when it is imported, and logs to standard output.
    os.environ.update(composed(HOME / "var"))
    with redirect_stdout(sys.stderr):
        picture = mermaid(str(HOME / "dags"))
    print(picture)
