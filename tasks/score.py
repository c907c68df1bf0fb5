"""Batch scoring: every user of the curated logs, as of a day, by the model behind an alias.

The engine sorts both logs by user once, spilling to disk, and hands them over in pieces of whole users; each is encoded with the
model's own vocabularies, answered, and written. Memory depends on the size of a piece, not on the number of users.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from mfn_core.data.sequences import build_histories
from mfn_core.data.window import seconds_of
from mfn_core.errors import ArtifactError, ConfigError, InsufficientDataError
from mfn_core.inference.predictor import Predictions, Predictor
from mfn_core.schema import EVENT_TIME, LOGS, SEQ_NO, USER_ID, LogSchema, View
from tasks import audit, curated, engine, manifest, storage
from tasks.dag_configs import ScoreConfig
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT, models, registry
from tasks.tracking.registry import Version
from tasks.validated import Published, is_any_validated, is_refused, named, published_days, validated_uri

SCORES_FILE = "part-00000.parquet"
_EVENTS_PER_PIECE = 200_000
_VIEW, _ID, _CATEGORY = "view", "id", "category"
_log = logging.getLogger(__name__)


def plan_score(settings: Settings, config: ScoreConfig) -> dict[str, Any]:
    """What scoring would do now.

    Returns:
        ``version, as_of`` (ISO day), ``uri, digest``, and ``skip``: None, or why there is nothing to do. Scores that are finished, but
        that another version's of the same day came after, are work: after a rollback somebody has to say that they hold again.

    Raises:
        ConfigError: an alias other than champion names no version, or the champion was lost.
        InsufficientDataError: no curated events before ``as_of`` that may be read.
    """
    if config.alias == registry.CHAMPION and registry.version_of(settings, config.alias) is None:
        if lost := registry.lost_champion(settings):
            raise ConfigError(lost)
        return {"skip": f"model {settings.model_name} has no champion yet: run mfn_train, then mfn_promote"}
    work = _plan(settings, config, config.alias, config.as_of)
    done = manifest.find(work.uri, work.digest)
    is_said = done is not None and not _is_followed(settings, work, done)
    why = f"version {work.version.number} has scored these logs as of {work.as_of} already: {work.uri}" if is_said else None
    return {"version": work.version.number, "as_of": str(work.as_of), "uri": work.uri, "digest": work.digest, "skip": why}


def score(settings: Settings, config: ScoreConfig, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Score every user with an event before ``as_of``, audit the scores and publish them.

    Days that were refused or never validated are not read, wherever any day was validated: the manifest names them as ``left_out``, and
    when one is mended and validated, the scores are others.

    Args:
        settings: this installation.
        config: of the DAG run.
        planned: of ``plan_score``: its version and day hold even if the alias has moved on since.

    Returns:
        Manifest of kind ``scores``, of an earlier run where version and logs are the same.

    Raises:
        ConfigError: the version is gone.
        InsufficientDataError: no curated events before ``as_of`` that may be read.
        AuditError: the scores fail their suite; nothing is published.
    """
    work = _plan(settings, config, planned["version"], date.fromisoformat(planned["as_of"]))
    if done := manifest.find(work.uri, work.digest):
        _log.info("%s is scored already: its scores hold, and nothing is computed", work.uri)
        # The latest of the day is what readers were told of last.
        done = done.model_copy(update={"created_at": manifest.now(), "facts": done.facts | {"left_out": work.left_out}})
        manifest.write(done)
        return done.model_dump(mode="json")
    with models.bundle_of(settings, work.version) as bundle:
        predictor = Predictor.load(bundle)
    with engine.connect(settings) as connection, storage.staged_folder(work.uri, settings.scratch) as folder:
        events = _events(connection, work.inputs)
        tally = _write(folder / SCORES_FILE, _pieces(events), predictor, work, config)
        known_users = int(events[USER_ID].nunique().execute())
        verdict = _audit(settings, tally, known_users, work)
        made = Manifest(
            kind="scores",
            uri=work.uri,
            digest=work.digest,
            rows={"users": tally.users, "events": tally.events},
            inputs={each.uri: each.digest for found in work.inputs.values() for each in found},
            config=config.model_dump(mode="json"),
            code=manifest.code_digest(),
            created_at=manifest.now(),
            facts={
                "files": [SCORES_FILE],
                "as_of": str(work.as_of),
                "left_out": work.left_out,
                "model": settings.model_name,
                "version": work.version.number,
                "tasks": list(predictor.tasks),
                "horizon_days": predictor.bundle.facts.get("horizon_days"),  # of activity_probability
                "mask_seen": predictor.masks_seen,  # of top_items
                "verdict": verdict.as_fact(),
            },
        )
        manifest.write(made, str(folder))
    _log.info("%d users scored by version %d as of %s: %s", tally.users, work.version.number, work.as_of, work.uri)
    return made.model_dump(mode="json")


