"""One model, one seed: its scores of every downstream task on the test users, as an artifact that is found again.

It lies in ``<store>/comparisons/<dataset>/<model>/seed-<seed>-<digest>``. The digest is of what shapes this very model, so that a
comparison of more seeds, of more models or after a change of another's code computes what is missing and nothing else::

    <task>.parquet   ``Evaluation.scores`` of the test users, or held-out test events
    result.json      figures by task and label, validation figures, what tuning chose, settings, seconds, what was left out, our atlas
"""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.data.shuffling import shuffle_macro, write_dataset
from mfn_core.errors import ArtifactError, InsufficientDataError
from mfn_core.evaluation.evaluator import by_label, figures_of, score
from mfn_core.inference.predictor import Predictor
from mfn_core.schema import DownstreamTask
from mfn_core.training import BUNDLE
from mfn_core.training.encoders import SETTINGS_OF_LABELS
from tasks import locks, manifest, storage
from tasks.comparison import atlas, recbole
from tasks.comparison.atlas import Atlas
from tasks.comparison.lineup import NETWORKS, RECBOLE, REFERENCE, SHUFFLED, recbole_file, train_config
from tasks.dag_configs import CompareConfig
from tasks.manifest import Manifest
from tasks.rivals import RIVALS
from tasks.settings import Settings
from tasks.train import train_managed

RESULT_FILE = "result.json"
NOT_TUNED = "not tuned: one setting everywhere"
# What a rival's scores depend on, beside the dataset and its trials.
_CODE_OF_RIVALS = (
    "tasks/rivals",
    "tasks/held_out.py",
    "mfn_core/data",
    "mfn_core/evaluation/baselines.py",
    "mfn_core/evaluation/scores.py",
    "mfn_core/metrics.py",
    "mfn_core/schema.py",
)
_log = logging.getLogger(__name__)


@dataclass
class _Measured:
    """What one way of measuring gives."""

    settings: dict[str, Any]
    tuning: dict[str, Any]
    scores: dict[DownstreamTask, pa.Table] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # by task or attribute
    atlas: Atlas | None = None
    seconds: float = 0.0


def measure(settings: Settings, config: CompareConfig, dataset: Manifest, model: str, seed: int) -> Manifest:
    """Measure a model, or find it measured."""
    digest = _digest(config, dataset, model, seed)
    uri = storage.join(settings.store, "comparisons", manifest.dataset_digest(dataset)[:16], model, f"seed-{seed}-{digest[:8]}")
    if finished := manifest.find(uri, digest):
        _log.info("%s of seed %d is measured already: %s", model, seed, uri)
        return finished
    if model in NETWORKS:
        measured = _network(settings, config, dataset, model, seed, digest)
    elif model in RIVALS:
        measured = _rival(settings, config, dataset, model, seed)
    else:
        measured = _recbole(settings, config, dataset, model, seed)
    return _write(settings, dataset, measured, uri, digest, model, seed)


def read_scores(settings: Settings, measured: Manifest) -> dict[DownstreamTask, pa.Table]:
    """The scores of a measured model by downstream task."""
    folder = storage.local_folder(measured.uri, settings.scratch)
    return {task: pq.read_table(folder / f"{task}.parquet") for task in measured.facts["tasks"]}


def read_result(measured: Manifest) -> dict[str, Any]:
    """``result.json`` of a measured model."""
    return storage.read_json(storage.join(measured.uri, RESULT_FILE))


