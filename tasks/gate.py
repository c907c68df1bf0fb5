"""May a new model stand for champion? Paired bootstrap against the champion on the test users of the current dataset."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from mfn_core.data.dataset import Dataset
from mfn_core.data.fitting import encode_again
from mfn_core.errors import ArtifactError
from mfn_core.evaluation.comparison import Comparison, compare
from mfn_core.evaluation.evaluator import score
from mfn_core.inference.predictor import Predictor
from tasks import storage
from tasks.dag_configs import TrainConfig
from tasks.evaluate import SCORES_FILE
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT, models, registry
from tasks.tracking.registry import Version

_RESAMPLES_PER_LABEL = 100  # so that two or three lie beyond each end of an interval, however many labels share the error
_log = logging.getLogger(__name__)


def gate(
    settings: Settings,
    config: TrainConfig,
    dataset_manifest: Mapping[str, Any],
    training_manifest: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Compare with the champion, task by task and attribute by attribute, where both can do it.

    A candidate passes when there is no champion, or when it answers all that the champion answers and nowhere the whole interval of
    candidate minus champion lies below zero. All intervals together hold with about 95 %: with one of 95 % for each of twenty attributes,
    every third model that is as good as the champion would fail. Where a champion was lost the reason says so, and a person is to promote.

    Returns:
        ``passed, reason, champion`` (version or None), ``comparisons`` (the evidence table) and ``caveats``.

    Raises:
        ArtifactError: the champion does not load; the message says how to go on without it.
    """
    champion = registry.version_of(settings, registry.CHAMPION)
    if champion is None:
        lost = registry.lost_champion(settings)
        return _verdict(True, f"compared with nothing: {lost}" if lost else "there is no champion yet", None, [], [])
    if champion.tags.get(FINGERPRINT) == training_manifest["digest"]:
        return _verdict(True, f"version {champion.number} is the champion itself", champion, [], [])
    try:
        with models.bundle_of(settings, champion) as bundle:
            predictor = Predictor.load(bundle, config.device)
    except ArtifactError as error:
        raise ArtifactError(
            f"champion version {champion.number} of {settings.model_name} cannot be read: {error}. To train on, promote another version "
            f"with mfn_promote, or delete the alias {registry.CHAMPION} in MLflow, so that this model is compared with nothing; then "
            "clear this task. Without the alias a person is to promote it"
        ) from error
    dataset = Manifest.model_validate(dataset_manifest)
    opened = Dataset.open(storage.local_folder(dataset.uri, settings.scratch))
    # By the dataset's own ids, as the candidate was: of items that the champion lacks nobody could tell that they return.
    mask_seen = opened.masks_seen(config.mask_seen)
    data = _as_read_by(predictor, opened)
    comparisons, caveats = _compare(settings, config, data, evaluations, champion, predictor, mask_seen=mask_seen)
    if lost := _lost(predictor, data, evaluations):
        reason = (
            f"champion version {champion.number} also answers {', '.join(lost)}, which this model was not trained for or not evaluated on; "
            f"where that is meant, delete the alias {registry.CHAMPION} in MLflow and clear this task: the model is compared with nothing, "
            "and a person is to promote it"
        )
        return _verdict(False, reason, champion, comparisons, caveats)
    worse = [_sentence(each) for each in comparisons if each.verdict == "worse"]
    for each in comparisons:
        _log.info("%s", _sentence(each))
    if worse:
        return _verdict(False, f"worse than champion version {champion.number}: {'; '.join(worse)}", champion, comparisons, caveats)
    return _verdict(True, f"nowhere worse than champion version {champion.number}", champion, comparisons, caveats)