@dataclass(frozen=True)
class _Work:
    """What to score with what."""

    version: Version
    as_of: date
    inputs: dict[View, list[Manifest]]
    left_out: list[str]
    uri: str
    digest: str

    @property
    def query_time(self) -> int:
        """Seconds UTC; later events are not read."""
        return seconds_of(self.as_of)


@dataclass
class _Tally:
    """What the audit asks of the scores, counted while they are written."""

    users: int = 0
    events: int = 0
    not_finite: int = 0
    outside_unit: int = 0
    largest_sum_error: float = 0.0
    without_items: int = 0
    repeated_items: int = 0
    activity_sum: float = 0.0
    last_user: str | None = None
    repeated_users: int = 0

    def add(self, said: Predictions, num_events: int) -> None:
        """Count one piece. Users come sorted, so a repeated one is not above its predecessor."""
        probabilities = [*said.attributes.values()] + ([] if said.activity_B is None else [said.activity_B[:, None]])
        names = [*([] if self.last_user is None else [self.last_user]), *said.user_ids]
        self.users += len(said)
        self.events += num_events
        self.not_finite += sum(int((~np.isfinite(values)).any(axis=1).sum()) for values in [said.embedding_BD, *probabilities])
        self.outside_unit += sum(int(((values < 0) | (values > 1)).sum()) for values in probabilities)
        for probability_BC in said.attributes.values():
            self.largest_sum_error = max(self.largest_sum_error, float(np.abs(probability_BC.sum(axis=1) - 1).max(initial=0)))
        self.without_items += sum(len(items) == 0 for items in said.top_items)
        self.repeated_items += sum(len(set(items)) < len(items) for items in said.top_items)
        self.activity_sum += 0.0 if said.activity_B is None else float(said.activity_B.sum())
        self.repeated_users += sum(left.encode() >= right.encode() for left, right in pairwise(names))
        self.last_user = str(said.user_ids[-1])


def _plan(settings: Settings, config: ScoreConfig, number_or_alias: int | str, as_of: date | None) -> _Work:
    version = registry.require_version(settings, number_or_alias)
    published = published_days(settings, None, as_of - timedelta(days=1) if as_of else None)
    days = sorted({day for found in published.values() for day in found})
    readable = _readable(settings, published, days)
    as_of = as_of or _day_after_last(settings, readable or set(days))
    inputs = {view: [each for day, each in found.items() if day in readable] for view, found in published.items()}
    left_out = [day for day in days if day < as_of and day not in readable]
    if left_out:
        _log.warning("%d days before %s were refused or never validated, and are not read: %s", len(left_out), as_of, named(left_out))
    if not any(each.rows.get("accepted", 1) for found in inputs.values() for each in found):
        remedy = f"run mfn_validate for {named(left_out)}" if left_out else "ingest logs or choose a later day"
        raise InsufficientDataError(f"no curated events before as_of={as_of} under {settings.store} that may be read; {remedy}")
    digests = sorted((each.uri, each.digest) for found in inputs.values() for each in found)
    return _Work(
        version=version,
        as_of=as_of,
        inputs=inputs,
        left_out=[str(day) for day in left_out],
        uri=storage.join(settings.store, "scores", f"as_of={as_of}", f"version={version.number}"),
        digest=manifest.digest_of(settings.model_name, version.number, version.tags.get(FINGERPRINT), config.top_k, digests),
    )


def _readable(settings: Settings, published: Published, days: list[date]) -> set[date]:
    """The days that were validated and not refused since; all of them in an installation that validates none.

    A day that has late rows since its verdict is read as well: it waits for its judgement as long as another log of the day that
    brought them does, and to score without all of its rows would be worse.
    """
    if not is_any_validated(settings):
        return set(days)
    return {day for day in days if storage.exists(validated_uri(settings, day)) and not is_refused(settings, published, day)}


def _day_after_last(settings: Settings, days: set[date]) -> date:
    if not days:
        raise InsufficientDataError(f"there are no curated logs under {settings.store}; run mfn_ingest_app_logs and mfn_ingest_item_logs")
    return max(days) + timedelta(days=1)


def _is_followed(settings: Settings, work: _Work, done: Manifest) -> bool:
    """Whether another version has scored the day since: readers were told of its scores last."""
    day = storage.join(settings.store, "scores", f"as_of={work.as_of}")
    for uri in (storage.join(day, name) for name in storage.list_names(day)):
        with suppress(ArtifactError):  # it was never finished
            if manifest.read(uri).created_at > done.created_at:
                return True
    return False


