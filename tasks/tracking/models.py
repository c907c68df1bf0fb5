"""Logged models: a bundle with the code that serves it, put into MLflow and fetched from there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from mfn_core.errors import ArtifactError, TransientError
from tasks import storage
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT
from tasks.tracking.client import connect, experiment_id
from tasks.tracking.registry import Version

_SERVING_MODEL = Path(__file__).resolve().parents[1] / "serving_model.py"
_REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic")


def log_model(settings: Settings, run_id: str, fingerprint: str, bundle: Path) -> str:
    """The id of the run's logged model; made where no ready one is there.

    Models-from-code: the serving code, ``mfn_core`` and the bundle travel together and load without the repository and without
    pickle.

    Raises:
        ConfigError: the experiment was deleted.
    """
    import mlflow

    client = connect(settings)
    logged = client.search_logged_models([experiment_id(client, settings)], f"tags.`{FINGERPRINT}` = '{fingerprint}'")
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

    connect(settings)
    remedy = "train again, or delete the version"
    with storage.temporary_folder(settings.scratch) as aside:  # the loaded model is in memory
        folder = _fetch(settings, uri, uri, aside, remedy)
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

    connect(settings)
    uri = f"models:/{settings.model_name}/{version.number}/artifacts/{BUNDLE_ARTIFACT}"
    with storage.temporary_folder(settings.scratch) as aside:
        yield _fetch(settings, uri, f"version {version.number}: {uri}", aside, "restore its artifacts or promote another version")


def _fetch(settings: Settings, uri: str, name: str, folder: Path, remedy: str) -> Path:
    """Download into ``folder``."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        # The listing tells what is gone: of a missing object S3 says no more than that its download failed.
        if mlflow.artifacts.list_artifacts(artifact_uri=uri):
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
        why = "it has no files"
    except Exception as error:  # every store's client has errors of its own
        if not (isinstance(error, MlflowException) and error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)):
            raise TransientError(
                f"{name} cannot be fetched now ({error!r}); if trying again does not help, look at MLflow at {settings.tracking}, at the "
                f"store of its artifacts and at the disk of {settings.scratch}"
            ) from error
        why = str(error)
    raise ArtifactError(f"{name} is gone ({why}); {remedy}")


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
    from mlflow.types.schema import AnyType, Array, Map

    from mfn_core.inference.serving import DEFAULT_TOP_K, REQUEST_LISTS
    from mfn_core.schema import USER_ID

    strings = Array(DataType.string)
    # Of whatever kind: as strings MLflow would let a null among them pass as "n" or "nan", and refuse times in seconds.
    events = Array(AnyType())
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
        inputs=Schema([ColSpec(DataType.string, USER_ID), *(ColSpec(events, name, required=False) for name in REQUEST_LISTS)]),
        outputs=Schema(list(outputs)),
        params=ParamSchema([ParamSpec("top_k", DataType.long, DEFAULT_TOP_K), ParamSpec("as_of", DataType.string, "")]),
    )
