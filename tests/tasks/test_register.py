"""Registration: evidence on the version, nothing doubled, and a model that a stranger's process serves."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mfn_core.errors import ArtifactError
from mfn_core.inference.predictor import Predictor
from mfn_core.inference.serving import answer, example_request
from tasks import manifest, storage
from tasks import register as module
from tasks.evaluate import evaluate
from tasks.manifest import Manifest
from tasks.register import register
from tasks.tracking.models import load_model
from tasks.tracking.registry import (
    CANDIDATE,
    CHAMPION,
    DATA_END,
    GATE_REASON,
    PROMOTED_AT,
    delete_alias,
    register_version,
    require_version,
    set_alias,
    tag_version,
    versions,
)
from tasks.tracking.runs import require_run
from tests.tasks.registry import AIRFLOW, CONFIG, store_inputs, store_training

PASSED = {"passed": True, "reason": "there is no champion yet", "champion": None, "comparisons": [], "caveats": []}
FAILED = PASSED | {"passed": False, "reason": "worse than champion version 1"}
SECONDS_TO_START = 200


@pytest.fixture
def inputs(registry):
    dataset = store_inputs(registry)
    return dataset, store_training(registry, dataset)


@pytest.fixture
def evaluations(registry, inputs):
    return [evaluate(registry, CONFIG, *inputs, task) for task in ("activity", "attribute", "recommendation")]


@pytest.fixture
def client(registry):
    from mlflow import MlflowClient

    return MlflowClient(registry.tracking)


def gate_of(settings, run_id):
    require_run(settings, "f" * 64)  # points MLflow at the registry
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/gate.json")


def model_of(client, run_id):
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    return model.model_id


def test_a_version_that_passed_the_gate_is_candidate(registry, inputs):
    registered = register(registry, CONFIG, *inputs, [], PASSED)
    assert (registered["name"], registered["version"], registered["aliases"]) == ("mfn", 1, ["candidate"])


def test_a_version_that_failed_the_gate_is_registered_without_alias(registry, inputs):
    registered = register(registry, CONFIG, *inputs, [], FAILED)
    assert (registered["version"], registered["aliases"], registered["gate"]) == (1, [], "failed")


def test_a_second_run_doubles_neither_run_nor_model_nor_version(registry, inputs, client):
    first = register(registry, CONFIG, *inputs, [], PASSED)
    assert register(registry, CONFIG, *inputs, [], PASSED) == first
    experiment = client.get_run(first["run_id"]).info.experiment_id
    counts = [len(found) for found in (client.search_runs([experiment]), client.search_logged_models([experiment]), versions(registry))]
    assert counts == [1, 1, 1]


def test_a_run_again_after_promotion_makes_no_new_candidate_and_says_so(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    tag_version(registry, 1, {PROMOTED_AT: "2026-06-01T00:00:00+00:00"})
    delete_alias(registry, CANDIDATE)
    registered = register(registry, CONFIG, *inputs, [], PASSED)
    assert registered["aliases"] == []
    assert registered["skip"] == (
        "version 1 is no candidate: it was promoted before, at 2026-06-01T00:00:00+00:00; to make it champion again trigger mfn_promote "
        "with version=1"
    )


def test_of_the_champion_itself_a_run_again_says_that_it_is(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    tag_version(registry, 1, {PROMOTED_AT: "2026-06-01T00:00:00+00:00"})
    set_alias(registry, CHAMPION, 1)
    assert register(registry, CONFIG, *inputs, [], PASSED)["skip"] == "version 1 is no candidate: it is the champion"


@pytest.mark.parametrize(
    ("end", "newer"),
    [
        ("2026-06-15", "version 2 (data before 2026-06-15)"),  # ours end on 2026-06-08
        ("2026-06-08", "version 2 (data before 2026-06-08)"),  # the same data, and a higher number
        (None, "version 2"),  # registered before there was the tag: a higher number
        ("2026-06-01", None),
    ],
)
def test_an_old_training_that_is_cleared_takes_the_alias_from_no_newer_version(registry, inputs, client, end, newer):
    run_id = register(registry, CONFIG, *inputs, [], PASSED)["run_id"]
    holder = register_version(registry, run_id, model_of(client, run_id), {DATA_END: end} if end else {})
    set_alias(registry, CANDIDATE, holder.number)
    registered = register(registry, CONFIG, *inputs, [], PASSED)
    why = f"version 1 (data before 2026-06-08) is no candidate: {newer} is, and newer; where the older one is meant, trigger mfn_promote "
    assert (registered["aliases"], registered["skip"]) == (([], why + "with version=1") if newer else (["candidate"], None))


def test_a_training_of_older_data_takes_the_alias_from_no_version_of_later_data(registry, inputs, client):
    """Whatever their numbers: ``last_day`` of a training by hand may be long ago."""
    register(registry, CONFIG, *inputs, [], PASSED)
    tag_version(registry, 1, {DATA_END: "2026-06-15"})
    dataset = inputs[0]
    assert register(registry, CONFIG, dataset, store_training(registry, dataset, "e"), [], PASSED)["aliases"] == []
    assert require_version(registry, CANDIDATE).number == 1


def test_a_new_training_takes_the_alias(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    dataset = inputs[0]
    registered = register(registry, CONFIG, dataset, store_training(registry, dataset, "e"), [], PASSED)
    assert (registered["version"], registered["aliases"], registered["skip"]) == (2, ["candidate"], None)


def test_what_failed_the_gate_says_so_where_its_announcement_is_skipped(registry, inputs):
    why = "version 1 is no candidate: the gate failed: worse than champion version 1"
    assert register(registry, CONFIG, *inputs, [], FAILED)["skip"] == why


def test_a_version_that_fails_when_it_is_judged_again_is_no_candidate_any_more(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    registered = register(registry, CONFIG, *inputs, [], FAILED)
    assert (registered["version"], registered["aliases"], registered["gate"]) == (1, [], "failed")
    assert require_version(registry, 1).tags[GATE_REASON] == "worse than champion version 1"


def test_a_version_names_the_champion_that_it_was_judged_against_last_and_the_caveats(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    tags = require_version(registry, 1).tags
    assert (tags["mfn.gate.champion"], tags["mfn.gate.caveats"]) == ("None", "none")
    register(registry, CONFIG, *inputs, [], PASSED | {"champion": 4, "caveats": ["older users", "later data"]})
    tags = require_version(registry, 1).tags
    assert (tags["mfn.gate.champion"], tags["mfn.gate.caveats"]) == ("4", "older users; later data")


def test_a_new_verdict_replaces_the_old_one_of_the_run(registry, inputs):
    run_id = register(registry, CONFIG, *inputs, [], PASSED)["run_id"]
    register(registry, CONFIG, *inputs, [], FAILED)
    assert gate_of(registry, run_id) == FAILED


def test_the_verdict_that_a_version_was_promoted_by_stays_with_the_run(registry, inputs):
    run_id = register(registry, CONFIG, *inputs, [], PASSED)["run_id"]
    tag_version(registry, 1, {PROMOTED_AT: "2026-06-01T00:00:00+00:00"})
    register(registry, CONFIG, *inputs, [], FAILED)
    assert gate_of(registry, run_id) == PASSED


@pytest.mark.parametrize("times", [1, 2], ids=["registered", "judged again"])
def test_the_comparisons_of_many_attributes_are_kept_whole(registry, inputs, times):
    many = PASSED | {"comparisons": [{"label": f"attribute {number}", "difference": 0.125} for number in range(300)]}
    for _ in range(times):
        register(registry, CONFIG, *inputs, [], many)
    assert json.loads(require_version(registry, 1).tags["mfn.gate.comparisons"]) == many["comparisons"]


def test_a_promoted_version_keeps_the_verdict_it_was_promoted_by(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    tag_version(registry, 1, {PROMOTED_AT: "2026-06-01T00:00:00+00:00"})
    register(registry, CONFIG, *inputs, [], FAILED)
    assert require_version(registry, 1).tags[GATE_REASON] == "there is no champion yet"


def test_a_version_carries_its_evidence(registry, inputs, evaluations):
    register(registry, CONFIG, *inputs, evaluations, PASSED)
    tags = require_version(registry, 1).tags
    assert tags["mfn.fingerprint"] == "f" * 64
    assert tags["mfn.gate"] == "passed"
    assert tags["mfn.dataset.digest"] == manifest.digest_of(["a" * 64], {})  # its one partition and its settings
    assert tags["mfn.dataset.horizon_days"] == "7"
    assert tags["mfn.dataset.end"] == "2026-06-08"  # seven days after the cut
    assert json.loads(tags["mfn.leak_proof"]) == {"activity": {"max_input_time": 1, "min_label_time": 2}}
    assert json.loads(tags["mfn.metrics.attribute.colour"])["n"] == evaluations[1]["facts"]["n"]["colour"]
    assert tags["mfn.recommendation.mask_seen"] == "True"  # auto, and nobody returns to an item
    assert tags["airflow.url"] == AIRFLOW["airflow.url"]


def test_the_verdicts_on_the_partitions_are_kept_with_the_run(registry, client):
    dataset = store_inputs(registry)
    partition = storage.join(registry.store, "curated", "app_logs", "dt=2026-05-01")
    verdict = {"success": True, "warnings": ["users: 1, at least 2"]}
    manifest.write(Manifest(kind="curated", uri=partition, digest="a" * 64, facts={"verdict": verdict}))
    dataset["inputs"] = {partition: "a" * 64}
    run_id = register(registry, CONFIG, dataset, store_training(registry, dataset), [], PASSED)["run_id"]
    assert client.get_run(run_id).data.tags["mfn.expectations"] == "passed: 1 artifacts judged, 1 with warnings"
    assert "expectations/verdicts.json" in [file.path for file in client.list_artifacts(run_id, "expectations")]


def test_the_run_ends_and_names_its_version(registry, inputs, client):
    run = client.get_run(register(registry, CONFIG, *inputs, [], PASSED)["run_id"])
    assert (run.info.status, run.data.tags["mfn.model_version"]) == ("FINISHED", "1")


def test_the_logged_model_carries_the_figures_of_the_evaluation(registry, inputs, evaluations, client):
    run_id = register(registry, CONFIG, *inputs, evaluations, PASSED)["run_id"]
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert "test/activity/auc" in {metric.key for metric in model.metrics}


def test_a_model_that_answers_otherwise_than_the_predictor_is_not_registered(registry, inputs, monkeypatch):
    def altered(predictor, request, **asked):
        rows = answer(predictor, request, **asked)
        rows["embedding"] = [[value + 1 for value in row] for row in rows["embedding"]]
        return rows

    monkeypatch.setattr(module, "answer", altered)
    with pytest.raises(ArtifactError, match="answers embedding otherwise"):
        register(registry, CONFIG, *inputs, [], PASSED)
    assert versions(registry) == []


def test_a_bad_request_is_told_what_is_wrong(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    model = load_model(registry, "models:/mfn@candidate")
    with pytest.raises(MlflowException, match="as_of='yesterday' is no ISO-8601 time"):
        model.predict(example_request(), params={"as_of": "yesterday"})
    with pytest.raises(MlflowException, match="micro_ids of user 'u1' holds None"):
        model.predict(example_request().assign(micro_ids=[["item-7", None], []]))
    with pytest.raises(MlflowException, match="Expected data to be list or numpy array, got str"):
        model.predict(example_request().assign(micro_ids="item-7"))


def test_a_request_may_tell_times_in_seconds(registry, inputs):
    register(registry, CONFIG, *inputs, [], PASSED)
    model = load_model(registry, "models:/mfn@candidate")
    in_seconds = example_request().assign(micro_times=[[1772654475, 1772783159.0], []])
    first, second = (model.predict(request)["embedding"][0] for request in (example_request(), in_seconds))
    assert first == second


def test_the_model_is_served_without_the_repository_and_without_pickle(registry, inputs, tmp_path):
    register(registry, CONFIG, *inputs, [], PASSED)
    set_alias(registry, CHAMPION, 1)
    records = example_request().to_dict(orient="records")
    request = {"dataframe_records": records, "params": {"top_k": 3, "as_of": "2026-04-01"}}
    with Served(registry, tmp_path) as url:
        (first, second) = post(url, request)["predictions"]
    predictor = Predictor.load(storage.local_folder(inputs[1]["uri"], registry.scratch) / "bundle", "cpu")
    expected = answer(predictor, example_request(), top_k=3, as_of="2026-04-01").to_dict(orient="records")
    assert first["embedding"] == pytest.approx(expected[0]["embedding"], abs=1e-5)
    assert first["attribute_probabilities"]["colour"] == pytest.approx(expected[0]["attribute_probabilities"]["colour"], abs=1e-5)
    assert second["top_items"] == expected[1]["top_items"]
    assert (first["user_id"], first["model_version"], len(first["top_scores"])) == ("u1", "1", 3)


class Served:
    """``mlflow models serve`` of the champion, in a folder and an environment that know nothing of the repository."""

    def __init__(self, settings, folder):
        self.tracking, self.folder = settings.tracking, folder

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["models", "serve", "-m", "models:/mfn@champion", "--env-manager", "local", "--host", "127.0.0.1", "-p", str(port)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"MLFLOW_TRACKING_URI": self.tracking, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command], cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5)
                return url
            except OSError:
                time.sleep(0.3)
        self.__exit__()
        raise AssertionError((self.folder / "server.log").read_text()[-3000:])

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def post(url, request):
    body = json.dumps(request).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"}), timeout=60
    ) as reply:
        return json.load(reply)
