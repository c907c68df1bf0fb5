"""The environment variables under which Airflow, MLflow and the tasks of one installation run.

An installation is a ``var`` folder: databases, secrets, logs, artifacts. The demo, the services and the tests that start
Airflow share these functions, so that they cannot drift apart.
"""

import json
import os
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from mfn_core.errors import MFNError

HOME = Path(__file__).resolve().parent.parent.parent
AIRFLOW_PORT = 8080
MLFLOW_PORT = 5000
ADMIN = "admin"

# Nothing leaves this machine: without these, MLflow and Great Expectations report their use to their makers.
_SILENCED = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "GX_ANALYTICS_ENABLED": "false"}


class BootstrapError(MFNError):
    """Airflow's own command line refused to prepare the installation."""


def bootstrapped(var: Path, airflow_port: int = AIRFLOW_PORT, mlflow_port: int = MLFLOW_PORT) -> dict[str, str]:
    """Prepare an installation where that is still to do: folders, secrets, login, metadata database, the pool ``gpu``.

    Returns:
        The environment for every process of the installation.

    Raises:
        BootstrapError: the metadata database could not be made.
    """
    environment = composed(var, airflow_port, mlflow_port)
    _migrate(var.resolve() / "airflow", environment)
    return environment


def composed(var: Path, airflow_port: int = AIRFLOW_PORT, mlflow_port: int = MLFLOW_PORT) -> dict[str, str]:
    """The environment of an installation; its folders, secrets and login are made where they are missing."""
    var = var.resolve()
    airflow_home = var / "airflow"
    airflow_home.mkdir(parents=True, exist_ok=True)
    (var / "mlflow" / "artifacts").mkdir(parents=True, exist_ok=True)
    _once(var / "secrets.env", _new_secrets)
    _once(password_file(var), lambda: json.dumps({ADMIN: secrets.token_urlsafe(12)}) + "\n")
    return {
        **os.environ,
        **_SILENCED,
        **_read_secrets(var / "secrets.env"),
        "MFN_HOME": str(HOME),
        "MFN_VAR": str(var),
        "MFN_AIRFLOW_URL": f"http://127.0.0.1:{airflow_port}",
        "MFN_MLFLOW_URL": f"http://127.0.0.1:{mlflow_port}",
        "AIRFLOW_CONFIG": str(HOME / "airflow.cfg"),
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__API__PORT": str(airflow_port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{airflow_port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{airflow_port}/execution/",
        "PYTHONPATH": os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]),
        # A task calls the api-server over loopback, whatever proxy the machine has for the rest.
        **{name: ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"])) for name in ("NO_PROXY", "no_proxy")},
        "MPLBACKEND": "Agg",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a task log is no terminal
        # Seven idle processes, 1 GB, for MLflow features that this project does not use.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def password_file(var: Path) -> Path:
    """The file that holds the password of the one login, ``admin``."""
    return var.resolve() / "airflow" / "passwords.json"


def password(var: Path) -> str:
    """The password of the login ``admin``."""
    return json.loads(password_file(var).read_text())[ADMIN]


def _migrate(airflow_home: Path, environment: dict[str, str]) -> None:
    marker = airflow_home / "migrated"
    installed = version("apache-airflow")
    if marker.exists() and marker.read_text() == installed:
        return
    _airflow(environment, "db", "migrate")
    _airflow(environment, "pools", "set", "gpu", "1", "One training at a time")
    marker.write_text(installed)


def _airflow(environment: dict[str, str], *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise BootstrapError(f"'airflow {' '.join(arguments)}' ended with {finished.returncode}:\n{finished.stdout[-4000:]}")


def _new_secrets() -> str:
    return (
        f"AIRFLOW__API_AUTH__JWT_SECRET={secrets.token_hex(64)}\n"
        f"AIRFLOW__CORE__FERNET_KEY={urlsafe_b64encode(secrets.token_bytes(32)).decode()}\n"
        f"AIRFLOW__API__SECRET_KEY={secrets.token_hex(32)}\n"
    )


def _read_secrets(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if line)


def _once(file: Path, content: Callable[[], str]) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as opened:
        opened.write(content())
