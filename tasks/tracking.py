"""The sole MLflow client: one run per training run, one registered version per fingerprint.

Runs, logged models and versions carry the tag ``mfn.fingerprint`` and are searched by it before anything is made, so a retry or a
re-run goes on with what is there. Everything here may be called twice with the same arguments and changes nothing the second time.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfn_core.errors import ArtifactError, ConfigError, TransientError
from tasks import storage
from tasks.manifest import Manifest
from tasks.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FINGERPRINT = "mfn.fingerprint"
GATE, PASSED, GATE_REASON, GATE_CHAMPION = "mfn.gate", "passed", "mfn.gate.reason", "mfn.gate.champion"
SPLIT_SEED = "mfn.split_seed"
DATA_END = "mfn.dataset.end"  # ISO day, 00:00 UTC: neither histories nor labels reach it
PROMOTED_AT = "mfn.promoted_at"
CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"

_SERVING_MODEL = Path(__file__).resolve().parent / "serving_model.py"
_REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic")
_RUN_NAMES = {"mfn_train": "mfn", "mfn_compare": "compare"}
_MAX_TAG = 4000
_MAX_BATCH = 1000


@dataclass(frozen=True)
class Version:
    """A registered version."""

    number: int
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]


def open_run(
    settings: Settings, fingerprint: str, params: Mapping[str, Any], airflow_tags: Mapping[str, str], source: str = "mfn_train"
) -> str:
    """The id of the run with this fingerprint; made where there is none, running either way.

    Args:
        settings: this installation.
        fingerprint: of inputs, config and code.
        params: logged when the run is made, never again.
        airflow_tags: lead back to the Airflow run that goes on with it, e.g. ``airflow.url``.
        source: the DAG whose run it is.
    """
    from mlflow.entities import Param

    client = _client(settings)
    run_id = find_run(settings, fingerprint)
    if run_id is None:
        tags = {FINGERPRINT: fingerprint, "mlflow.source.name": source, **airflow_tags}
        name = f"{_RUN_NAMES[source]}-{fingerprint[:8]}"
        run_id = client.create_run(_experiment_id(client, settings), tags=tags, run_name=name).info.run_id
    client.update_run(run_id, status="RUNNING")
    set_tags(settings, run_id, airflow_tags)
    logged = client.get_run(run_id).data.params
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items() if name not in logged])
    return run_id


def close_run(settings: Settings, run_id: str, *, succeeded: bool) -> None:
    """End a run."""
    _client(settings).set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def require_run(settings: Settings, fingerprint: str) -> str:
    """The id of the training run with this fingerprint.

    Raises:
        ArtifactError: there is none.
    """
    run_id = find_run(settings, fingerprint)
    if run_id is None:
        raise ArtifactError(
            f"MLflow at {settings.tracking} has no run with {FINGERPRINT}={fingerprint} in experiment {settings.experiment}; "
            "clear the task train: it finds the finished training and makes the run again"
        )
    return run_id


def find_run(settings: Settings, fingerprint: str) -> str | None:
    """The id of the training run with this fingerprint, if there is one."""
    client = _client(settings)
    runs = client.search_runs([_experiment_id(client, settings)], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1)
    return runs[0].info.run_id if runs else None


def run_url(settings: Settings, run_id: str) -> str:
    """Where the MLflow UI shows a run."""
    return f"{settings.mlflow_url}/#/experiments/{_experiment_id(_client(settings), settings)}/runs/{run_id}"


def set_tags(settings: Settings, run_id: str, tags: Mapping[str, str]) -> None:
    """Tag a run; later values win."""
    from mlflow.entities import RunTag

    _client(settings).log_batch(run_id, tags=[RunTag(key, str(value)[:_MAX_TAG]) for key, value in tags.items()])


def run_tags(settings: Settings, run_id: str) -> dict[str, str]:
    """The tags of a run."""
    return dict(_client(settings).get_run(run_id).data.tags)


def log_metrics(settings: Settings, run_id: str, metrics: Mapping[str, float | None], step: int = 0) -> None:
    """Log figures at a step, once each: a step that is already in the history, as after a resume, is left alone.

    Step 0 is the finished model, epochs count from 1. MLflow allows no ``@`` in a name: ``hr@10`` becomes ``hr_at_10``.
    """
    from mlflow.entities import Metric

    client = _client(settings)
    latest = client.get_run(run_id).data.metrics
    new = {
        name: value
        for name, value in ((key.replace("@", "_at_"), value) for key, value in metrics.items())
        if value is not None and not (name in latest and any(point.step == step for point in client.get_metric_history(run_id, name)))
    }
    timestamp = int(time.time() * 1000)
    points = [Metric(name, float(value), timestamp, step) for name, value in new.items()]
    for start in range(0, len(points), _MAX_BATCH):
        client.log_batch(run_id, metrics=points[start : start + _MAX_BATCH])


def log_dataset(settings: Settings, run_id: str, dataset: Manifest) -> None:
    """Name the dataset and its input partitions, each with its digest, as inputs of the run."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    with warnings.catch_warnings():
        # MLflow registers its source of local folders twice and then warns of its own ambiguity.
        warnings.simplefilter("ignore")
        source = resolve_dataset_source(dataset.uri)
    meta = MetaDataset(source, name="mfn-dataset", digest=dataset.digest[:36])
    partitions = hashlib.sha256(json.dumps(dataset.inputs, sort_keys=True).encode()).hexdigest()
    facts = {"mlflow.data.context": "training", "partitions": str(len(dataset.inputs)), "partitions_digest": partitions}
    tags = [InputTag(key, value) for key, value in facts.items()]
    client = _client(settings)
    client.log_inputs(run_id, datasets=[DatasetInput(meta._to_mlflow_entity(), tags=tags)])
    client.log_dict(run_id, dataset.model_dump(mode="json"), "dataset/manifest.json")


