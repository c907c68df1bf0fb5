"""Every model on one dataset: same splits, same cut, a stated tuning budget, tuned on validation alone.

``plan`` -> the dataset as ``mfn_train`` builds it -> ``line_up`` -> ``measure`` for every model and seed -> ``report``. The DAG and
``make compare`` run these same functions. Whatever is measured is found again: see ``tasks.comparison.measuring``.
"""

import hashlib
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from mfn_core.schema import DOWNSTREAM_TASKS, DownstreamTask
from tasks import manifest, storage
from tasks.comparison import atlas, lineup, measuring, presentation, statistics
from tasks.comparison.lineup import REFERENCE, SHUFFLED, Lineup
from tasks.comparison.statistics import MAIN_METRICS, Row
from tasks.dag_configs import CompareConfig, TrainConfig
from tasks.manifest import Manifest
from tasks.plan import plan_learning
from tasks.settings import Settings
from tasks.tracking import runs

Scores = dict[DownstreamTask, dict[str, dict[int, pa.Table]]]  # by model and seed

ONE_VIEW = "micro_only"
JSON_FILE, MARKDOWN_FILE, CHART_FILE = "comparison.json", "comparison.md", "comparison.png"
_LIBRARIES = ("lightgbm", "numpy", "scikit-learn", "scipy", "torch")
_log = logging.getLogger(__name__)


def plan(settings: Settings, config: CompareConfig) -> dict[str, Any]:
    """Fingerprint, days and inputs of the dataset: those of ``mfn_train`` with the same settings.

    Raises:
        ConfigError: a model is unknown, the form sets what the networks differ in, or a chosen network cannot be built.
        InsufficientDataError: days are not validated.
    """
    lineup.check(config)
    shared = config.model_dump(include=set(TrainConfig.model_fields))
    planned = plan_learning(settings, TrainConfig.model_validate(shared))
    return {name: planned[name] for name in ("fingerprint", "days", "inputs")}


