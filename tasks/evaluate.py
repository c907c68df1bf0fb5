"""One downstream task of a trained model: figures, intervals, baseline, slices, scores per user, plots; in the MLflow run too."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mfn_core.data.dataset import Dataset
from mfn_core.evaluation import evaluator, slices
from mfn_core.evaluation.evaluator import Evaluation, by_label, probabilities_of
from mfn_core.inference.predictor import Predictor
from mfn_core.schema import PAD, UNKNOWN, USER_ID, DownstreamTask
from mfn_core.training import BUNDLE, RESULT
from tasks import manifest, plots, storage
from tasks.dag_configs import TrainConfig
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import runs

SCORES_FILE = "scores.parquet"
_PLOTS = "plots"
_SLICES = "slices"
_SLICE_SAMPLES = 200  # resamples of each slice: an overview, which need not cost more than the figures themselves
_MAX_MAPPED_USERS = 5000
_log = logging.getLogger(__name__)


def evaluate(
    settings: Settings,
    config: TrainConfig,
    dataset_manifest: Mapping[str, Any],
    training_manifest: Mapping[str, Any],
    task: DownstreamTask,
) -> dict[str, Any]:
    """Measure one downstream task on the test users, or find the finished evaluation, and have it in the MLflow run either way.

    Returns:
        Manifest of kind ``evaluation``. ``facts`` hold ``task, metrics, intervals, baseline, n, undefined``; for the attribute
        task each of the last five is by attribute.

    Raises:
        ConfigError: the dataset leaves the task out.
        InsufficientDataError: no test user has a label.
    """
    dataset, training = Manifest.model_validate(dataset_manifest), Manifest.model_validate(training_manifest)
    uri = storage.join(settings.store, "evaluations", training.digest[:16], task)
    digest = manifest.digest_of(training.digest, dataset.digest, task, config.bootstrap_samples, config.mask_seen)
    done = manifest.find(uri, digest) or _evaluate(settings, config, dataset, training, task, uri, digest)
    run_id = runs.require_run(settings, training.digest)
    runs.log_metrics(settings, run_id, _flat(task, done.facts))
    folder = storage.local_folder(uri, settings.scratch)
    runs.log_json(settings, run_id, done.facts, f"evaluation/{task}.json")
    for kept in (_PLOTS, _SLICES):
        runs.log_folder(settings, run_id, folder / kept, kept)
    for label, facts in labelled_facts(done.facts).items():
        _log.info("%s on %d users: %s; baseline %s", label, facts["n"], _line(facts["metrics"]), _line(facts["baseline"]))
    return done.model_dump(mode="json")


def labelled_facts(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``metrics, intervals, baseline, n, undefined`` of each label: of the task itself, or of each attribute."""
    parts = ("metrics", "intervals", "baseline", "n", "undefined")
    if facts["task"] != "attribute":
        return {facts["task"]: {part: facts[part] for part in parts}}
    return {name: {part: facts[part][name] for part in parts} for name in facts["n"]}


def _evaluate(
    settings: Settings, config: TrainConfig, dataset: Manifest, training: Manifest, task: DownstreamTask, uri: str, digest: str
) -> Manifest:
    data = Dataset.open(storage.local_folder(dataset.uri, settings.scratch))
    trained = storage.local_folder(training.uri, settings.scratch)
    predictor = Predictor.load(trained / BUNDLE, config.device)
    mask_seen = data.masks_seen(config.mask_seen)
    measured = evaluator.evaluate(
        predictor,
        data,
        task,
        mask_seen=mask_seen,
        batch_size=config.evaluation_batch_size,
        samples=config.bootstrap_samples,
        seed=config.seed,
    )
    made = Manifest(
        kind="evaluation",
        uri=uri,
        digest=digest,
        rows={"users": len(set(measured.scores[USER_ID].to_pylist()))},
        inputs={dataset.uri: dataset.digest, training.uri: training.digest},
        config={"bootstrap_samples": config.bootstrap_samples, "mask_seen": mask_seen},
        code=manifest.code_digest(),
        created_at=manifest.now(),
        facts=_facts(measured),
    )
    with storage.staged_folder(uri, settings.scratch) as folder:
        pq.write_table(measured.scores, folder / SCORES_FILE)
        _draw(measured, data, folder / _PLOTS)
        _write_slices(measured, data, config.seed, folder / _SLICES)
        if task == data.tasks[0]:
            _draw_portrait(predictor, data, config.evaluation_batch_size, json.loads((trained / RESULT).read_text()), folder / _PLOTS)
        manifest.write(made, str(folder))
    return made


