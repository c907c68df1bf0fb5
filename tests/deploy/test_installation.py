"""A data folder gets an installation of its own, with the views it has."""

from pathlib import Path

import pytest

from deploy.local.installation import installation, sole_user
from mfn_core.errors import ConfigError


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MFN_VAR", str(tmp_path / "var"))
    return tmp_path / "var"


def data_folder(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def test_without_data_it_is_that_of_the_settings(var: Path) -> None:
    meant = installation(None)

    assert (meant.var, meant.views, meant.variables, meant.argument) == (var, ("macro", "micro"), {}, "")


@pytest.mark.parametrize("file", ["item_logs.parquet", "item_logs/part-0.parquet", "item_logs/dt=2026-06-01/part-0.parquet"])
def test_only_the_views_that_the_folder_has(var: Path, tmp_path: Path, file: str) -> None:
    data = data_folder(tmp_path / "movies", file, "users.parquet")

    meant = installation(data)

    assert meant.variables == {"MFN_RAW_URI": str(data), "MFN_VIEWS": '["micro"]'}


def test_folders_of_one_name_do_not_share_curated_logs(var: Path, tmp_path: Path) -> None:
    one = data_folder(tmp_path / "a" / "logs", "app_logs.parquet")
    other = data_folder(tmp_path / "b" / "logs", "app_logs.parquet")

    assert installation(one).var != installation(other).var
    assert {installation(data).var.parent for data in (one, other)} == {var / "data"}


def test_a_folder_without_logs_is_refused_with_what_was_expected(var: Path, tmp_path: Path) -> None:
    data = data_folder(tmp_path / "movies", "ratings.parquet")

    with pytest.raises(ConfigError, match=r"movies holds no log; expected app_logs/dt=YYYY-MM-DD/\*\.parquet.*item_logs\.parquet"):
        installation(data)


@pytest.mark.parametrize("name", ["MFN_STORE_URI", "MFN_TRACKING_URI"])
def test_a_place_that_other_data_would_share_is_refused(var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = data_folder(tmp_path / "movies", "item_logs.parquet")
    monkeypatch.setenv(name, "s3://team/mfn")

    with pytest.raises(ConfigError, match=rf"movies has a store and a registry of its own, but {name}=s3://team/mfn would be shared"):
        installation(data)


def test_a_folder_that_does_not_exist_is_refused(var: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATA=.*nowhere is not a folder"):
        installation(tmp_path / "nowhere")


def test_a_second_demo_of_an_installation_is_refused(var: Path) -> None:
    with sole_user(installation(None)), pytest.raises(ConfigError, match=r"a demo is running in .*var"), sole_user(installation(None)):
        pass
