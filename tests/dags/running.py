"""Real Airflow for a test: scheduler, dag-processor and api-server on a free port of loopback, spoken to over the REST API."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from deploy.local.environment import ADMIN, bootstrapped, password
from deploy.local.processes import Processes
from tasks.settings import Settings

FINISHED = {"success", "failed"}
_SERVICES = {"api-server": [], "scheduler": ["--skip-serve-logs"], "dag-processor": []}
_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


@dataclass(frozen=True)
class Airflow:
    """A running Airflow, with the demo's settings and an installation of its own."""

    settings: Settings
    client: httpx.Client

    def unpause(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            self._checked(self.client.patch(f"/dags/{dag_id}", json={"is_paused": False}))

    def pause(self, dag_id: str) -> None:
        self._checked(self.client.patch(f"/dags/{dag_id}", json={"is_paused": True}))

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """The id of the new run."""
        return self._checked(self.post_run(dag_id, conf or {}))["dag_run_id"]

    def post_run(self, dag_id: str, conf: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})

    def backfill(self, dag_id: str, first_day: str, last_day: str) -> None:
        body = {"dag_id": dag_id, "from_date": f"{first_day}T00:00:00Z", "to_date": f"{last_day}T00:00:00Z", "max_active_runs": 7}
        self._checked(self.client.post("/backfills", json=body))

    def finish(self, dag_id: str, run_id: str, seconds: float) -> str:
        """Wait for a run; its final state."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        until(lambda: self._checked(self.client.get(path))["state"] in FINISHED, seconds, f"{dag_id} {run_id}", self.say)
        return self._checked(self.client.get(path))["state"]

    def succeed(self, dag_id: str, conf: dict[str, Any], seconds: float) -> str:
        """Trigger a run and wait until it has succeeded; its id."""
        run_id = self.trigger(dag_id, conf)
        assert self.finish(dag_id, run_id, seconds) == "success", self.failure(dag_id, run_id)
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return self._checked(self.client.get(f"/dags/{dag_id}/dagRuns", params={"limit": 100}))["dag_runs"]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return self._checked(self.client.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"))["task_instances"]

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """State of each task; of a mapped one, of each instance by its index."""
        return {
            each["task_id"] if each["map_index"] < 0 else f"{each['task_id']}[{each['map_index']}]": each["state"]
            for each in self.tasks(dag_id, run_id)
        }

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self._checked(self.client.get(path, params={"deserialize": False, "stringify": False}))["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1"
        return self.client.get(path, params={"map_index": map_index, "full_content": True}).text

    def failure(self, dag_id: str, run_id: str) -> str:
        """States of a run's tasks, and the log of the first that failed."""
        failed = next((each for each in self.tasks(dag_id, run_id) if each["state"] == "failed"), None)
        log = self.log(dag_id, run_id, failed["task_id"], failed["map_index"])[-6000:] if failed else ""
        return f"{dag_id} {run_id}: {self.states(dag_id, run_id)}\n{log}"

    def mark_failed(self, dag_id: str, run_id: str, task_id: str) -> None:
        self._checked(self.client.patch(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", json={"new_state": "failed"}))

    def training_processes(self) -> list[psutil.Process]:
        """Living training children of this installation."""
        return [process for process in psutil.process_iter() if _is_worker_of(process, str(self.settings.var))]

    def say(self) -> str:
        """All runs in one line each, for a message."""
        runs = self._checked(self.client.get("/dags/~/dagRuns", params={"limit": 100}))["dag_runs"]
        return "\n".join(f"{run['dag_id']} {run['dag_run_id']} {run['partition_key']} {run['state']}" for run in runs)

    @staticmethod
    def _checked(response: httpx.Response) -> Any:
        assert response.is_success, f"{response.request.method} {response.request.url}: {response.status_code} {response.text}"
        return response.json()


@contextmanager
def running(var: Path, bundle: Path) -> Iterator[Airflow]:
    """Start Airflow on the repository's DAGs and those of ``bundle``; end it, with all it started."""
    port = _free_port()
    environment = bootstrapped(var, airflow_port=port)
    bundles = [
        {"name": "dags-folder", "classpath": _BUNDLE, "kwargs": {}},
        {"name": "tests", "classpath": _BUNDLE, "kwargs": {"path": str(bundle)}},
    ]
    environment |= {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # the files do not change while the test runs
        "OMP_NUM_THREADS": "1",
    }
    processes = Processes(var / "run")
    try:
        for name, options in _SERVICES.items():
            processes.start(name, [sys.executable, "-m", "airflow", name, *options], environment, cwd=var)
        base = f"http://127.0.0.1:{port}"
        until(lambda: _is_healthy(base), 120, "Airflow's health", lambda: _tails(processes))
        login = httpx.post(f"{base}/auth/token", json={"username": ADMIN, "password": password(var)}, trust_env=False)
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        with httpx.Client(base_url=f"{base}/api/v2", headers=headers, timeout=60, trust_env=False) as client:
            until(lambda: client.get("/dags").json()["total_entries"] >= 9, 60, "nine DAGs", lambda: client.get("/importErrors").text)
            yield Airflow(Settings(var=var, airflow_url=base), client)
    finally:
        processes.stop(grace_s=10)


def until(holds: Callable[[], bool], seconds: float, what: str, state: Callable[[], str] = str) -> None:
    """Wait until something holds; fail with ``what`` and the state of things if it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s\n{state()}"
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_healthy(base: str) -> bool:
    try:
        health = httpx.get(f"{base}/api/v2/monitor/health", trust_env=False).json()
    except (httpx.HTTPError, json.JSONDecodeError):
        return False
    return all(health.get(part, {}).get("status") == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _tails(processes: Processes) -> str:
    return "\n".join(processes.log(name).read_text(errors="replace")[-2000:] for name in _SERVICES)


def _is_worker_of(process: psutil.Process, var: str) -> bool:
    try:
        return (
            "mfn_core.training.worker" in process.cmdline()
            and process.environ().get("MFN_VAR") == var
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False
