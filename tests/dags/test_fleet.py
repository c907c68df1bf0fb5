"""What every DAG file owes to whoever is on call, and to the dag-processor that imports it again and again."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.local.environment import composed
from tasks import dag_configs

FILES = sorted((Path(__file__).parents[2] / "dags").glob("*.py"))
CONFIGS = {
    "mfn_simulate": dag_configs.SimulateConfig,
    "mfn_ingest_app_logs": dag_configs.IngestConfig,
    "mfn_ingest_item_logs": dag_configs.IngestConfig,
    "mfn_ingest_users": dag_configs.IngestUsersConfig,
    "mfn_validate": dag_configs.ValidateConfig,
    "mfn_train": dag_configs.TrainConfig,
    "mfn_compare": dag_configs.CompareConfig,
    "mfn_promote": dag_configs.PromoteConfig,
    "mfn_score": dag_configs.ScoreConfig,
}
LIGHT = {"datetime", "airflow.sdk", "mfn_core.schema", "tasks.airflow_adapter", "tasks.dag_configs", "tasks.settings"}


def described(var: Path, **variables: str) -> dict[str, Any]:
    # Airflow logs to standard output before it is configured: the JSON is the last line.
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("describe.py")), str(FILES[0].parent)],
        env={**composed(var), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return described(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(params=sorted(CONFIGS))
def dag_id(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_file_parses_without_error_or_warning(fleet: dict[str, Any]) -> None:
    assert (fleet["import_errors"], fleet["warnings"]) == ({}, [])


def test_the_fleet_is_what_the_documents_promise(fleet: dict[str, Any]) -> None:
    assert sorted(fleet["dags"]) == sorted(CONFIGS)


def test_parsing_the_whole_folder_imports_nothing_heavy(fleet: dict[str, Any]) -> None:
    assert fleet["heavy"] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_fits_a_screen_and_a_half(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 80


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_only_light_modules_outside_its_tasks(file: Path) -> None:
    imported = {
        name
        for node in ast.parse(file.read_text()).body
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in getattr(node, "names", [])])
    }
    assert imported <= LIGHT


def test_a_dag_has_a_page_with_triage_notes_and_tags(fleet: dict[str, Any], dag_id: str) -> None:
    dag = fleet["dags"][dag_id]
    assert "\n### Triage\n" in dag["doc"]
    assert "mfn" in dag["tags"]


def test_no_dag_catches_up(fleet: dict[str, Any], dag_id: str) -> None:
    assert fleet["dags"][dag_id]["catchup"] is False


def test_a_dag_does_not_run_beside_itself_unless_its_runs_wait_for_late_partitions(fleet: dict[str, Any]) -> None:
    assert {dag_id for dag_id, dag in fleet["dags"].items() if dag["max_active_runs"] > 1} == {
        "mfn_ingest_app_logs",
        "mfn_ingest_item_logs",
    }


def test_every_task_has_an_owner_a_timeout_and_retries_that_tell_permanent_from_transient(fleet: dict[str, Any], dag_id: str) -> None:
    for name, task in fleet["dags"][dag_id]["tasks"].items():
        assert task["owner"] == "mfn", name
        assert 60 <= task["timeout"] <= 12 * 3600, name
        assert task["retries"] >= 1, name
        assert task["retry_delay"] >= 60, name
        assert task["tells_permanent_from_transient"], name


def test_only_what_resumes_from_a_checkpoint_is_retried_when_it_timed_out(fleet: dict[str, Any]) -> None:
    retried = {(dag_id, name) for dag_id, dag in fleet["dags"].items() for name, task in dag["tasks"].items() if task["retries_a_timeout"]}
    assert retried == {("mfn_train", "train"), ("mfn_compare", "measure")}


def test_only_what_trains_takes_the_gpu(fleet: dict[str, Any]) -> None:
    pools = {(dag_id, name): task["pool"] for dag_id, dag in fleet["dags"].items() for name, task in dag["tasks"].items()}
    assert {task for task, pool in pools.items() if pool == "gpu"} == {("mfn_train", "train"), ("mfn_compare", "measure")}
    assert set(pools.values()) == {"gpu", "default_pool"}


def test_the_form_has_the_fields_and_defaults_of_the_config(fleet: dict[str, Any], dag_id: str) -> None:
    assert fleet["dags"][dag_id]["params"] == CONFIGS[dag_id]().model_dump(mode="json")


def test_the_tasks_of_training_are_those_of_the_documents(fleet: dict[str, Any]) -> None:
    assert list(fleet["dags"]["mfn_train"]["tasks"]) == ["plan", "build_dataset", "train", "evaluate", "gate", "register", "announce"]


def test_validation_waits_for_the_days_it_takes_along_but_a_bad_one_leaves_the_run_red_and_no_day_unannounced(
    fleet: dict[str, Any],
) -> None:
    tasks = fleet["dags"]["mfn_validate"]["tasks"]
    assert {name: (task["after"], task["trigger_rule"]) for name, task in tasks.items()} == {
        "plan": ([], "all_success"),
        "validate_others": (["plan"], "all_success"),
        "validate": (["plan", "validate_others"], "all_done_min_one_success"),
        "announce": (["plan", "validate"], "all_done_min_one_success"),
        "settle": (["validate", "validate_others"], "all_success"),
    }


@pytest.mark.parametrize(
    ("task", "asset"),
    [
        ("mfn_ingest_app_logs.announce", "mfn_app_logs"),
        ("mfn_ingest_item_logs.announce", "mfn_item_logs"),
        ("mfn_ingest_users.ingest", "mfn_users"),
        ("mfn_validate.announce", "mfn_validated_day"),
        ("mfn_train.announce", "mfn_candidate"),
        ("mfn_promote.promote", "mfn_champion"),
        ("mfn_score.score", "mfn_scores"),
    ],
)
def test_a_dag_announces_what_it_publishes(fleet: dict[str, Any], task: str, asset: str) -> None:
    dag_id, task_id = task.split(".")
    assert fleet["dags"][dag_id]["tasks"][task_id]["outlets"] == [asset]


@pytest.mark.parametrize("ingest", ["mfn_ingest_app_logs", "mfn_ingest_item_logs"])
def test_an_ingest_announces_though_a_day_failed_and_fails_nevertheless(fleet: dict[str, Any], ingest: str) -> None:
    tasks = fleet["dags"][ingest]["tasks"]
    assert (tasks["announce"]["after"], tasks["announce"]["trigger_rule"]) == (["ingest", "plan"], "all_done_min_one_success")
    assert (tasks["finish"]["after"], tasks["finish"]["trigger_rule"]) == (["announce", "ingest"], "all_success")


def test_a_deployment_with_one_view_has_the_dags_of_that_view(tmp_path: Path) -> None:
    fleet = described(tmp_path, MFN_VIEWS='["micro"]')
    assert fleet["import_errors"] == {}
    assert sorted(fleet["dags"]) == sorted(CONFIGS.keys() - {"mfn_ingest_app_logs"})
