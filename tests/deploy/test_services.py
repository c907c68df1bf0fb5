"""``make up`` and ``make down`` with the real Airflow and MLflow."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.local.environment import HOME, password
from deploy.local.processes import Processes

pytestmark = pytest.mark.slow_start


@dataclass(frozen=True)
class Running:
    var: Path
    airflow: str
    mlflow: str
    printed: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def services(var: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local.services", *arguments]
    return subprocess.run(command, cwd=HOME, env=os.environ | {"MFN_VAR": str(var)}, capture_output=True, text=True, check=False)


def leaders(running: Running) -> set[str]:
    return {record.read_text() for record in (running.var / "run").glob("*.json")}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    var = tmp_path_factory.mktemp("services") / "var"
    airflow_port, mlflow_port = free_port(), free_port()
    try:
        up = services(var, "up", "--airflow-port", str(airflow_port), "--mlflow-port", str(mlflow_port))
        assert up.returncode == 0, up.stdout + up.stderr
        yield Running(var, f"http://127.0.0.1:{airflow_port}", f"http://127.0.0.1:{mlflow_port}", up.stdout)
    finally:
        Processes(var / "run").stop(grace_s=0)


@pytest.fixture
def api(running: Running) -> Iterator[httpx.Client]:
    login = {"username": "admin", "password": password(running.var)}
    token = httpx.post(f"{running.airflow}/auth/token", json=login).json()["access_token"]
    with httpx.Client(base_url=f"{running.airflow}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        yield client


def test_it_says_where_the_uis_are_and_how_to_log_in(running: Running) -> None:
    assert running.airflow in running.printed
    assert running.mlflow in running.printed
    assert f"admin, password {password(running.var)}" in running.printed


def test_both_uis_answer(running: Running) -> None:
    assert "<title>Airflow</title>" in httpx.get(running.airflow).text
    assert "<title>MLflow</title>" in httpx.get(running.mlflow).text


def test_nothing_listens_beyond_loopback(running: Running) -> None:
    sockets = [connection for process in Processes(running.var / "run").members() for connection in process.net_connections()]
    listening = {connection.laddr.ip for connection in sockets if connection.status == psutil.CONN_LISTEN}

    assert listening == {"127.0.0.1"}


def test_the_pool_of_the_training_has_one_slot(api: httpx.Client) -> None:
    assert api.get("/pools/gpu").json()["slots"] == 1


def test_every_dag_is_ready_save_those_that_wait_for_daily_logs(api: httpx.Client) -> None:
    dags = api.get("/dags").json()["dags"]

    assert api.get("/importErrors").json()["import_errors"] == []
    assert {dag["dag_id"] for dag in dags if dag["is_paused"]} == {"mfn_ingest_app_logs", "mfn_ingest_item_logs", "mfn_ingest_users"}


def test_a_task_runs_and_its_log_is_shown(api: httpx.Client) -> None:
    conf = {"num_users": 20, "num_days": 7}
    run = api.post("/dags/mfn_simulate/dagRuns", json={"logical_date": None, "conf": conf}).json()["dag_run_id"]
    deadline = time.monotonic() + 90
    while (state := api.get(f"/dags/mfn_simulate/dagRuns/{run}").json()["state"]) in {"queued", "running"} and time.monotonic() < deadline:
        time.sleep(0.5)

    log = api.get(f"/dags/mfn_simulate/dagRuns/{run}/taskInstances/simulate/logs/1", headers={"Accept": "application/x-ndjson"}).text
    assert (state, "app_logs" in log) == ("success", True)


def test_up_again_starts_nothing_and_keeps_the_password_to_itself(running: Running) -> None:
    before = leaders(running)
    ports = ["--airflow-port", running.airflow.rpartition(":")[2], "--mlflow-port", running.mlflow.rpartition(":")[2]]

    again = services(running.var, "up", *ports)

    assert (again.returncode, "Starting" in again.stdout, password(running.var) in again.stdout) == (0, False, False)
    assert leaders(running) == before


def test_a_port_in_use_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        up = services(tmp_path / "var", "up", "--airflow-port", str(port), "--mlflow-port", str(free_port()))

    assert up.returncode == 1
    assert f"port {port} of api-server is taken by another program; choose one: make up AIRFLOW_PORT={port + 1}" in up.stderr


def test_down_leaves_nothing_running(running: Running) -> None:
    down = services(running.var, "down")

    assert (down.returncode, Processes(running.var / "run").members()) == (0, set())
    assert services(running.var, "down").stdout == "nothing was running\n"
