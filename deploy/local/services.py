"""``make up`` and ``make down``: Airflow and the MLflow UI on loopback.

No triggerer: no task defers. No log server: it binds every interface; the api-server reads the task logs from this disk.
"""

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from deploy.local.environment import ADMIN, AIRFLOW_PORT, HOME, MLFLOW_PORT, bootstrapped, password, password_file
from deploy.local.installation import Installation, installation, sole_user
from deploy.local.processes import Processes
from mfn_core.errors import MFNError
from tasks.settings import load_settings

_START_LIMIT_S = 180
_LOG_TAIL = 3000


class StartError(MFNError):
    """A service did not start."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--data", type=Path, help="the data folder whose installation is meant")
    parser.add_argument("--airflow-port", type=int, default=AIRFLOW_PORT)
    parser.add_argument("--mlflow-port", type=int, default=MLFLOW_PORT)
    options = parser.parse_args(arguments)
    try:
        meant = installation(options.data)
        if options.command == "down":
            down(meant)
        else:
            with sole_user(meant):
                up(meant, options.airflow_port, options.mlflow_port)
    except MFNError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def up(meant: Installation, airflow_port: int, mlflow_port: int) -> None:
    """Start what does not run yet, wait until it answers, and say where it is.

    Raises:
        StartError: a port is taken, or a service ended or stayed silent.
    """
    processes = Processes(meant.var / "run")
    ports = {"api-server": airflow_port, "mlflow": mlflow_port}
    commands = _commands(meant.var, mlflow_port)
    missing = [name for name in commands if not processes.is_running(name)]
    for name in missing:
        if name in ports:
            _check_free(name, ports[name])
    print("Preparing the installation", flush=True)
    environment = {**bootstrapped(meant.var, airflow_port, mlflow_port), **meant.variables}
    if missing:
        print(f"Starting {', '.join(missing)}", flush=True)
    for name in missing:
        processes.start(name, [sys.executable, "-m", *commands[name]], environment, cwd=meant.var)
    try:
        _wait_until("the MLflow UI", lambda: _mlflow_answers(mlflow_port), processes, list(commands))
        _wait_until("Airflow", lambda: _airflow_answers(airflow_port), processes, list(commands))
        left_paused = _unpause(meant.var, airflow_port, processes, list(commands))
    except StartError:
        if len(missing) == len(commands):
            processes.stop()
        raise
    _greet(meant, airflow_port, mlflow_port, left_paused)


def down(meant: Installation) -> None:
    """End every service, and every process that came from one."""
    folders = [meant.var / "run"]
    if meant.data is None:
        folders += sorted(meant.var.glob("data/*/run"))
    ended = sum(Processes(folder).stop() for folder in folders)
    print(f"{ended} processes ended; nothing is running" if ended else "nothing was running")


def _commands(var: Path, mlflow_port: int) -> dict[str, list[str]]:
    store = load_settings().model_copy(update={"var": var}).tracking
    artifacts = (var / "mlflow" / "artifacts").as_uri()
    served = ["--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1"]
    return {
        "mlflow": ["mlflow", "server", "--backend-store-uri", store, "--default-artifact-root", artifacts, "--no-serve-artifacts", *served],
        "api-server": ["airflow", "api-server"],
        "scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
        "dag-processor": ["airflow", "dag-processor"],
    }


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            variable = "AIRFLOW_PORT" if name == "api-server" else "MLFLOW_PORT"
            raise StartError(f"port {port} of {name} is taken by another program; choose one: make up {variable}={port + 1}") from error


def _wait_until(what: str, answers: Callable[[], bool], processes: Processes, names: list[str]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not answers():
        for name in names:
            if not processes.is_running(name):
                raise StartError(f"{name} ended; the last of {processes.log(name)}:\n{_tail(processes.log(name))}")
        if time.monotonic() > deadline:
            raise StartError(f"{what} did not answer within {_START_LIMIT_S} s; see {processes.log(names[0]).parent}/*.log, then make down")
        time.sleep(0.5)


def _mlflow_answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _airflow_answers(port: int) -> bool:
    try:
        health = httpx.get(f"http://127.0.0.1:{port}/api/v2/monitor/health", trust_env=False).json()
    except (httpx.HTTPError, json.JSONDecodeError):
        return False
    return all(health.get(part, {}).get("status") == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _unpause(var: Path, port: int, processes: Processes, names: list[str]) -> list[str]:
    """Unpause each DAG when it is first seen; a DAG that somebody paused stays so. The daily ones that are paused.

    A DAG that runs by the clock is left to the user: without daily raw logs it would only fail every day.
    """
    seen_file = var / "run" / "seen_dags"
    seen = set(seen_file.read_text().split()) if seen_file.exists() else set()
    with _client(var, port) as client:
        _wait_until("the dag-processor", lambda: _all_parsed(client), processes, names)
        for error in client.get("/importErrors").json()["import_errors"]:
            print(f"{error['filename']} cannot be imported:\n{error['stack_trace']}", file=sys.stderr)
        dags = client.get("/dags", params={"limit": 100}).json()["dags"]
        clocked = {dag["dag_id"] for dag in dags if dag["next_dagrun_run_after"]}
        for dag in dags:
            if dag["is_paused"] and dag["dag_id"] not in seen | clocked:
                client.patch(f"/dags/{dag['dag_id']}", json={"is_paused": False}).raise_for_status()
    seen_file.write_text("\n".join(sorted(seen | {dag["dag_id"] for dag in dags})))
    return sorted(dag["dag_id"] for dag in dags if dag["is_paused"] and dag["dag_id"] in clocked)


def _client(var: Path, port: int) -> httpx.Client:
    base = f"http://127.0.0.1:{port}"
    login = httpx.post(f"{base}/auth/token", json={"username": ADMIN, "password": password(var)}, trust_env=False)
    login.raise_for_status()
    token = login.json()["access_token"]
    return httpx.Client(base_url=f"{base}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)


def _all_parsed(client: httpx.Client) -> bool:
    parsed = {Path(dag["fileloc"]).name for dag in client.get("/dags", params={"limit": 100}).json()["dags"]}
    broken = {Path(error["filename"]).name for error in client.get("/importErrors").json()["import_errors"]}
    return {file.name for file in (HOME / "dags").glob("*.py")} <= parsed | broken


def _greet(meant: Installation, airflow_port: int, mlflow_port: int, left_paused: list[str]) -> None:
    print(f"Airflow  http://127.0.0.1:{airflow_port}")
    print(f"MLflow   http://127.0.0.1:{mlflow_port}")
    greeted = meant.var / "run" / "greeted"
    secret = f"in {password_file(meant.var)}" if greeted.exists() else password(meant.var)
    print(f"Login    {ADMIN}, password {secret}")
    greeted.touch()
    if left_paused:
        print(f"Paused   {', '.join(left_paused)}: they run daily. Unpause them when raw logs arrive daily.")
    print(f"Stop     make down{meant.argument}")


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL:].decode(errors="replace") if log.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
