"""airflow.cfg holds only what differs from Airflow's defaults, each with its reason, and no secret."""

from configparser import RawConfigParser
from importlib.resources import files

import pytest
import yaml

from deploy.local.environment import HOME

TEXT = (HOME / "airflow.cfg").read_text()
CONFIG = RawConfigParser()
CONFIG.read_string(TEXT)
OPTIONS = [(section, name) for section in CONFIG.sections() for name in CONFIG.options(section)]
DESCRIBED = yaml.safe_load((files("airflow") / "config_templates" / "config.yml").read_text())


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_an_option_is_known_to_airflow(section: str, name: str) -> None:
    assert name in DESCRIBED[section]["options"]


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_an_option_differs_from_its_default(section: str, name: str) -> None:
    assert CONFIG.get(section, name) != DESCRIBED[section]["options"][name]["default"]


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_an_option_has_its_reason_above(section: str, name: str) -> None:
    lines = TEXT.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{name} ="))

    assert lines[at - 1].startswith("# ")


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_no_option_is_a_secret(section: str, name: str) -> None:
    assert not DESCRIBED[section]["options"][name].get("sensitive") or name == "sql_alchemy_conn"
    assert "@" not in CONFIG.get(section, name), "a password in a URL"


def test_the_ui_is_not_shown_to_the_network() -> None:
    assert CONFIG.get("api", "host") == "127.0.0.1"


def test_sqlite_waits_a_minute_for_another_writer() -> None:
    assert CONFIG.get("database", "sql_alchemy_conn") == "sqlite:///$AIRFLOW_HOME/airflow.db?timeout=60"
