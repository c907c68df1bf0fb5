"""Curated logs to a point-in-time dataset: the engine says who and until when, the core encodes, proves and writes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.config import DatasetConfig
from mfn_core.data import fitting, window
from mfn_core.data.attributes import AttributeLabels, attribute_labels, learnable_and_measurable
from mfn_core.data.dataset import MISSING, DatasetFacts, Shard, read_shard, shard_path, write_facts, write_shard
from mfn_core.data.held_out import HELD_OUT_EVENTS
from mfn_core.data.leaks import CheckedShards, LeakProof, check_shard, prove_no_leak
from mfn_core.data.sequences import build_histories
from mfn_core.data.splits import codes_of_hashes, user_hashes
from mfn_core.data.summary import Summary, summarize
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.data.window import Window
from mfn_core.errors import ArtifactError, InsufficientDataError
from mfn_core.schema import DOWNSTREAM_TASKS, LOGS, SPLITS, USER_ID, DownstreamTask, LogSchema, MaskSeen, View
from tasks import audit, curated, engine, locks, manifest, storage
from tasks.coded_events import CodedEvents
from tasks.events import Events
from tasks.manifest import Manifest
from tasks.settings import Settings

_log = logging.getLogger(__name__)

KIND = "dataset"
_NO_ITEM_LOG = "this deployment has no item log"


@dataclass(frozen=True)
class _Population:
    """The users of the dataset, shard by shard, sorted by id within one, with their labels."""

    user_ids: NDArray[np.object_]
    shard_starts: NDArray[np.int64]  # [num_shards + 1]
    split_B: NDArray[np.int8]
    activity_time_B: NDArray[np.int64]
    attributes: AttributeLabels

    def shards(self) -> Iterator[tuple[int, slice]]:
        """Number and rows of each shard."""
        for number, (start, stop) in enumerate(zip(self.shard_starts[:-1], self.shard_starts[1:], strict=True)):
            yield number, slice(int(start), int(stop))


def build_dataset(settings: Settings, config: DatasetConfig, planned: Mapping[str, Any], *, mask_seen: MaskSeen) -> dict[str, Any]:
    """Build the dataset of a plan, or return the finished one; where another process builds the same, wait for it.

    Args:
        settings: where the curated logs and the datasets are.
        config: cut, horizon, attributes, vocabularies, splits.
        planned: of ``plan_training``: its ``days`` are read, its ``fingerprint`` names the artifact, its ``inputs`` must still be there.
        mask_seen: as rankings will be asked to; where they leave out items the user has met whatever the data are, targets that return
            are warned of.

    Returns:
        The manifest, as JSON.

    Raises:
        ArtifactError: a curated day or the users table has changed since it was planned.
        ConfigError: the cut, the horizon or an attribute does not fit the data.
        InsufficientDataError: too few users, a label of one class, a view of the deployment without a curated day, or nothing to learn.
        LeakError: what was written breaks a rule of point-in-time.
        AuditError: the dataset fails its suite.
    """
    fingerprint = planned["fingerprint"]
    uri = storage.join(settings.store, "datasets", fingerprint[:16])
    with locks.taken(settings, f"dataset-{fingerprint[:16]}"):
        if finished := manifest.find(uri, fingerprint):
            _log.info("nothing to do: dataset %s is already built", uri)
            return finished.model_dump(mode="json")
        return _build(settings, config, planned, uri, mask_seen=mask_seen).model_dump(mode="json")


def _build(settings: Settings, config: DatasetConfig, planned: Mapping[str, Any], uri: str, *, mask_seen: MaskSeen) -> Manifest:
    fingerprint, days = planned["fingerprint"], [date.fromisoformat(day) for day in planned["days"]]
    partitions = {view: _partitions(settings, LOGS[view], *days) for view in settings.views}
    users = curated.users(settings)
    _check_planned(planned, partitions, users)
    with engine.connect(settings) as connection, storage.staged_folder(uri, settings.scratch) as folder:
        events = Events.load(connection, partitions)
        chosen = _choose_window(events, config)
        user_table = None if users is None else engine.read_parquet(connection, curated.part_uris(users)).to_pyarrow()
        population = _population(events, chosen, user_table, config)
        facts = _facts(chosen, population, events, user_table, config)
        _log.info("%d users with an event before the cut %s", len(population.user_ids), _iso(chosen.cut))
        vocabularies = _write_shards(settings, partitions, population, facts, config.min_count, folder)
        proof, summary = _read_again(settings, folder, facts, chosen, vocabularies)
        facts = _with_recommendation_checked(facts, summary)
        write_facts(folder, facts, vocabularies)
        verdict = _audit(settings, summary, config, fingerprint, mask_seen=mask_seen)
        said = {"cut_time": _iso(facts.cut), "left_out_attributes": population.attributes.left_out, "verdict": verdict.as_fact()}
        result = Manifest(
            kind=KIND,
            uri=uri,
            digest=fingerprint,
            rows=_rows(summary, vocabularies),
            inputs={each.uri: each.digest for each in chain(*partitions.values(), [users] if users else [])},
            config=config.model_dump(mode="json", include=set(DatasetConfig.model_fields)),
            code=manifest.code_digest(),
            created_at=manifest.now(),
            facts=asdict(facts) | said | {"leak_proof": {task: asdict(proof[task]) for task in facts.tasks}},
        )
        manifest.write(result, str(folder))
    _log.info("dataset %s: %s", uri, ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in result.rows.items()))
    for task, why in facts.skipped.items():
        _log.info("%s is left out: %s", task, why)
    return result


def _partitions(settings: Settings, log: LogSchema, first_day: date, last_day: date) -> list[Manifest]:
    found = curated.partitions(settings, log, first_day, last_day)
    if any(each.rows["accepted"] for each in found):
        return found
    others = ", ".join(f'"{view}"' for view in settings.views if view != log.view)
    remedy = f"; or set MFN_VIEWS='[{others}]' if this deployment has no such log" if others else ""
    raise InsufficientDataError(
        f"{log.dataset} has no curated rows from {first_day} to {last_day} under {curated.log_uri(settings, log)}; ingest it{remedy}"
    )


def _check_planned(planned: Mapping[str, Any], partitions: Mapping[View, list[Manifest]], users: Manifest | None) -> None:
    """Refuse inputs that the fingerprint does not cover; a retry would meet them again, since the plan stays what it is."""
    found = manifest.digest_of(*curated.content(partitions, users))
    if found == planned["inputs"]:
        return
    latest = max(chain(*partitions.values(), [users] if users else []), key=lambda each: each.created_at)
    raise ArtifactError(
        f"the curated days from {' to '.join(planned['days'])} or the users table have changed since they were planned "
        f"(digest {found[:16]}, planned {planned['inputs'][:16]}); published last was {latest.uri}, "
        f"at {latest.created_at}. Plan again: clear the task plan and what follows it"
    )


def _choose_window(events: Events, config: DatasetConfig) -> Window:
    ends = {view: window.end_of_data(last) for view, last in events.last_times().items()}
    cut = None if config.cut is None else window.seconds_of(config.cut)
    if "micro" not in ends:
        return Window(ends["macro"] if cut is None else cut, None, _NO_ITEM_LOG)
    _tell_ends(ends)
    first_event_U, micro_event_U = events.user_spans(cut)
    # The end of the item log: a horizon that reaches beyond it would call those inactive whose events are not there yet.
    chosen = window.choose_window(
        start=window.seconds_of(window.day_of(events.first_time("micro"))),
        end=ends["micro"],
        cut=config.cut,
        horizon_days=config.horizon_days,
        first_event_U=first_event_U,
        micro_event_U=micro_event_U,
    )
    return replace(chosen, cut=max(ends.values())) if chosen.horizon_days is None and cut is None else chosen


def _tell_ends(ends: Mapping[View, int]) -> None:
    if len(set(ends.values())) > 1:
        days = ", ".join(f"{LOGS[view].dataset} before {window.day_of(end)}" for view, end in ends.items())
        _log.warning("the logs end on different days (%s): if one is incomplete, ingest the rest of it and train again", days)


def _population(events: Events, chosen: Window, users: pa.Table | None, config: DatasetConfig) -> _Population:
    user_ids = events.users_before(chosen.cut)
    if len(user_ids) < config.min_users:
        raise InsufficientDataError(
            f"{len(user_ids)} users have an event before the cut {_iso(chosen.cut)}, min_users={config.min_users}; "
            "ingest more days or users, choose a later cut, or lower min_users"
        )
    hashes = user_hashes(user_ids, config.split_seed)
    shard_of = (hashes % np.uint64(config.num_shards)).astype(np.int64)
    by_shard = np.argsort(shard_of, kind="stable")
    user_ids, split_B = user_ids[by_shard], codes_of_hashes(hashes[by_shard])
    for code, split in enumerate(SPLITS):
        if not (split_B == code).any():
            raise InsufficientDataError(
                f"not one of the {len(user_ids)} users falls into the {split} split at split_seed={config.split_seed}; "
                "ingest more users, or choose another split_seed"
            )
    nobody = pa.table({USER_ID: pa.array([], pa.string())})
    labels = attribute_labels(nobody if users is None else users, user_ids, config.attributes)
    return _Population(
        user_ids=user_ids,
        shard_starts=np.append(0, np.cumsum(np.bincount(shard_of, minlength=config.num_shards))),
        split_B=split_B,
        activity_time_B=events.activity_times(chosen, user_ids),
        attributes=learnable_and_measurable(labels, split_B, named=config.attributes is not None),
    )


def _facts(chosen: Window, population: _Population, events: Events, users: pa.Table | None, config: DatasetConfig) -> DatasetFacts:
    skipped: dict[str, str] = {}
    if chosen.horizon_days is None:
        skipped["activity"] = chosen.reason
    if not population.attributes.classes:
        no_column = "none is asked for" if config.attributes == () else _no_attribute(population.attributes.left_out)
        skipped["attribute"] = "there is no users table" if users is None else no_column
    if "micro" not in events.logs:
        skipped["recommendation"] = _NO_ITEM_LOG
    return DatasetFacts(
        cut=chosen.cut,
        horizon_days=chosen.horizon_days,
        attribute_classes=population.attributes.classes,
        tasks=_runnable(skipped),
        skipped=skipped,
        num_shards=config.num_shards,
    )


def _no_attribute(left_out: Mapping[str, str]) -> str:
    reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
    return f"no column of the users table can be predicted ({reasons})" if reasons else "the users table has no column but user_id"


def _with_recommendation_checked(facts: DatasetFacts, summary: Summary) -> DatasetFacts:
    if summary.held_out_events or "recommendation" in facts.skipped:
        return facts
    why = f"no user has more than {HELD_OUT_EVENTS} item events before the cut: nothing can be held out"
    skipped = facts.skipped | {"recommendation": why}
    return replace(facts, skipped=skipped, tasks=_runnable(skipped))


def _runnable(skipped: dict[str, str]) -> tuple[DownstreamTask, ...]:
    tasks = tuple(task for task in DOWNSTREAM_TASKS if task not in skipped)
    if not tasks:
        reasons = "; ".join(f"{task}: {why}" for task, why in skipped.items())
        raise InsufficientDataError(f"no downstream task can run ({reasons}); bring an item log or a users table with attributes")
    return tasks


def _write_shards(
    settings: Settings,
    partitions: Mapping[View, Sequence[Manifest]],
    population: _Population,
    facts: DatasetFacts,
    min_count: int,
    folder: Path,
) -> Vocabularies:
    """Write the shards, one in the memory of a thread at a time: first in a draft coding, then in that of the fitted vocabularies."""
    names = tuple(facts.attribute_classes)
    with storage.temporary_folder(settings.scratch) as drafts, ThreadPoolExecutor(settings.duckdb_threads) as pool:
        coded = CodedEvents.write(partitions, population.user_ids, population.shard_starts, facts.cut, drafts)
        draft = coded.draft_vocabularies()

        def write_draft(numbered: tuple[int, slice]) -> fitting.Counts:
            number, part = numbered
            histories = build_histories(*(coded.of_shard(view, number, part) for view in LOGS), population.user_ids[part], draft)
            is_active_B = population.activity_time_B[part] != MISSING
            shard = Shard(
                histories=histories,
                split_B=population.split_B[part],
                activity_B=np.where(facts.horizon_days is None, MISSING, is_active_B).astype(np.int8),
                activity_time_B=population.activity_time_B[part],
                attributes_BA=population.attributes.labels_UA[part],
            )
            write_shard(shard_path(drafts, number), shard, names)
            return fitting.count_training_events([histories], draft)

        def write_final(number: int) -> None:
            shard = read_shard(shard_path(drafts, number), facts.attribute_classes)
            final = replace(shard, histories=fitting.encode_again(shard.histories, draft, vocabularies))
            write_shard(shard_path(folder, number), final, names)

        # Added as they come: the counts of all shards, each over the whole vocabularies, are not in memory at once.
        counts = reduce(_added, pool.map(write_draft, population.shards()))
        vocabularies = fitting.fit_vocabularies(draft, counts, min_count)
        list(pool.map(write_final, range(facts.num_shards)))
    return vocabularies


def _read_again(
    settings: Settings, folder: Path, facts: DatasetFacts, chosen: Window, vocabularies: Vocabularies
) -> tuple[dict[DownstreamTask, LeakProof], Summary]:
    """Prove and count the shards as they were written, one in the memory of a thread at a time; the first one with a leak is told."""

    def read(number: int) -> tuple[CheckedShards, Summary]:
        shard = read_shard(shard_path(folder, number), facts.attribute_classes)
        return check_shard(shard, chosen, vocabularies), summarize([shard], chosen)

    with ThreadPoolExecutor(settings.duckdb_threads) as pool:
        parts = pool.map(read, range(facts.num_shards))
        checked, summary = reduce(lambda former, part: (former[0] + part[0], former[1] + part[1]), parts)
    return prove_no_leak(checked, vocabularies), summary


def _added(counts: fitting.Counts, others: fitting.Counts) -> fitting.Counts:
    return {name: counts[name] + others[name] for name in counts}


def _audit(settings: Settings, summary: Summary, config: DatasetConfig, fingerprint: str, *, mask_seen: MaskSeen) -> audit.Verdict:
    from expectations.dataset import suite

    name = f"dataset-{fingerprint[:16]}"
    row = {
        "dataset": name,
        "num_users": summary.users,
        **{f"num_{split}": getattr(summary, f"{split}_users") for split in SPLITS},
        "split_mismatch": summary.users - summary.train_users - summary.validation_users - summary.test_users,
        "leak_violations": summary.leaks,
        "null_tokens": summary.null_events,
        "events_after_cut": summary.events_after_cut,
        "unknown_share": summary.unknown_share,
        "empty_histories": summary.empty_users,
        "returning_share": summary.returning_share if mask_seen == "on" else None,
    }
    frame = pd.DataFrame([row]).astype({"returning_share": float})
    return audit.judge(frame, suite(config.min_users), name, settings)


def _rows(summary: Summary, vocabularies: Vocabularies) -> dict[str, int]:
    counted = (
        "users",
        *(f"{split}_users" for split in SPLITS),
        "active_users",
        "macro_events",
        "micro_events",
        "held_out_events",
        "returning_targets",
    )
    return {name: getattr(summary, name) for name in counted} | {
        "apps": len(vocabularies.macro_id.tokens),
        "app_categories": len(vocabularies.macro_category.tokens),
        "items": len(vocabularies.micro_id.tokens),
        "item_categories": len(vocabularies.micro_category.tokens),
    }


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
