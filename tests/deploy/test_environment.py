"""The environment of an installation: its secrets, its login, and silence towards the outside."""

import stat
from pathlib import Path

import pytest

from deploy.local import environment
from deploy.local.environment import composed, password
from tasks.settings import load_settings


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_secrets_and_login_are_files_that_only_their_owner_reads(tmp_path: Path) -> None:
    composed(tmp_path)

    assert mode(tmp_path / "secrets.env") == 0o600
    assert mode(environment.password_file(tmp_path)) == 0o600


def test_secrets_and_login_are_made_once(tmp_path: Path) -> None:
    first, login = composed(tmp_path), password(tmp_path)

    assert (composed(tmp_path), password(tmp_path)) == (first, login)


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    one, other = composed(tmp_path / "one"), composed(tmp_path / "other")

    names = ["AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY"]
    assert not [name for name in names if one[name] == other[name]]


def test_the_secret_that_signs_task_tokens_has_64_bytes_at_least(tmp_path: Path) -> None:
    assert len(bytes.fromhex(composed(tmp_path)["AIRFLOW__API_AUTH__JWT_SECRET"])) >= 64


def test_the_fernet_key_is_one(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    Fernet(composed(tmp_path)["AIRFLOW__CORE__FERNET_KEY"])


def test_every_setting_it_makes_is_known_to_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in composed(tmp_path, airflow_port=8099).items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert (settings.var, settings.airflow_url) == (tmp_path, "http://127.0.0.1:8099")


@pytest.mark.parametrize(
    ("name", "value"), [("DO_NOT_TRACK", "true"), ("MLFLOW_DISABLE_TELEMETRY", "true"), ("GX_ANALYTICS_ENABLED", "false")]
)
def test_no_framework_reports_its_use(tmp_path: Path, name: str, value: str) -> None:
    assert composed(tmp_path)[name] == value


def test_loopback_never_goes_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example")

    assert composed(tmp_path)["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
