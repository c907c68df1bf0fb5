"""Settings come from MFN_ variables; a misspelt one is an error."""

import json
import re
from datetime import date
from pathlib import Path

import pytest

from mfn_core.errors import ConfigError
from tasks.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MFN_HOME", "MFN_VAR", "MFN_RAW_URI", "MFN_STORE_URI", "MFN_TRACKING_URI", "MFN_VIEWS"):
        monkeypatch.delenv(name, raising=False)


def test_every_place_defaults_to_a_folder_under_var(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MFN_VAR", str(tmp_path))

    settings = load_settings()

    assert settings.raw == f"{tmp_path}/raw"
    assert settings.store == f"{tmp_path}/store"
    assert settings.tracking == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_a_variable_replaces_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFN_RAW_URI", "s3://logs/raw")
    monkeypatch.setenv("MFN_VIEWS", '["micro"]')

    settings = load_settings()

    assert settings.raw == "s3://logs/raw"
    assert settings.views == ("micro",)


def test_a_misspelt_variable_is_named_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFN_RAW_URL", "s3://logs/raw")

    with pytest.raises(
        ConfigError, match=r"unknown environment variable 'MFN_RAW_URL', did you mean 'MFN_RAW_URI'\? Known are .*MFN_VIEWS"
    ):
        load_settings()


def test_a_value_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFN_MAX_REJECTED_SHARE", "1.5")

    with pytest.raises(ConfigError, match=r"^MFN_MAX_REJECTED_SHARE='1.5': Input should be less than or equal to 1\. Set another value"):
        load_settings()


def test_a_list_that_is_no_json_is_told_how_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFN_VIEWS", "micro")

    with pytest.raises(ConfigError, match=r"^MFN_VIEWS='micro': Expecting value.* it is JSON, a list as \[\"micro\"\]"):
        load_settings()


def test_the_readme_has_the_defaults_of_the_code() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = re.findall(r"^\| (`MFN_.*`) \| (.*) \| .* \|$", readme, re.MULTILINE)
    told = {name.lower(): default for names, default in rows for name in re.findall(r"MFN_(\w+)", names)}
    assert len(told) > 10
    for name, default in told.items():
        field = Settings.model_fields[name]
        if field.default == "":  # the description says what stands for it
            assert f"Empty: {default.replace('`', '')}." in str(field.description)
        else:
            value = field.default
            assert default == f"`{value if isinstance(value, str | date) else json.dumps(value)}`"
