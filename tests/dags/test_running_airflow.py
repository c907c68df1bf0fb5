"""Real Airflow, end to end: a person's clicks through the REST API first, then a week that runs by itself.

One Airflow for all; the tests follow a life: world, first week by hand, model, second week by schedule, accidents.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mfn_core.schema import APP_LOGS, ITEM_LOGS
from tasks import curated, manifest, storage
from tasks.tracking.registry import require_version
from tasks.tracking.runs import run_tags
from tests.dags.running import FINISHED, Airflow, running, until

pytestmark = [pytest.mark.slow_start, pytest.mark.timeout(1200), pytest.mark.xdist_group("airflow")]

WORLD = {"num_users": 150, "num_days": 14, "last_day": "2026-06-28", "num_apps": 30, "num_items": 60, "events_per_user": 20}
# Limits for a machine that has other work to do; on two idle cores the whole file takes less than five minutes.
SOON, LATER = 120, 600
FIRST_WEEK = {"first_day": "2026-06-15", "last_day": "2026-06-21"}
SECOND_WEEK = [f"2026-06-{day}" for day in range(22, 29)]  # Monday to Sunday
TINY = {"width": 16, "max_epochs": 2, "bootstrap_samples": 100, "horizon_days": 3, "min_users": 50}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with running(tmp_path_factory.mktemp("installation"), Path(__file__).with_name("bundle")) as started:
        yield started


@pytest.fixture(scope="module")
def world(airflow: Airflow) -> dict[str, Any]:
    """Raw logs of two weeks, none of them ingested."""
    airflow.unpause("mfn_simulate", "mfn_ingest_app_logs", "mfn_ingest_item_logs", "mfn_ingest_users")
    return airflow.xcom("mfn_simulate", airflow.succeed("mfn_simulate", WORLD, SOON), "simulate")


@pytest.fixture(scope="module")
def validated(airflow: Airflow, world: dict[str, Any]) -> str:
    """The first week ingested and validated by hand, while nobody listens to its assets; the run that validated it."""
    runs = {dag_id: airflow.trigger(dag_id, FIRST_WEEK) for dag_id in ("mfn_ingest_app_logs", "mfn_ingest_item_logs")}
    runs["mfn_ingest_users"] = airflow.trigger("mfn_ingest_users")
    for dag_id, run_id in runs.items():
        assert airflow.finish(dag_id, run_id, SOON) == "success", airflow.failure(dag_id, run_id)
    airflow.unpause("mfn_validate")
    return airflow.succeed("mfn_validate", {}, SOON)


@pytest.fixture(scope="module")
def trained(airflow: Airflow, validated: str) -> str:
    """A tiny model of the first week, trained by hand; the run that registered it."""
    airflow.unpause("mfn_train", "mfn_promote", "mfn_score")
    return airflow.succeed("mfn_train", TINY, LATER)


@pytest.fixture(scope="module")
def scored(airflow: Airflow, trained: str) -> dict[str, Any]:
    """The scoring run that followed the training by itself."""
    until(lambda: any(run["state"] in FINISHED for run in airflow.runs("mfn_score")), SOON, "run of mfn_score", airflow.say)
    return airflow.runs("mfn_score")[0]


@pytest.fixture(scope="module")
def scheduled_training(airflow: Airflow, scored: dict[str, Any]) -> dict[str, Any]:
    """Both producers publish the partitions of the second week, as a backfill of theirs does. The run of mfn_train that follows.

    Returned while its training process lives; the state of the processes is the last test's own business.
    """
    airflow.pause("mfn_score")  # seen to follow a champion already: it would only take the time of the rest
    for dag_id in ("mfn_ingest_app_logs", "mfn_ingest_item_logs"):
        airflow.backfill(dag_id, SECOND_WEEK[0], SECOND_WEEK[-1])
    until(lambda: bool(airflow.training_processes()), LATER, "training by schedule", airflow.say)
    return next(run for run in airflow.runs("mfn_train") if run["run_type"] != "manual")


@pytest.fixture(scope="module")
def marked_failed(airflow: Airflow, scheduled_training: dict[str, Any]) -> dict[str, Any]:
    """The scheduled training, after a person has marked its task as failed."""
    airflow.mark_failed("mfn_train", scheduled_training["dag_run_id"], "train")
    assert airflow.finish("mfn_train", scheduled_training["dag_run_id"], SOON) == "failed"
    return scheduled_training


def test_the_pools_that_the_dags_use_are_there(airflow: Airflow) -> None:
    pools = {pool["name"]: pool["slots"] for pool in airflow.client.get("/pools").json()["pools"]}
    assert pools.keys() >= {"default_pool", "gpu"}
    assert pools["gpu"] == 1


def test_a_value_out_of_range_is_refused_before_there_is_a_run(airflow: Airflow) -> None:
    refused = airflow.post_run("mfn_train", {"width": 4})
    assert refused.status_code == 400
    assert "4 is less than the minimum of 8" in refused.text


def test_a_misspelt_param_fails_the_run_at_once_and_says_what_was_meant(airflow: Airflow, world: dict[str, Any]) -> None:
    run_id = airflow.trigger("mfn_simulate", {"num_user": 150})
    assert airflow.finish("mfn_simulate", run_id, SOON) == "failed"
    (task,) = airflow.tasks("mfn_simulate", run_id)
    assert task["try_number"] == 1
    assert "unknown setting 'num_user', did you mean 'num_users'?" in airflow.log("mfn_simulate", run_id, "simulate")


def test_a_range_is_ingested_by_hand(airflow: Airflow, validated: str) -> None:
    for log in (APP_LOGS, ITEM_LOGS):
        assert str(curated.days(airflow.settings, log)[0]) == FIRST_WEEK["first_day"]


def test_training_by_hand_registers_a_version_that_is_linked_with_its_run_both_ways(airflow: Airflow, trained: str) -> None:
    registered = airflow.xcom("mfn_train", trained, "register")
    version = require_version(airflow.settings, registered["version"])
    assert version.run_id == registered["run_id"]
    assert registered["run_url"].endswith(f"/runs/{version.run_id}")
    tags = run_tags(airflow.settings, version.run_id)
    assert (tags["airflow.dag_id"], tags["airflow.run_id"]) == ("mfn_train", trained)
    assert (
        airflow.client.get(tags["airflow.url"].replace("/dags/", "/api/v2/dags/").replace("/runs/", "/dagRuns/")).json()["dag_run_id"]
        == trained
    )


def test_each_downstream_task_was_evaluated_or_left_out_with_a_reason(airflow: Airflow, trained: str) -> None:
    states = airflow.states("mfn_train", trained)
    assert [states[f"evaluate[{index}]"] for index in range(3)] == ["success"] * 3


def test_progress_of_every_epoch_stands_in_the_log_of_the_task(airflow: Airflow, trained: str) -> None:
    log = airflow.log("mfn_train", trained, "train")
    assert "epoch 1" in log
    assert "epoch 2" in log


def test_xcom_holds_manifests_and_no_frames(airflow: Airflow, trained: str) -> None:
    dataset = airflow.xcom("mfn_train", trained, "build_dataset")
    assert manifest.read(dataset["uri"]).digest == dataset["digest"]


def test_a_new_candidate_is_promoted_and_scored_by_itself(airflow: Airflow, trained: str, scored: dict[str, Any]) -> None:
    version = airflow.xcom("mfn_train", trained, "register")["version"]
    (promotion,) = airflow.runs("mfn_promote")
    assert (promotion["run_type"], promotion["partition_key"], promotion["state"]) == ("asset_triggered", f"v{version}", "success")
    assert (scored["run_type"], scored["partition_key"], scored["state"]) == ("asset_triggered", f"v{version}", "success")
    scores = airflow.xcom("mfn_score", scored["dag_run_id"], "score")
    assert manifest.read(scores["uri"]).facts["version"] == version


def test_training_again_on_unchanged_data_is_skipped_and_names_the_version(airflow: Airflow, trained: str) -> None:
    again = airflow.succeed("mfn_train", TINY, SOON)
    assert set(airflow.states("mfn_train", again).values()) == {"skipped"}
    assert airflow.xcom("mfn_train", again, "plan", "skipped").startswith("already trained as version 1")


def test_ingesting_again_on_unchanged_files_is_skipped_and_says_so(airflow: Airflow, validated: str) -> None:
    again = airflow.succeed("mfn_ingest_app_logs", FIRST_WEEK, SOON)
    assert set(airflow.states("mfn_ingest_app_logs", again).values()) == {"skipped"}
    assert "unchanged" in airflow.xcom("mfn_ingest_app_logs", again, "plan", "skipped")


def test_training_that_is_marked_failed_leaves_no_process_behind(airflow: Airflow, marked_failed: dict[str, Any]) -> None:
    until(lambda: not airflow.training_processes(), 20, "end of the training process", airflow.say)
    fingerprint = airflow.xcom("mfn_train", marked_failed["dag_run_id"], "plan")["fingerprint"]
    left = storage.list_names(storage.join(airflow.settings.store, "training", fingerprint[:16]))
    assert "job.json" in left
    assert "result.json" not in left  # it was ended; it did not come to its end


def test_each_day_of_the_second_week_is_validated_once_when_both_its_logs_are_published(
    airflow: Airflow, marked_failed: dict[str, Any]
) -> None:
    runs = [run for run in airflow.runs("mfn_validate") if run["run_type"] != "manual"]
    assert Counter(run["partition_key"] for run in runs) == dict.fromkeys(SECOND_WEEK, 1)
    assert {(run["run_type"], run["state"]) for run in runs} == {("asset_triggered", "success")}
    for day in SECOND_WEEK:
        validated = manifest.read(storage.join(airflow.settings.store, "validated", f"dt={day}")).inputs
        published = {log.dataset: curated.partition(airflow.settings, log, date.fromisoformat(day)).digest for log in (APP_LOGS, ITEM_LOGS)}
        assert validated == published


def test_training_fires_once_for_the_whole_week_and_reads_all_of_it(airflow: Airflow, marked_failed: dict[str, Any]) -> None:
    (run,) = [run for run in airflow.runs("mfn_train") if run["run_type"] != "manual"]
    assert run["run_type"] == "asset_triggered"
    assert run["partition_key"].startswith(SECOND_WEEK[0])
    planned = airflow.xcom("mfn_train", run["dag_run_id"], "plan")
    assert planned["days"] == [FIRST_WEEK["first_day"], SECOND_WEEK[-1]]
    assert planned["partitions"] == {"macro": 14, "micro": 14}


def test_training_that_times_out_leaves_no_process_behind(airflow: Airflow, trained: str) -> None:
    airflow.unpause("impatient_training")
    run_id = airflow.trigger("impatient_training", airflow.xcom("mfn_train", trained, "build_dataset"))
    until(lambda: bool(airflow.training_processes()), SOON, "training process", lambda: airflow.failure("impatient_training", run_id))
    assert airflow.finish("impatient_training", run_id, SOON) == "failed"
    until(lambda: not airflow.training_processes(), 20, "end of the training process", airflow.say)
