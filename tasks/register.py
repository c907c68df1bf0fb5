"""A trained model becomes a version of the registry: logged, loaded again, asked, registered, and only then called candidate."""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mfn_core.data.sequences import raw_columns
from mfn_core.data.window import DAY, day_of
from mfn_core.errors import ArtifactError
from mfn_core.inference.predictor import Predictor
from mfn_core.inference.serving import answer
from mfn_core.schema import PAD, UNKNOWN, USER_ID
from mfn_core.training import BUNDLE
from tasks import manifest, storage
from tasks.dag_configs import TrainConfig
from tasks.evaluate import labelled_facts
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT, models, registry, runs
from tasks.tracking.registry import Version

_GATE_FILE = "gate.json"
_TOLERANCE = 1e-5
_EVENTS_IN_CHECK = 5
_log = logging.getLogger(__name__)


def register(
    settings: Settings,
    config: TrainConfig,
    dataset_manifest: Mapping[str, Any],
    training_manifest: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any],
) -> dict[str, Any]:
    """Register the trained model with its evidence, or find it registered; alias ``candidate`` where the gate passed.

    A version that is there takes over this verdict: the gate may have been run again, against another champion. The alias stays with a
    version that is newer than this one, whose training may be an old one that was cleared.

    Returns:
        ``name, version, aliases, run_id, run_url, gate`` (passed or failed), and ``skip``: None, or why it is no candidate.

    Raises:
        ArtifactError: the logged model does not load, or answers otherwise than the predictor.
    """
    dataset, training = Manifest.model_validate(dataset_manifest), Manifest.model_validate(training_manifest)
    run_id = runs.require_run(settings, training.digest)
    version = registry.find_version(settings, training.digest)
    if version is None:
        verdicts = _log_evidence(settings, run_id, dataset, gate)
        bundle = storage.local_folder(storage.join(training.uri, BUNDLE), settings.scratch)
        model_id = models.log_model(settings, run_id, training.digest, bundle)
        _check(settings, f"models:/{model_id}", bundle)
        tags = _tags(runs.run_tags(settings, run_id), config, dataset, training, evaluations, gate) | verdicts
        version = registry.register_version(settings, run_id, model_id, tags)
        _log.info("registered %s version %d", settings.model_name, version.number)
    else:
        _log.info("%s version %d already has this fingerprint: nothing is registered", settings.model_name, version.number)
        if registry.PROMOTED_AT not in version.tags:  # else its verdict was acted upon, and stays as the evidence of that
            version = _judged_again(settings, run_id, version, gate)
    why_not = _why_no_candidate(settings, version)
    if why_not:
        _log.info("%s", why_not)
    else:
        registry.set_alias(settings, registry.CANDIDATE, version.number)
    runs.set_tags(settings, run_id, {"mfn.model_version": str(version.number)})
    runs.close_run(settings, run_id, succeeded=True)
    return _summary(settings, registry.require_version(settings, version.number)) | {"skip": why_not}


def _judged_again(settings: Settings, run_id: str, version: Version, gate: Mapping[str, Any]) -> Version:
    """The version with this verdict, which may be of another champion than the one that it was registered with."""
    runs.log_json(settings, run_id, gate, _GATE_FILE)
    registry.tag_version(settings, version.number, _verdict_tags(gate))
    if not gate["passed"] and registry.CANDIDATE in version.aliases:
        registry.delete_alias(settings, registry.CANDIDATE)
    return registry.require_version(settings, version.number)


def _why_no_candidate(settings: Settings, version: Version) -> str | None:
    """Why it does not become candidate. None where it does."""
    if registry.CHAMPION in version.aliases:
        return f"version {version.number} is no candidate: it is the champion"
    if promoted_at := version.tags.get(registry.PROMOTED_AT):
        again = f"to make it champion again trigger mfn_promote with version={version.number}"
        return f"version {version.number} is no candidate: it was promoted before, at {promoted_at}; {again}"
    if version.tags[registry.GATE] != registry.PASSED:
        return f"version {version.number} is no candidate: the gate failed: {version.tags[registry.GATE_REASON]}"
    holder = registry.version_of(settings, registry.CANDIDATE)
    if holder is None or not _is_newer(holder, version):
        return None
    return (
        f"{_dated(version)} is no candidate: {_dated(holder)} is, and newer; where the older one is meant, trigger mfn_promote with "
        f"version={version.number}"
    )


def _is_newer(one: Version, other: Version) -> bool:
    """By the end of their data, then by their numbers; versions registered before there was the tag do not say where their data ends."""
    end, other_end = (each.tags.get(registry.DATA_END) for each in (one, other))
    return one.number > other.number if not end or not other_end or end == other_end else end > other_end


def _dated(version: Version) -> str:
    end = version.tags.get(registry.DATA_END)
    return f"version {version.number}" + (f" (data before {end})" if end else "")


def _summary(settings: Settings, version: Version) -> dict[str, Any]:
    return {
        "name": settings.model_name,
        "version": version.number,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "run_url": runs.run_url(settings, version.run_id),
        "gate": version.tags[registry.GATE],
    }