def _facts(measured: Evaluation) -> dict[str, Any]:
    by_name = {name: measurement.to_json() for name, measurement in measured.measurements.items()}
    if measured.task != "attribute":
        return {"task": measured.task, **by_name[measured.task]}
    parts = next(iter(by_name.values()))
    return {"task": measured.task, **{part: {name: facts[part] for name, facts in by_name.items()} for part in parts}}


def _flat(task: DownstreamTask, facts: Mapping[str, Any]) -> dict[str, float | None]:
    """Figures as MLflow names: ``test/activity/auc``, ``test/attribute/gender/auc``, ``baseline/…``."""
    flat: dict[str, float | None] = {}
    for label, parts in labelled_facts(facts).items():
        name = task if label == task else f"{task}/{label}"
        flat |= {f"test/{name}/{figure}": value for figure, value in parts["metrics"].items()}
        flat |= {f"baseline/{name}/{figure}": value for figure, value in parts["baseline"].items()}
        flat[f"test/{name}/n"] = parts["n"]
    return flat


def _write_slices(measured: Evaluation, data: Dataset, seed: int, folder: Path) -> None:
    """The same rows twice: as JSON for programs, as Markdown for the eye."""
    rows = slices.slice_rows(measured.task, measured.scores, data, samples=_SLICE_SAMPLES, seed=seed)
    content = {"task": measured.task, "samples": _SLICE_SAMPLES, "rows": [row.to_json() for row in rows]}
    folder.mkdir()
    (folder / f"{measured.task}.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / f"{measured.task}.md").write_text(slices.as_markdown(rows), encoding="utf-8")


def _draw(measured: Evaluation, data: Dataset, folder: Path) -> None:
    for label, table in by_label(measured.task, measured.scores).items():
        measurement = measured.measurements[label]
        bars = (measurement.metrics, measurement.intervals, measurement.baseline)
        if measured.task == "recommendation":
            plots.against_baseline(
                *bars, ("model", "popularity"), f"Next item (n = {measurement.n:,})", folder / "recommendation_ranking.png"
            )
            continue
        labels = table["label"].to_numpy()
        if measured.task == "activity":
            scores = table["score"].to_numpy()
            curves, name, rival = {"active": (labels, scores)}, "activity", "base rate"
            plots.calibration(labels, scores, "Activity", folder / "activity_calibration.png")
        else:
            probability_BC, classes = probabilities_of(table), data.attribute_classes[label]
            curves = {value: ((labels == number).astype(np.int64), probability_BC[:, number]) for number, value in enumerate(classes)}
            name, rival = f"attribute_{label}", "class shares"
        plots.discrimination(curves, label.capitalize(), folder / f"{name}_roc_pr.png")
        plots.against_baseline(*bars, ("model", rival), f"{label.capitalize()} (n = {measurement.n:,})", folder / f"{name}_figures.png")


def _draw_portrait(predictor: Predictor, data: Dataset, batch_size: int, result: Mapping[str, Any], folder: Path) -> None:
    """What shows the model rather than one task: drawn by the first of the dataset's tasks."""
    plots.learning_curves(result["history"], result["best_epoch"], folder / "learning_curves.png")
    rows = data.rows_of("test")[:_MAX_MAPPED_USERS]
    said = predictor.predict(data.histories, query_time=data.cut, rows=rows, top_k=1, batch_size=batch_size)
    activity_B = data.activity_B[rows]
    groups = {"active": activity_B == 1, "not active": activity_B == 0, "unlabelled": activity_B < 0}
    plots.embedding_map(
        said.embedding_BD, {name: members for name, members in groups.items() if members.any()}, folder / "embedding_map.png"
    )
    matrix_GK = predictor.mean_alignment_GK(data.histories, query_time=data.cut, rows=rows, batch_size=batch_size)
    if matrix_GK is not None:
        vocabularies = predictor.bundle.vocabularies
        known = slice(max(PAD, UNKNOWN) + 1, None)
        macro_names, micro_names = (
            vocabulary.tokens.to_pylist() for vocabulary in (vocabularies.macro_category, vocabularies.micro_category)
        )
        # Where the rarest categories share a row the names are more than the rows: those of the first.
        plots.alignment_atlas(matrix_GK[known, known], macro_names, micro_names, folder / "alignment_atlas.png")


def _line(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in figures.items())
