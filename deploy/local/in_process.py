"""Runs the real DAGs in this process, one after the other, with Airflow's own ``dag.test()``.

Import this module only under the environment of ``deploy.local.environment``: Airflow reads it when it is imported.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.listeners import hookimpl
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.sdk.listener import get_listener_manager
from airflow.utils.session import create_session
from sqlalchemy import func, select

from mfn_core.errors import ConfigError, MFNError


class DagFailedError(MFNError):
    """A task of a DAG failed."""


@dataclass(frozen=True)
class Output:
    """What the latest run that got through a task left there."""

    dag_id: str
    run_id: str
    values: tuple[Any, ...]
    seconds: float


class InProcessDags:
    """The DAGs of the repository; each task that starts, skips or fails is reported as one line.

    Args:
        folder: the DAG files.
        say: prints a line.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        bag = DagBag(dag_folder=str(folder), bundle_name="dags-folder")
        if bag.import_errors:
            raise ConfigError("\n".join(f"{file} cannot be imported:\n{error}" for file, error in bag.import_errors.items()))
        self._dags: dict[str, DAG] = dict(bag.dags)
        self._reporter = _Reporter(say)
        get_listener_manager().add_listener(self._reporter)

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> float:
        """Run a DAG to its end, each task once; seconds it took.

        Raises:
            DagFailedError: a task failed.
        """
        dag = self._dags[dag_id]
        for task in dag.tasks:
            task.retries = 0
        started = time.monotonic()
        run = dag.test(logical_date=datetime.now(UTC), run_conf=conf or {})
        if run.state != "success":
            raise DagFailedError(self._reporter.failure or f"{dag_id} ended as {run.state}")
        return time.monotonic() - started

    @staticmethod
    def output(dag_id: str, task_id: str, run_id: str | None = None) -> Output | None:
        """What a task returned, one value for each mapped instance, in a run; without one, in the latest that returned something."""
        of_task = (XComModel.dag_id == dag_id, XComModel.task_id == task_id, XComModel.key == "return_value")
        with create_session() as session:
            run_id = run_id or session.scalar(select(XComModel.run_id).where(*of_task).order_by(XComModel.timestamp.desc()).limit(1))
            if run_id is None:
                return None
            values = session.scalars(select(XComModel.value).where(*of_task, XComModel.run_id == run_id).order_by(XComModel.map_index))
            instances = (TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id, TaskInstance.run_id == run_id)
            seconds = session.scalar(select(func.sum(TaskInstance.duration)).where(*instances))
            return Output(dag_id, run_id, tuple(values), seconds or 0.0)


class _Reporter:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.failure: str | None = None

    @hookimpl
    def on_task_instance_running(self, task_instance):
        mapped = f" [{task_instance.rendered_map_index or task_instance.map_index}]" if task_instance.map_index >= 0 else ""
        self._say(f"{task_instance.dag_id} · {task_instance.task_id}{mapped}")

    @hookimpl
    def on_task_instance_skipped(self, task_instance):
        self._say(
            f"  skipped: {task_instance.xcom_pull(task_ids=task_instance.task_id, key='skipped', map_indexes=task_instance.map_index)}"
        )

    @hookimpl
    def on_task_instance_failed(self, task_instance, error):
        name = type(error).__name__ if isinstance(error, BaseException) else "Error"
        self.failure = f"{task_instance.dag_id} · {task_instance.task_id} failed: {name}: {error}"