def _events(connection: Backend, inputs: Mapping[View, list[Manifest]]) -> Table:
    """Both logs in one table."""
    tables: list[Table] = []
    for view, found in inputs.items():
        uris = [uri for each in found for uri in curated.part_uris(each)]
        if uris:
            log = LOGS[view]
            rows = engine.read_parquet(connection, uris)
            names = {_VIEW: ibis.literal(view), _ID: rows[log.id], _CATEGORY: rows[log.category]}
            tables.append(rows.select(USER_ID, EVENT_TIME, SEQ_NO, **names))
    return ibis.union(*tables) if len(tables) > 1 else tables[0]


def _pieces(events: Table) -> Iterator[pa.Table]:
    """Sorted events of whole users, about 200,000 at a time; a user is never in two pieces."""
    # Category last: rows that differ in nothing else still come in the same order on every run.
    ordered = events.order_by([USER_ID, _VIEW, EVENT_TIME, SEQ_NO, _ID, _CATEGORY])
    rest: pa.Table | None = None
    for batch in ordered.to_pyarrow_batches(chunk_size=_EVENTS_PER_PIECE):
        table = pa.Table.from_batches([batch])
        table = table if rest is None else pa.concat_tables([rest, table])
        if len(table) == 0:
            continue
        users = table[USER_ID]
        start_of_last = pc.index(users, users[-1]).as_py()
        if start_of_last:
            yield table.slice(0, start_of_last)
        rest = table.slice(start_of_last)
    if rest is not None:
        yield rest


def _write(path: Path, pieces: Iterator[pa.Table], predictor: Predictor, work: _Work, config: ScoreConfig) -> _Tally:
    tally = _Tally()
    writer: pq.ParquetWriter | None = None
    try:
        for piece in pieces:
            users = pc.unique(piece[USER_ID]).to_pylist()
            tables = {view: _of_view(piece, LOGS[view]) for view in LOGS}
            histories = build_histories(tables["macro"], tables["micro"], users, predictor.bundle.vocabularies, is_sorted=True)
            said = predictor.predict(histories, query_time=work.query_time, top_k=config.top_k, batch_size=config.batch_size)
            tally.add(said, len(piece))
            rows = _table(said, work)
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_table(rows)
            _log.info("%d users scored", tally.users)
    finally:
        if writer is not None:
            writer.close()
    return tally


def _of_view(piece: pa.Table, log: LogSchema) -> pa.Table:
    rows = piece.filter(pc.equal(piece[_VIEW], log.view))
    return pa.table({USER_ID: rows[USER_ID], EVENT_TIME: rows[EVENT_TIME], log.id: rows[_ID], log.category: rows[_CATEGORY]})


def _table(said: Predictions, work: _Work) -> pa.Table:
    """One row per user: ``attribute_<name>`` is a struct of class probabilities; what the model did not learn is null or absent."""
    size = len(said)
    activity = pa.nulls(size, pa.float32()) if said.activity_B is None else pa.array(said.activity_B)
    columns: dict[str, pa.Array] = {
        USER_ID: pa.array(said.user_ids, pa.string()),
        "embedding": pa.array(list(said.embedding_BD), pa.list_(pa.float32())),
        "activity_probability": activity,
    }
    for name, probability_BC in said.attributes.items():
        shares = [pa.array(column) for column in np.ascontiguousarray(probability_BC.T)]
        columns[f"attribute_{name}"] = pa.StructArray.from_arrays(shares, names=list(said.attribute_classes[name]))
    columns["top_items"] = pa.array(said.top_items, pa.list_(pa.string()))
    columns["top_scores"] = pa.array(said.top_scores, pa.list_(pa.float32()))
    columns["model_version"] = pa.array(np.full(size, work.version.number))
    columns["as_of"] = pa.array([work.as_of] * size, pa.date32())
    return pa.table(columns)


def _audit(settings: Settings, tally: _Tally, known_users: int, work: _Work) -> audit.Verdict:
    from expectations.scores import suite

    name = f"scores-{work.as_of}-version-{work.version.number}"
    row = {
        "scores": name,
        "users": tally.users,
        "missing_users": known_users - tally.users,
        "repeated_users": tally.repeated_users,
        "not_finite": tally.not_finite,
        "outside_unit": tally.outside_unit,
        "largest_sum_error": tally.largest_sum_error,
        "without_items": tally.without_items,
        "repeated_items": tally.repeated_items,
        "mean_activity": tally.activity_sum / max(tally.users, 1),
    }
    return audit.judge(pd.DataFrame([row]), suite(), name, settings)
