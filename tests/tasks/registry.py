"""A tiny dataset and trained models on disk, as ``build_dataset`` and ``train`` leave them, with their MLflow run."""

import json
from typing import Any

from mfn_core.data.dataset import Dataset
from tasks import manifest, storage
from tasks.dag_configs import TrainConfig
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT
from tasks.tracking.models import log_model
from tasks.tracking.registry import CHAMPION, GATE, PASSED, SPLIT_SEED, register_version, set_alias
from tasks.tracking.runs import open_run, require_run
from tests.factories import patterned_dataset, store_dataset
from tests.models import TINY, store_model

CONFIG = TrainConfig(**TINY.model_dump(), bootstrap_samples=100, device="cpu")
AIRFLOW = {
    "airflow.dag_id": "mfn_train",
    "airflow.run_id": "manual__1",
    "airflow.try_number": "1",
    "airflow.url": "http://127.0.0.1:8080/x",
}
EPOCH = {"losses": {"total": 2.0}, "validation": {"ndcg@10": 0.1}}


def store_inputs(settings: Settings, dataset: Dataset | None = None, letter: str = "d") -> dict[str, Any]:
    """Manifest of a stored dataset whose digest is one letter, 64 times."""
    dataset = dataset or patterned_dataset(120)
    uri = storage.join(settings.store, "datasets", letter * 16)
    folder = store_dataset(dataset, storage.local_folder(uri, settings.scratch))
    facts = {
        "cut": dataset.cut,
        "horizon_days": dataset.horizon_days,
        "leak_proof": {"activity": {"max_input_time": 1, "min_label_time": 2}},
    }
    made = Manifest(kind="dataset", uri=uri, digest=letter * 64, inputs={"curated/app_logs/dt=2026-05-01": "a" * 64}, facts=facts)
    manifest.write(made, str(folder))
    return made.model_dump(mode="json")


def store_training(settings: Settings, dataset_manifest: dict[str, Any], letter: str = "f", *, seed: int = 0) -> dict[str, Any]:
    """Manifest of a stored training run whose fingerprint is one letter, 64 times."""
    fingerprint = letter * 64
    dataset = Dataset.open(storage.local_folder(dataset_manifest["uri"], settings.scratch))
    uri = storage.join(settings.store, "training", fingerprint[:16])
    folder = storage.local_folder(uri, settings.scratch)
    store_model(dataset, folder / "bundle", seed=seed)
    (folder / "result.json").write_text(json.dumps({"best_epoch": 2, "history": [{"epoch": 1, **EPOCH}, {"epoch": 2, **EPOCH}]}))
    made = Manifest(kind="training", uri=uri, digest=fingerprint)
    manifest.write(made)
    open_run(settings, fingerprint, {"width": 8}, AIRFLOW)
    return made.model_dump(mode="json")


def make_champion(settings: Settings, training_manifest: dict[str, Any]) -> None:
    """Register a stored training run as champion, with no evidence but its fingerprint and split seed."""
    fingerprint = training_manifest["digest"]
    run_id = require_run(settings, fingerprint)
    bundle = storage.local_folder(storage.join(training_manifest["uri"], "bundle"), settings.scratch)
    model_id = log_model(settings, run_id, fingerprint, bundle)
    tags = {FINGERPRINT: fingerprint, SPLIT_SEED: str(CONFIG.split_seed), GATE: PASSED}
    set_alias(settings, CHAMPION, register_version(settings, run_id, model_id, tags).number)