def line_up(settings: Settings, config: CompareConfig, dataset_manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is to be measured: ``model, seed`` of each."""
    found = _line_up(settings, config, Manifest.model_validate(dataset_manifest))
    for model, why in found.left_out.items():
        _log.info("%s is left out: %s", model, why)
    return list(found.items)


def measure(settings: Settings, config: CompareConfig, dataset_manifest: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one model at one seed, or find it measured.

    Returns:
        Manifest of kind ``measured model``. ``facts``: ``model, seed, tasks, seconds, figures``.
    """
    return measuring.measure(settings, config, Manifest.model_validate(dataset_manifest), **item).model_dump(mode="json")


def report(
    settings: Settings,
    config: CompareConfig,
    dataset_manifest: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
    airflow_tags: Mapping[str, str],
    title: str = "Comparison of models",
) -> dict[str, Any]:
    """Put all that was measured into one table and one chart, and have them in an MLflow run.

    Args:
        settings: this installation.
        config: of the comparison.
        dataset_manifest: of ``build_dataset``.
        measured: manifests of ``measure``.
        airflow_tags: lead from the MLflow run back to the Airflow run.
        title: of the table and the chart.

    Returns:
        Manifest of kind ``comparison``: ``<uri>/comparison.json``, ``.md`` and ``.png``. ``facts["mlflow"]`` is the run's address.
    """
    dataset, parts = Manifest.model_validate(dataset_manifest), [Manifest.model_validate(each) for each in measured]
    left_out = _line_up(settings, config, dataset).left_out
    digest = manifest.digest_of([each.digest for each in parts], left_out, config.bootstrap_samples, title, _code())
    uri = storage.join(settings.store, "comparisons", manifest.dataset_digest(dataset)[:16], "reports", digest[:16])
    done = manifest.find(uri, digest) or _report(settings, config, dataset, parts, left_out, title, uri, digest)
    run_id = runs.log_comparison(
        settings,
        digest,
        params=config.model_dump(mode="json"),
        metrics=done.facts["figures"],
        dataset=dataset,
        folder=storage.local_folder(uri, settings.scratch),
        airflow_tags=airflow_tags,
    )
    address = runs.run_url(settings, run_id)
    _log.info("comparison of %d models: %s, %s", len(done.facts["models"]), storage.join(uri, MARKDOWN_FILE), address)
    told = done.model_dump(mode="json")
    return told | {"facts": told["facts"] | {"mlflow": address}}


def _line_up(settings: Settings, config: CompareConfig, dataset: Manifest) -> Lineup:
    return lineup.line_up(config, settings.views, dataset.facts["tasks"], dataset.facts["skipped"])


def _report(
    settings: Settings,
    config: CompareConfig,
    dataset: Manifest,
    parts: Sequence[Manifest],
    left_out: Mapping[str, str],
    title: str,
    uri: str,
    digest: str,
) -> Manifest:
    scores, seconds = _scores(settings, parts)
    rows = _rows(config, scores, seconds, REFERENCE)
    permutation = _permutation(config, scores, seconds, rows)
    results = [measuring.read_result(part) for part in parts]
    not_done = {f"{each['model']} {label}": why for each in results for label, why in each["left_out"].items()}
    agreement = atlas.stability([each["atlas"] for each in results if each.get("atlas")])
    content = _content(config, dataset, rows, permutation, agreement, results, {**left_out, **not_done})
    made = Manifest(
        kind="comparison",
        uri=uri,
        digest=digest,
        rows={"figures": len(rows)},
        inputs={dataset.uri: dataset.digest, **{part.uri: part.digest for part in parts}},
        config=config.model_dump(mode="json"),
        code=manifest.code_digest(),
        created_at=manifest.now(),
        facts={"models": list(dict.fromkeys(row.model for row in rows)), "figures": content["figures"], "left_out": content["left_out"]},
    )
    with storage.staged_folder(uri, settings.scratch) as folder:
        storage.write_json(str(folder / JSON_FILE), content)
        notes = [*_notes(config, results), *map(_permutation_note, permutation), *map(_atlas_note, agreement)]
        text = presentation.markdown(rows, title, notes, content["left_out"], REFERENCE)
        (folder / MARKDOWN_FILE).write_text(text, encoding="utf-8")
        presentation.chart(rows, title, REFERENCE, folder / CHART_FILE)
        manifest.write(made, str(folder))
    return made


def _scores(settings: Settings, parts: Sequence[Manifest]) -> tuple[Scores, dict[str, float]]:
    """Scores by task, model and seed, and the mean seconds of each model."""
    scores: Scores = {task: {} for task in DOWNSTREAM_TASKS}
    seconds: dict[str, list[float]] = {}
    for part in parts:
        model, number = part.facts["model"], part.facts["seed"]
        seconds.setdefault(model, []).append(part.facts["seconds"])
        for task, table in measuring.read_scores(settings, part).items():
            scores[task].setdefault(model, {})[number] = table
    return scores, {model: round(sum(each) / len(each), 1) for model, each in seconds.items()}


def _rows(config: CompareConfig, scores: Scores, seconds: Mapping[str, float], reference: str) -> list[Row]:
    return [
        row
        for task, of_task in scores.items()
        for row in statistics.rows_of(task, of_task, seconds, reference=reference, samples=config.bootstrap_samples)
    ]


def _permutation(config: CompareConfig, scores: Scores, seconds: Mapping[str, float], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The permutation test of the macro view, where the models that it needs were measured."""
    able = {task: of_task for task, of_task in scores.items() if {REFERENCE, ONE_VIEW, SHUFFLED} <= of_task.keys()}
    pairs: Scores = {task: {name: of_task[name] for name in (ONE_VIEW, SHUFFLED)} for task, of_task in able.items()}
    shuffled = _rows(config, pairs, seconds, SHUFFLED)
    asked = ((rows, ONE_VIEW), (shuffled, ONE_VIEW), (rows, SHUFFLED))
    main = [[row for row in each if row.model == model and row.metric in MAIN_METRICS[row.task]] for each, model in asked]
    return statistics.permutation_rows(*main)


def _content(
    config: CompareConfig,
    dataset: Manifest,
    rows: Sequence[Row],
    permutation: Sequence[Mapping[str, Any]],
    agreement: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    told = ("cut_time", "horizon_days", "tasks", "skipped")
    shown = [row for of_figure in presentation.panels(rows).values() for row in of_figure]
    return {
        "created_at": manifest.now(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in _LIBRARIES},
        "dataset": {"rows": dataset.rows, **{name: dataset.facts[name] for name in told if name in dataset.facts}},
        "settings": config.model_dump(mode="json", exclude={"recbole_scores"}),
        "notes": _notes(config, results),
        "tuning": {model: _of_model(results, model) for model in dict.fromkeys(each["model"] for each in results)},
        "left_out": dict(left_out),
        "figures": {f"{row.label}/{row.metric}/{row.model}": row.mean for row in shown},
        "permutation": list(permutation),
        "atlas": list(agreement),
        "rows": [row.to_json() for row in rows],
    }


def _of_model(results: Sequence[Mapping[str, Any]], model: str) -> dict[str, Any]:
    """What tuning chose, and the validation figures, by seed."""
    return {str(each["seed"]): {part: each[part] for part in ("tuning", "validation")} for each in results if each["model"] == model}


def _notes(config: CompareConfig, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the figures came about."""
    tried = ", ".join(f"{model} {' or '.join(map(str, numbers))}" for model, numbers in measuring.settings_tried(results).items())
    return [
        f"Seeds {config.seed} to {config.seed + config.seeds - 1}; same users, same splits, same cut for all.",
        f"Networks of this project: {measuring.NOT_TUNED}, stopped early on validation.",
        *([f"Rivals: settings tried, the best on validation kept: {tried}. With fewer than two nothing was chosen."] if tried else []),
        f"Over users: {config.bootstrap_samples} bootstrap resamples of the test users, of the mean over seeds. "
        f"The verdict on {REFERENCE} is by the interval of the difference over users.",
        "Over seeds: t-interval of the mean, and a paired t-test. A model without chance has no spread.",
    ]


def _permutation_note(row: Mapping[str, Any]) -> str:
    gain, shuffled, difference = (
        f"{value:+.4f} ({low:+.4f} to {high:+.4f})" if None not in (value, low, high) else "undefined"
        for value, low, high in (row["gain"], row["shuffled_gain"], row["difference"])
    )
    return (
        f"Permutation test, {row['label']} {row['metric']}: the network gains {gain} over {ONE_VIEW}, with macro shuffled across users "
        f"{shuffled}, real minus shuffled {difference}: {row['verdict'] or 'undefined'}"
    )


def _atlas_note(row: Mapping[str, Any]) -> str:
    return (
        f"Alignment atlas, {row['part']}: Spearman's correlation between seeds {row['mean']:.3f} in the mean, "
        f"{row['lowest']:.3f} at least ({row['pairs']} pairs of seeds)"
    )


def _code() -> str:
    """Digest of what turns scores into a report."""
    folder = Path(__file__).resolve().parent
    sources = [Path(__file__), *sorted((folder / "comparison").glob("*.py"))]
    return manifest.digest_of(manifest.code_digest(), [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources])