def log_json(settings: Settings, run_id: str, content: Mapping[str, Any], path: str) -> None:
    """Keep a JSON object with the run."""
    _client(settings).log_dict(run_id, dict(content), path)


def log_folder(settings: Settings, run_id: str, folder: Path, path: str) -> None:
    """Keep the files of a folder with the run, replacing those of the same name."""
    _client(settings).log_artifacts(run_id, str(folder), path)


def log_comparison(
    settings: Settings,
    fingerprint: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    dataset: Manifest,
    folder: Path,
    airflow_tags: Mapping[str, str],
) -> str:
    """Keep a comparison of models as a run of its own; its id.

    Args:
        settings: this installation.
        fingerprint: of the comparison.
        params: its settings.
        metrics: figures by ``label/metric/model``.
        dataset: that the models were measured on.
        folder: its files: table, chart, rows.
        airflow_tags: lead back to the Airflow run, if one made it.
    """
    run_id = open_run(settings, fingerprint, params, airflow_tags, source="mfn_compare")
    log_dataset(settings, run_id, dataset)
    log_metrics(settings, run_id, metrics)
    log_folder(settings, run_id, folder, "comparison")
    close_run(settings, run_id, succeeded=True)
    return run_id


def log_model(settings: Settings, run_id: str, fingerprint: str, bundle: Path) -> str:
    """The id of the run's logged model; made where no ready one is there.

    Models-from-code: the serving code, ``mfn_core`` and the bundle travel together and load without the repository and without
    pickle.
    """
    import mlflow

    client = _client(settings)
    logged = client.search_logged_models([_experiment_id(client, settings)], f"tags.`{FINGERPRINT}` = '{fingerprint}'")
    # MLflow 3.17 stores the status as a number and finds nothing by status = 'READY'.
    if ready := [model.model_id for model in logged if model.status == "READY"]:
        return ready[0]
    with mlflow.start_run(run_id=run_id):
        return _log_pyfunc(fingerprint, bundle)


def load_model(settings: Settings, uri: str) -> Any:
    """The pyfunc model at a ``models:/`` URI.

    Raises:
        ArtifactError: its files are gone, or it does not load.
        TransientError: its files cannot be fetched now.
    """
    import mlflow

    _client(settings)
    remedy = "train again, or delete the version"
    folder = _fetch(settings, uri, uri, None, remedy)
    try:
        return mlflow.pyfunc.load_model(str(folder))
    except Exception as error:
        raise ArtifactError(f"{uri} does not load ({error}); {remedy}") from error