def _compare(
    settings: Settings,
    config: TrainConfig,
    data: Dataset,
    evaluations: Sequence[Mapping[str, Any]],
    champion: Version,
    predictor: Predictor,
    *,
    mask_seen: bool,
) -> tuple[list[Comparison], list[str]]:
    comparisons: list[Comparison] = []
    both = _asked_of_both(data, predictor, evaluations)
    num_labels = sum(len(labels) for labels in both.values())
    samples = max(config.bootstrap_samples, _RESAMPLES_PER_LABEL * num_labels)
    caveats = _caveats(config, data, predictor, champion)
    if both.get("recommendation"):
        caveats += _caveat_of_the_rule(predictor, mask_seen=mask_seen)
    for evaluation in evaluations:
        task = evaluation["facts"]["task"]
        if not both[task]:
            caveats.append(f"{task} is not compared: the champion does not do it")
            continue
        scores = pq.read_table(storage.local_folder(evaluation["uri"], settings.scratch) / SCORES_FILE)
        rival = score(predictor, data, task, split="test", mask_seen=mask_seen, batch_size=config.evaluation_batch_size)
        found = compare(task, rival, scores, samples=samples, seed=config.seed, num_together=num_labels)
        decided = {each.label for each in found if each.verdict != "undefined"}
        caveats += [f"{name} is not compared: its test users have no labels, or of one class" for name in both[task] if name not in decided]
        comparisons += found
    return comparisons, caveats


def _asked_of_both(data: Dataset, predictor: Predictor, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By evaluated downstream task what champion and candidate both answer: the attributes that both know, or the task."""
    attributes = [name for name in data.attribute_classes if name in predictor.bundle.attribute_classes]
    tasks = [evaluation["facts"]["task"] for evaluation in evaluations]
    return {task: [] if task not in predictor.tasks else attributes if task == "attribute" else [task] for task in tasks}


def _lost(predictor: Predictor, data: Dataset, evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the champion answers and the candidate does not, in words."""
    done = {evaluation["facts"]["task"] for evaluation in evaluations}
    lost = [task for task in predictor.tasks if task not in done and task != "attribute"]
    kept = data.attribute_classes.keys() if "attribute" in done else ()
    answered = predictor.bundle.attribute_classes if "attribute" in predictor.tasks else ()
    return [*lost, *(f"attribute {name}" for name in answered if name not in kept)]


def _as_read_by(predictor: Predictor, data: Dataset) -> Dataset:
    """The dataset in the ids of the model's own vocabularies."""
    own = predictor.bundle.vocabularies
    return replace(data, histories=encode_again(data.histories, data.vocabularies, own), vocabularies=own)


def _caveats(config: TrainConfig, data: Dataset, predictor: Predictor, champion: Version) -> list[str]:
    caveats: list[str] = []
    seed = champion.tags.get(registry.SPLIT_SEED, str(config.split_seed))
    if seed != str(config.split_seed):
        caveats.append(f"the champion was trained with split_seed={seed}, not {config.split_seed}: it has seen labels of these test users")
    if predictor.bundle.facts.get("cut", data.cut) > data.cut:
        caveats.append("the champion was trained on later data than this dataset holds: it has seen what comes after the cut")
    days, known = data.horizon_days, predictor.bundle.facts.get("horizon_days")
    if days and known and days != known:
        caveats.append(
            f"the champion tells who is active within {known} days, this model within {days}: activity is compared by the labels of {days} "
            "days, and activity_probability would change its meaning; mfn_promote leaves that to a person"
        )
    return caveats


def _caveat_of_the_rule(predictor: Predictor, *, mask_seen: bool) -> list[str]:
    if predictor.bundle.facts.get("mask_seen", mask_seen) == mask_seen:
        return []
    theirs, ours = ("recommends", "leaves it out") if mask_seen else ("leaves out", "recommends it too")
    return [
        f"the champion {theirs} what a user has met, this model {ours}: both are ranked by the rule of this model, and top_items would "
        "change its meaning; mfn_promote leaves that to a person"
    ]


def _verdict(passed: bool, reason: str, champion: Version | None, comparisons: list[Comparison], caveats: list[str]) -> dict[str, Any]:
    _log.info("gate %s: %s", "passed" if passed else "not passed", "; ".join([reason, *caveats]))
    return {
        "passed": passed,
        "reason": reason,
        "champion": champion.number if champion else None,
        "comparisons": [each.to_json() for each in comparisons],
        "caveats": caveats,
    }


def _sentence(each: Comparison) -> str:
    if each.difference is None or each.low is None:
        return f"{each.label} {each.metric} cannot be compared on {each.n} users"
    return (
        f"{each.label} {each.metric} {each.champion:.4f} -> {each.candidate:.4f}, "
        f"difference {each.difference:+.4f} [{each.low:+.4f}, {each.high:+.4f}] at {100 * each.level:.1f} %, {each.n} users: {each.verdict}"
    )
