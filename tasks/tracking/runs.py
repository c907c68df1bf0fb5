"""Runs: what a training or a comparison was given, and what came of it."""

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfn_core.errors import ArtifactError
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT
from tasks.tracking.client import MAX_TAG, connect, experiment_id

_RUN_NAMES = {"mfn_train": "mfn", "mfn_compare": "compare"}
_MAX_BATCH = 1000


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

    Raises:
        ConfigError: the experiment was deleted.
    """
    from mlflow.entities import Param

    client = connect(settings)
    run_id = find_run(settings, fingerprint)
    if run_id is None:
        tags = {FINGERPRINT: fingerprint, "mlflow.source.name": source, **airflow_tags}
        name = f"{_RUN_NAMES[source]}-{fingerprint[:8]}"
        run_id = client.create_run(experiment_id(client, settings), tags=tags, run_name=name).info.run_id
    client.update_run(run_id, status="RUNNING")
    set_tags(settings, run_id, airflow_tags)
    logged = client.get_run(run_id).data.params
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items() if name not in logged])
    return run_id


def close_run(settings: Settings, run_id: str, *, succeeded: bool) -> None:
    """End a run."""
    connect(settings).set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def require_run(settings: Settings, fingerprint: str) -> str:
    """The id of the training run with this fingerprint.

    Raises:
        ArtifactError: there is none.
        ConfigError: the experiment was deleted.
    """
    run_id = find_run(settings, fingerprint)
    if run_id is None:
        raise ArtifactError(
            f"MLflow at {settings.tracking} has no run with {FINGERPRINT}={fingerprint} in experiment {settings.experiment}; "
            "clear the task train: it finds the finished training and makes the run again"
        )
    return run_id


def find_run(settings: Settings, fingerprint: str) -> str | None:
    """The id of the training run with this fingerprint, if there is one.

    Raises:
        ConfigError: the experiment was deleted.
    """
    client = connect(settings)
    runs = client.search_runs([experiment_id(client, settings)], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1)
    return runs[0].info.run_id if runs else None


def run_url(settings: Settings, run_id: str) -> str:
    """Where the MLflow UI shows a run.

    Raises:
        ConfigError: the experiment was deleted.
    """
    return f"{settings.mlflow_url}/#/experiments/{experiment_id(connect(settings), settings)}/runs/{run_id}"


def set_tags(settings: Settings, run_id: str, tags: Mapping[str, str]) -> None:
    """Tag a run; later values win."""
    from mlflow.entities import RunTag

    connect(settings).log_batch(run_id, tags=[RunTag(key, str(value)[:MAX_TAG]) for key, value in tags.items()])


def run_tags(settings: Settings, run_id: str) -> dict[str, str]:
    """The tags of a run."""
    return dict(connect(settings).get_run(run_id).data.tags)


def log_metrics(settings: Settings, run_id: str, metrics: Mapping[str, float | None], step: int = 0) -> None:
    """Log figures at a step, once each: a step that is already in the history, as after a resume, is left alone.

    Step 0 is the finished model, epochs count from 1. MLflow allows no ``@`` in a name: ``hr@10`` becomes ``hr_at_10``.
    """
    from mlflow.entities import Metric

    client = connect(settings)
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
    client = connect(settings)
    client.log_inputs(run_id, datasets=[DatasetInput(meta._to_mlflow_entity(), tags=tags)])
    client.log_dict(run_id, dataset.model_dump(mode="json"), "dataset/manifest.json")


def log_json(settings: Settings, run_id: str, content: Mapping[str, Any], path: str) -> None:
    """Keep a JSON object with the run."""
    connect(settings).log_dict(run_id, dict(content), path)


def log_folder(settings: Settings, run_id: str, folder: Path, path: str) -> None:
    """Keep the files of a folder with the run, replacing those of the same name."""
    connect(settings).log_artifacts(run_id, str(folder), path)


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

    Raises:
        ConfigError: the experiment was deleted.
    """
    run_id = open_run(settings, fingerprint, params, airflow_tags, source="mfn_compare")
    log_dataset(settings, run_id, dataset)
    log_metrics(settings, run_id, metrics)
    log_folder(settings, run_id, folder, "comparison")
    close_run(settings, run_id, succeeded=True)
    return run_id