@contextmanager
def bundle_of(settings: Settings, version: Version) -> Iterator[Path]:
    """A local folder with the bundle of a version, until the block ends.

    Raises:
        ArtifactError: its files are gone.
        TransientError: they cannot be fetched now.
    """
    from mfn_core.inference.serving import BUNDLE_ARTIFACT

    _client(settings)
    uri = f"models:/{settings.model_name}/{version.number}/artifacts/{BUNDLE_ARTIFACT}"
    with storage.temporary_folder(settings.scratch) as aside:
        yield _fetch(settings, uri, f"version {version.number}: {uri}", aside, "restore its artifacts or promote another version")


def find_version(settings: Settings, fingerprint: str) -> Version | None:
    """The registered version with this fingerprint, if there is one."""
    return next((version for version in versions(settings) if version.tags.get(FINGERPRINT) == fingerprint), None)


def register_version(settings: Settings, run_id: str, model_id: str, tags: Mapping[str, str]) -> Version:
    """Register a logged model under the settings' name, with its evidence."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    client = _client(settings)
    try:
        client.create_registered_model(settings.model_name, description="Macro-Micro Fusion Network: raw histories in, answers out.")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    kept = {key: str(value)[:_MAX_TAG] for key, value in tags.items()}
    return _version(client.create_model_version(settings.model_name, f"models:/{model_id}", run_id, tags=kept, model_id=model_id))


def versions(settings: Settings) -> list[Version]:
    """All registered versions, newest first."""
    client = _client(settings)
    found = client.search_model_versions(f"name = '{settings.model_name}'", max_results=10_000)
    aliases: dict[int, list[str]] = {}
    if found:
        for alias, number in client.get_registered_model(settings.model_name).aliases.items():
            aliases.setdefault(int(number), []).append(alias)
    listed = [_version(version, sorted(aliases.get(int(version.version), []))) for version in found]
    return sorted(listed, key=lambda version: version.number, reverse=True)


def version_of(settings: Settings, number_or_alias: int | str) -> Version | None:
    """The version with this number or alias, if there is one."""
    for version in versions(settings):
        if number_or_alias == version.number or number_or_alias in version.aliases:
            return version
    return None


def require_version(settings: Settings, number_or_alias: int | str) -> Version:
    """The version with this number or alias.

    Raises:
        ConfigError: there is none; names those that are there.
    """
    version = version_of(settings, number_or_alias)
    if version is None:
        there = ", ".join(" ".join([str(each.number), *(f"({alias})" for alias in each.aliases)]) for each in versions(settings)) or "none"
        raise ConfigError(
            f"model {settings.model_name} has no version or alias {number_or_alias!r}; versions: {there}. "
            "Name one of them, or run mfn_train"
        )
    return version


def lost_champion(settings: Settings) -> str:
    """That there was a champion and is none, in words with the remedy: its alias or its version was deleted. Empty in any other case."""
    there = versions(settings)
    promoted = [version for version in there if PROMOTED_AT in version.tags or PREVIOUS in version.aliases]
    if not promoted or any(CHAMPION in version.aliases for version in there):
        return ""
    last = max(promoted, key=lambda version: (version.tags.get(PROMOTED_AT, ""), version.number))
    return (
        f"model {settings.model_name} has lost its champion: the last of its versions to be promoted is {last.number} "
        f"({last.tags.get(PROMOTED_AT, PREVIOUS)}), and none has the alias {CHAMPION}. Trigger mfn_promote with version={last.number}, or "
        "with that of another which passed the gate"
    )


def set_alias(settings: Settings, alias: str, number: int) -> None:
    """Point an alias at a version."""
    _client(settings).set_registered_model_alias(settings.model_name, alias, str(number))


def delete_alias(settings: Settings, alias: str) -> None:
    """Take an alias away."""
    _client(settings).delete_registered_model_alias(settings.model_name, alias)


def tag_version(settings: Settings, number: int, tags: Mapping[str, str]) -> None:
    """Tag a version; later values win."""
    client = _client(settings)
    for key, value in tags.items():
        client.set_model_version_tag(settings.model_name, str(number), key, str(value)[:_MAX_TAG])


def _client(settings: Settings) -> "MlflowClient":
    """A client of the settings' store, which becomes the process's default: MLflow's model functions know no other way."""
    import mlflow

    if settings.tracking.startswith("sqlite:///"):
        Path(settings.tracking.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(settings.tracking)
    mlflow.set_registry_uri(settings.tracking)
    return mlflow.MlflowClient(settings.tracking, settings.tracking)


def _fetch(settings: Settings, uri: str, name: str, folder: Path | None, remedy: str) -> Path:
    """Download into ``folder``, or find where the files are on this machine."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        # The listing tells what is gone: of a missing object S3 says no more than that its download failed.
        if mlflow.artifacts.list_artifacts(artifact_uri=uri):
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder and str(folder)))
        why = "it has no files"
    except Exception as error:  # every store's client has errors of its own
        if not (isinstance(error, MlflowException) and error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)):
            raise TransientError(
                f"{name} cannot be fetched now ({error!r}); if trying again does not help, look at MLflow at {settings.tracking}, at the "
                f"store of its artifacts and at the disk of {settings.scratch}"
            ) from error
        why = str(error)
    raise ArtifactError(f"{name} is gone ({why}); {remedy}")


def _experiment_id(client: "MlflowClient", settings: Settings) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        # MLflow's own default is a folder of the current directory. A tracking server chooses for itself.
        is_local = settings.tracking.startswith("sqlite:///")
        location = (settings.var.resolve() / "mlflow" / "artifacts" / settings.experiment).as_uri() if is_local else None
        try:
            return client.create_experiment(settings.experiment, artifact_location=location)
        except MlflowException:
            experiment = client.get_experiment_by_name(settings.experiment)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise ConfigError(
            f"experiment {settings.experiment} was deleted in MLflow at {settings.tracking}: restore it by 'mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}' with that MLFLOW_TRACKING_URI, or set MFN_EXPERIMENT to another name and restart "
            "the services"
        )
    return experiment.experiment_id


def _log_pyfunc(fingerprint: str, bundle: Path) -> str:
    import mlflow

    import mfn_core
    from mfn_core.inference.serving import BUNDLE_ARTIFACT, example_request

    info = mlflow.pyfunc.log_model(
        name="mfn",
        python_model=str(_SERVING_MODEL),
        artifacts={BUNDLE_ARTIFACT: str(bundle)},
        code_paths=[str(Path(str(mfn_core.__file__)).parent)],
        signature=_signature(),
        input_example=example_request(),
        pip_requirements=[f"{name}=={installed_version(name).partition('+')[0]}" for name in _REQUIREMENTS],
        tags={FINGERPRINT: fingerprint},
    )
    return info.model_id


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Map

    from mfn_core.inference.serving import DEFAULT_TOP_K, REQUEST_LISTS
    from mfn_core.schema import USER_ID

    strings = Array(DataType.string)
    outputs: Sequence[ColSpec] = [
        ColSpec(DataType.string, USER_ID),
        ColSpec(Array(DataType.double), "embedding"),
        ColSpec(DataType.double, "activity_probability", required=False),
        ColSpec(Map(Map(DataType.double)), "attribute_probabilities"),
        ColSpec(strings, "top_items"),
        ColSpec(Array(DataType.double), "top_scores"),
        ColSpec(DataType.string, "model_version", required=False),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, USER_ID), *(ColSpec(strings, name, required=False) for name in REQUEST_LISTS)]),
        outputs=Schema(list(outputs)),
        params=ParamSchema([ParamSpec("top_k", DataType.long, DEFAULT_TOP_K), ParamSpec("as_of", DataType.string, "")]),
    )


def _version(found: "ModelVersion", aliases: Sequence[str] = ()) -> Version:
    return Version(int(found.version), found.run_id or "", dict(found.tags), tuple(aliases))