def _log_evidence(settings: Settings, run_id: str, dataset: Manifest, gate: Mapping[str, Any]) -> dict[str, str]:
    """Keep gate and Great Expectations verdicts with the run; returns the tag that sums the verdicts up."""
    verdicts = {uri: verdict for uri in dataset.inputs if (verdict := _input_verdict(uri))}
    if own := dataset.facts.get("verdict"):
        verdicts[dataset.uri] = own
    warned = sum(bool(verdict.get("warnings")) for verdict in verdicts.values())
    tags = {"mfn.expectations": f"passed: {len(verdicts)} artifacts judged, {warned} with warnings"}
    runs.log_json(settings, run_id, verdicts, "expectations/verdicts.json")
    runs.log_json(settings, run_id, gate, _GATE_FILE)
    runs.set_tags(settings, run_id, tags)
    return tags


def _input_verdict(uri: str) -> Any:
    try:
        return manifest.read(uri).facts.get("verdict")
    except ArtifactError:  # re-ingested or moved since the dataset was built: its digest stays in the dataset's manifest
        return None


def _tags(
    run_tags: Mapping[str, str],
    config: TrainConfig,
    dataset: Manifest,
    training: Manifest,
    evaluations: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any],
) -> dict[str, str]:
    tags = {name: value for name, value in run_tags.items() if name.startswith("airflow.")}
    for evaluation in evaluations:
        task = evaluation["facts"]["task"]
        for label, facts in labelled_facts(evaluation["facts"]).items():
            name = task if label == task else f"{task}.{label}"
            summary = {"n": facts["n"], "metrics": facts["metrics"], "intervals": facts["intervals"], "baseline": facts["baseline"]}
            tags[f"mfn.metrics.{name}"] = json.dumps(summary)
        if task == "recommendation":
            tags[registry.MASK_SEEN] = str(evaluation["config"]["mask_seen"])
    return tags | {
        FINGERPRINT: training.digest,
        registry.SPLIT_SEED: str(config.split_seed),
        **_verdict_tags(gate),
        "mfn.dataset.uri": dataset.uri,
        "mfn.dataset.digest": manifest.dataset_digest(dataset),
        "mfn.dataset.cut": str(dataset.facts.get("cut_time", dataset.facts["cut"])),
        registry.HORIZON: str(dataset.facts["horizon_days"]),
        registry.DATA_END: str(day_of(dataset.facts["cut"] + (dataset.facts["horizon_days"] or 0) * DAY)),
        "mfn.dataset.partitions": str(len(dataset.inputs)),
        "mfn.leak_proof": json.dumps(dataset.facts["leak_proof"]),
    }


def _verdict_tags(gate: Mapping[str, Any]) -> dict[str, str]:
    return {
        registry.GATE: registry.PASSED if gate["passed"] else "failed",
        registry.GATE_REASON: gate["reason"],
        registry.GATE_CHAMPION: str(gate["champion"]),
        "mfn.gate.caveats": "; ".join(gate["caveats"]) or "none",
        "mfn.gate.comparisons": json.dumps(gate["comparisons"]),
    }


def _check(settings: Settings, uri: str, bundle: Path) -> None:
    """Load the model as a stranger would and ask it what the predictor is asked."""
    predictor = Predictor.load(bundle)
    request = _request(predictor)
    as_of = request.attrs["as_of"]
    expected = answer(predictor, request, as_of=as_of)
    actual = models.load_model(settings, uri).predict(request, params={"as_of": as_of})
    for column in ("embedding", "top_scores"):
        pairs = zip(expected[column], actual[column], strict=True)
        if not all(len(old) == len(new) and np.allclose(old, new, atol=_TOLERANCE, rtol=_TOLERANCE) for old, new in pairs):
            raise ArtifactError(f"{uri} answers {column} otherwise than the predictor that was evaluated; do not use it, open an issue")


def _request(predictor: Predictor) -> pd.DataFrame:
    """Two users: one who met the most frequent apps and items of the training data, one of whom nothing is known."""
    vocabularies = predictor.bundle.vocabularies
    start = datetime.fromtimestamp(int(predictor.bundle.facts.get("cut", 0)), UTC) - timedelta(days=1)
    known: dict[str, Any] = {USER_ID: "known"}
    for view, ids, categories in (
        ("macro", vocabularies.macro_id, vocabularies.macro_category),
        ("micro", vocabularies.micro_id, vocabularies.micro_category),
    ):
        columns = raw_columns(view)
        events = ids.tokens[:_EVENTS_IN_CHECK].to_pylist()
        first_category = categories.decode(np.array([min(max(PAD, UNKNOWN) + 1, len(categories) - 1)]))[0]
        known[columns["ids"]] = events
        known[columns["categories"]] = [str(first_category)] * len(events)
        known[columns["times"]] = [(start + timedelta(minutes=number)).isoformat() for number in range(len(events))]
    unknown = {column: "unknown" if column == USER_ID else [] for column in known}
    request = pd.DataFrame([known, unknown])
    request.attrs["as_of"] = (start + timedelta(days=1)).isoformat()
    return request
