"""The MLflow client: whatever is said twice is kept once, and what is gone is told from what cannot be reached."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mfn_core.errors import ArtifactError, ConfigError, TransientError
from mfn_core.inference.serving import example_request
from tasks.manifest import Manifest
from tasks.tracking.models import bundle_of, load_model
from tasks.tracking.registry import CHAMPION, require_version
from tasks.tracking.runs import close_run, log_dataset, log_metrics, open_run, require_run
from tests.tasks.registry import AIRFLOW, make_champion, store_inputs, store_training

FINGERPRINT = "f" * 64


@pytest.fixture
def run_id(registry):
    return open_run(registry, FINGERPRINT, {"width": 8}, AIRFLOW)


@pytest.fixture
def client(registry):
    from mlflow import MlflowClient

    return MlflowClient(registry.tracking)


def test_a_fingerprint_has_one_run(registry, run_id):
    assert open_run(registry, FINGERPRINT, {"width": 8}, AIRFLOW) == run_id


def test_another_fingerprint_has_another_run(registry, run_id):
    assert open_run(registry, "e" * 64, {"width": 8}, AIRFLOW) != run_id


def test_a_failed_run_is_taken_up_again(registry, run_id, client):
    close_run(registry, run_id, succeeded=False)
    open_run(registry, FINGERPRINT, {"width": 8}, AIRFLOW)
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_run_leads_back_to_airflow(registry, run_id, client):
    open_run(registry, FINGERPRINT, {}, AIRFLOW | {"airflow.try_number": "2"})
    tags = client.get_run(run_id).data.tags
    assert tags["airflow.url"] == AIRFLOW["airflow.url"]
    assert tags["airflow.try_number"] == "2"


def test_params_are_logged_once(registry, run_id, client):
    open_run(registry, FINGERPRINT, {"width": 16, "depth": 2}, AIRFLOW)
    assert client.get_run(run_id).data.params == {"width": "8", "depth": "2"}


def test_an_epoch_told_twice_after_a_resume_is_one_point_of_the_curve(registry, run_id, client):
    for epoch, loss in ((1, 3.0), (2, 2.0), (2, 2.0), (3, 1.0)):
        log_metrics(registry, run_id, {"loss": loss}, step=epoch)
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_an_undefined_figure_is_left_out_and_an_at_sign_spelt(registry, run_id, client):
    log_metrics(registry, run_id, {"auc": None, "hr@10": 0.5})
    assert client.get_run(run_id).data.metrics == {"hr_at_10": 0.5}


def test_the_dataset_is_an_input_with_its_digest_once(registry, run_id, client):
    dataset = Manifest(
        kind="dataset", uri=str(registry.var / "dataset"), digest="d" * 64, inputs={"curated/app_logs/dt=2026-05-01": "a" * 64}
    )
    for _ in range(2):
        log_dataset(registry, run_id, dataset)
    (logged,) = client.get_run(run_id).inputs.dataset_inputs
    assert logged.dataset.digest == "d" * 36
    assert {tag.key: tag.value for tag in logged.tags}["partitions"] == "1"


def test_artifacts_lie_under_var_whatever_the_current_folder(registry, run_id, client):
    assert client.get_run(run_id).info.artifact_uri.startswith((registry.var / "mlflow" / "artifacts").as_uri())


def test_a_deleted_experiment_is_told_with_the_command_that_restores_it(registry, run_id, client):
    number = client.get_run(run_id).info.experiment_id
    client.delete_experiment(number)
    with pytest.raises(ConfigError, match=rf"experiment mfn was deleted in MLflow .*'mlflow experiments restore --experiment-id {number}'"):
        open_run(registry, FINGERPRINT, {}, {})


def test_an_unknown_run_is_named(registry):
    with pytest.raises(ArtifactError, match=f"no run with mfn.fingerprint={FINGERPRINT}.*clear the task train"):
        require_run(registry, FINGERPRINT)


def test_an_unknown_alias_is_refused_with_what_there_is(registry):
    with pytest.raises(ConfigError, match="model mfn has no version or alias 'champoin'; versions: none"):
        require_version(registry, "champoin")


def test_a_model_answers_when_the_files_that_it_was_loaded_from_are_removed(registry, champion, monkeypatch):
    fetched, download = [], mlflow.artifacts.download_artifacts
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda **asked: fetched.append(download(**asked)) or fetched[-1])
    model = load_model(registry, "models:/mfn@champion")
    (folder,) = fetched
    assert not Path(folder).exists()
    assert len(model.predict(example_request(), params={"as_of": "2026-04-01"})) == 2
    assert stored_files(registry), "the registry keeps its own"


def stored_files(settings):
    """The folders of MLflow that hold the files of logged models."""
    return [path.parent for path in (settings.var / "mlflow" / "artifacts").rglob("MLmodel")]


@pytest.fixture
def champion(registry):
    make_champion(registry, store_training(registry, store_inputs(registry)))
    return require_version(registry, CHAMPION)


def fetch(settings, version):
    with bundle_of(settings, version):
        pass


def test_the_bundle_of_a_version_is_removed_after_use(registry, champion):
    with bundle_of(registry, champion) as bundle:
        assert any(bundle.iterdir())
    assert not bundle.exists()


def test_the_registry_keeps_its_own_bundle_when_one_was_removed_after_use(registry, champion):
    fetch(registry, champion)
    with bundle_of(registry, champion) as again:
        assert any(again.iterdir())


@pytest.mark.parametrize(
    "failure",
    [
        OSError(28, "No space left on device"),
        ConnectionError("the server hung up"),
        MlflowException("Read timeout on endpoint URL s3://models"),  # its code says internal error, whatever a store's client raised
        RuntimeError("of a store's own client"),
    ],
)
def test_a_bundle_that_cannot_be_fetched_now_is_tried_again(registry, champion, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fail)
    with pytest.raises(TransientError, match=r"models:/mfn/1/artifacts/bundle cannot be fetched now \(.*" + str(failure.args[-1])):
        fetch(registry, champion)


def test_a_model_that_cannot_be_fetched_now_is_tried_again(registry, champion, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("the server hung up")

    monkeypatch.setattr("mlflow.store.artifact.models_artifact_repo.ModelsArtifactRepository.download_artifacts", fail)
    with pytest.raises(TransientError, match=r"models:/mfn@champion cannot be fetched now \(.*the server hung up"):
        load_model(registry, "models:/mfn@champion")


def test_a_bundle_whose_files_are_gone_is_not_tried_again(registry, champion):
    for folder in stored_files(registry):
        shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match=r"version 1: models:/mfn/1/artifacts/bundle is gone.*promote another version"):
        fetch(registry, champion)


def test_a_bundle_that_an_object_store_lists_no_file_of_is_not_tried_again(registry, champion, monkeypatch):
    def fail(*_, **__):
        raise MlflowException("An error occurred (404) when calling the HeadObject operation: Not Found")

    monkeypatch.setattr("mlflow.artifacts.list_artifacts", lambda **_: [])
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fail)
    with pytest.raises(ArtifactError, match=r"models:/mfn/1/artifacts/bundle is gone"):
        fetch(registry, champion)


def test_the_bundle_of_a_deleted_version_is_not_tried_again(registry, champion, client):
    client.delete_model_version("mfn", "1")
    with pytest.raises(ArtifactError, match=r"version 1: models:/mfn/1/artifacts/bundle is gone"):
        fetch(registry, champion)


@pytest.mark.parametrize("broken", ["MLmodel", "artifacts/bundle/bundle.json"])
def test_a_model_that_does_not_parse_is_not_tried_again(registry, champion, broken):
    for folder in stored_files(registry):
        (folder / broken).write_text("{")
    with pytest.raises(ArtifactError, match=r"models:/mfn@champion does not load"):
        load_model(registry, "models:/mfn@champion")