def settings_tried(results: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """How many settings each rival chose among, by model: one number, or several where labels or seeds differ. Ours choose among none."""
    tried: dict[str, set[int]] = {}
    for each in results:
        model, tuning = each["model"], each["tuning"]
        if model not in NETWORKS:
            of_labels = [tuning] if model in RECBOLE else tuning.values()  # RecBole's have the next item alone
            tried.setdefault(model, set()).update(facts["trials"] for facts in of_labels)
    return {model: sorted(numbers) for model, numbers in tried.items() if numbers}


def _digest(config: CompareConfig, dataset: Manifest, model: str, seed: int) -> str:
    if model in NETWORKS:
        shape: tuple[Any, ...] = (_network_settings(config, model, seed), manifest.code_digest())
    elif model in RIVALS:
        shape = (config.trials, config.mask_seen, _code_of_rivals())
    else:
        files = (_read(recbole_file(config, model, seed, suffix)) for suffix in ("parquet", "json"))
        shape = (config.mask_seen, *(hashlib.sha256(content).hexdigest() for content in files))
    return manifest.digest_of(manifest.dataset_digest(dataset), model, seed, *shape)


@cache
def _code_of_rivals() -> str:
    home = Path(__file__).resolve().parents[2]
    files = [file for part in _CODE_OF_RIVALS for file in ([home / part] if part.endswith(".py") else sorted((home / part).rglob("*.py")))]
    return manifest.digest_of([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def _network_settings(config: CompareConfig, model: str, seed: int) -> dict[str, Any]:
    shaping = {*NetworkConfig.model_fields, *TrainingConfig.model_fields}
    return train_config(config, model, seed).model_dump(mode="json", include=shaping)


def _network(settings: Settings, config: CompareConfig, dataset: Manifest, model: str, seed: int, digest: str) -> _Measured:
    """Train as the product trains, and score by the predictor that serves."""
    if model == SHUFFLED:
        dataset = _shuffled(settings, dataset, seed)
    trained = train_managed(
        settings,
        train_config(config, model, seed),
        dataset.model_dump(mode="json"),
        digest,
        lambda _: None,
        encoders=_finished_encoders(settings, config, dataset, model, seed),
    )
    started = time.perf_counter()
    measured = _Measured(_network_settings(config, model, seed), {"trials": 0, "why": NOT_TUNED}, validation=trained["facts"]["validation"])
    predictor = Predictor.load(storage.local_folder(trained["uri"], settings.scratch) / BUNDLE, config.device)
    data = Dataset.open(storage.local_folder(dataset.uri, settings.scratch))
    for task in data.tasks:
        try:
            measured.scores[task] = score(
                predictor, data, task, split="test", mask_seen=data.masks_seen(config.mask_seen), batch_size=config.evaluation_batch_size
            )
        except InsufficientDataError as error:
            measured.left_out[task] = str(error)
    measured.seconds = trained["facts"]["seconds"] + time.perf_counter() - started
    if model == REFERENCE:
        measured.atlas = atlas.draw(predictor, data, config.evaluation_batch_size)
    return measured


def _finished_encoders(settings: Settings, config: CompareConfig, dataset: Manifest, model: str, seed: int) -> Manifest | None:
    """The training of the network of the form, where it is finished and this model differs from it in the labels alone."""
    if not NETWORKS[model] or not NETWORKS[model].keys() <= SETTINGS_OF_LABELS:
        return None
    digest = _digest(config, dataset, REFERENCE, seed)
    return manifest.find(storage.join(settings.store, "training", digest[:16]), digest)


def _shuffled(settings: Settings, dataset: Manifest, seed: int) -> Manifest:
    """The dataset with every user's app history given to another; see ``shuffle_macro``."""
    digest = manifest.digest_of("shuffled", manifest.dataset_digest(dataset), seed, manifest.code_digest())
    uri = storage.join(settings.store, "datasets", digest[:16])
    with locks.taken(settings, f"dataset-{digest[:16]}"):
        if finished := manifest.find(uri, digest):
            return finished
        made = dataset.model_copy(
            update={"uri": uri, "digest": digest, "inputs": {dataset.uri: dataset.digest}, "created_at": manifest.now(), "facts": {}}
        )
        with storage.staged_folder(uri, settings.scratch) as folder:
            write_dataset(shuffle_macro(Dataset.open(storage.local_folder(dataset.uri, settings.scratch)), seed), folder)
            manifest.write(made, str(folder))
    return made


def _rival(settings: Settings, config: CompareConfig, dataset: Manifest, model: str, seed: int) -> _Measured:
    """Fit and tune once for each downstream task that the rival can do."""
    started = time.perf_counter()
    data = Dataset.open(storage.local_folder(dataset.uri, settings.scratch))
    mask_seen = data.masks_seen(config.mask_seen)
    measured = _Measured({"trials": config.trials, "mask_seen": mask_seen}, {})
    for task in RIVALS[model].tasks:
        if task not in data.tasks:
            measured.left_out[task] = data.skipped[task]
            continue
        try:
            scores, chosen = RIVALS[model].fit_and_score(data, task, split="test", seed=seed, trials=config.trials, mask_seen=mask_seen)
        except InsufficientDataError as error:
            measured.left_out[task] = str(error)
            continue
        measured.scores[task] = scores
        for label, facts in chosen.items():
            if "left_out" in facts:
                measured.left_out[label] = facts["left_out"]
                continue
            measured.tuning[label] = facts
            measured.validation |= {f"{label} {name}": value for name, value in facts.items() if name.startswith("validation_")}
    measured.seconds = time.perf_counter() - started
    return measured


def _recbole(settings: Settings, config: CompareConfig, dataset: Manifest, model: str, seed: int) -> _Measured:
    """What RecBole's run of the seed wrote: ranks by the rules of our own evaluator."""
    uri = recbole_file(config, model, seed, "json")
    facts = storage.read_json(uri)
    try:
        mask_seen, chosen = facts["options"]["mask_seen"], facts["options"] | facts["settings"]
        tuning = {"trials": len(facts["trials"]), "settings": facts["settings"]}
        validation, seconds = facts["validation"], float(facts[recbole.SECONDS])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{uri} lacks {error}; run RecBole again") from error
    data = Dataset.open(storage.local_folder(dataset.uri, settings.scratch))
    if mask_seen != data.masks_seen(config.mask_seen):
        raise ArtifactError(
            f"{uri} was ranked with seen items {'left out' if mask_seen else 'in'}, and mask_seen={config.mask_seen} means the opposite "
            "on this dataset; run RecBole again, or change the form"
        )
    scores = recbole.read_scores(recbole_file(config, model, seed, "parquet"), data)
    return _Measured(chosen, tuning, {"recommendation": scores}, validation, seconds=seconds)


def _read(uri: str) -> bytes:
    with fsspec.open(uri, "rb") as file:
        return file.read()


def _write(settings: Settings, dataset: Manifest, measured: _Measured, uri: str, digest: str, model: str, seed: int) -> Manifest:
    figures = {task: _figures(task, scores) for task, scores in measured.scores.items()}
    parts = ("settings", "tuning", "validation", "left_out", "atlas")
    told = {part: getattr(measured, part) for part in parts}
    made = Manifest(
        kind="measured model",
        uri=uri,
        digest=digest,
        rows={task: scores.num_rows for task, scores in measured.scores.items()},
        inputs={dataset.uri: dataset.digest},
        config=measured.settings,
        code=manifest.code_digest(),
        created_at=manifest.now(),
        facts={"model": model, "seed": seed, "tasks": list(measured.scores), "seconds": round(measured.seconds, 3), "figures": figures},
    )
    with storage.staged_folder(uri, settings.scratch) as folder:
        for task, scores in measured.scores.items():
            pq.write_table(scores, folder / f"{task}.parquet")
        storage.write_json(str(folder / RESULT_FILE), made.facts | told)
        manifest.write(made, str(folder))
    return made


def _figures(task: DownstreamTask, scores: pa.Table) -> dict[str, Mapping[str, float | None]]:
    return {label: figures_of(task, table)(np.arange(table.num_rows)) for label, table in by_label(task, scores).items()}
