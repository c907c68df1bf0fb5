"""Batch scoring: every user once, from past events only, whatever the size of a piece; and no work twice."""

from datetime import date

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mfn_core.errors import AuditError, ConfigError, InsufficientDataError
from mfn_core.inference.predictor import Predictor
from mfn_core.schema import APP_LOGS, ITEM_LOGS
from tasks import curated, manifest, storage
from tasks import score as module
from tasks.dag_configs import ScoreConfig
from tasks.manifest import Manifest
from tasks.score import plan_score, score
from tasks.tracking.registry import CHAMPION, PROMOTED_AT, delete_alias, set_alias, tag_version
from tasks.validated import digests, published_days, refused_uri, validated_uri
from tests.factories import app_log, dataset_of, item_log
from tests.tasks.registry import make_champion, store_inputs, store_training

APPS = [
    ("ann", "bank", "finance", "2026-05-01T08:00:00"),
    ("ann", "chat", "social", "2026-05-02T08:00:00"),
    ("cat", "chat", "social", "2026-05-01T08:00:00"),
]
ITEMS = [
    ("ann", "i1", "sports", "2026-05-01T09:00:00"),
    ("ann", "i2", "sports", "2026-05-01T10:00:00"),
    ("ann", "i3", "news", "2026-05-02T09:00:00"),
    ("bob", "i4", "news", "2026-05-01T09:00:00"),
    ("bob", "i1", "sports", "2026-05-02T11:00:00"),
    ("dan", "i2", "sports", "2026-05-03T11:00:00"),
]
USERS = ["ann", "bob", "cat", "dan"]
COLOURS = {"ann": "red", "bob": "blue", "cat": "red", "dan": "blue"}
CONFIG = ScoreConfig(top_k=3, batch_size=2)
FIRST, SECOND, THIRD = (date(2026, 5, day) for day in (1, 2, 3))


def publish(settings, log, rows, digest="1"):
    """The curated days of some rows."""
    table = rows.select(curated.schema(log).names).cast(curated.schema(log))
    days = pc.strftime(table["event_time"], format="%Y-%m-%d")
    for day in sorted(set(days.to_pylist())):
        uri = curated.partition_uri(settings, log, date.fromisoformat(day))
        part = table.filter(pc.equal(days, day)).sort_by([(name, "ascending") for name in log.order])
        with storage.staged_folder(uri, settings.scratch) as folder:
            pq.write_table(part, folder / "part-1.parquet")
            facts = {"files": ["part-1.parquet"], "dt": day}
            manifest.write(Manifest(kind="curated", uri=uri, digest=digest * 64, rows={"accepted": len(part)}, facts=facts), str(folder))


def validate(settings, *days):
    """A verdict on days as they stand."""
    for day in days:
        manifest.write(Manifest(kind="validated", uri=validated_uri(settings, day), digest=digest_of(settings, day)))


def refuse(settings, day):
    manifest.write(Manifest(kind="refused", uri=refused_uri(settings, day), digest=digest_of(settings, day)))


def digest_of(settings, day):
    return manifest.digest_of(digests(published_days(settings, None, None), day))


@pytest.fixture(scope="module")
def dataset():
    return dataset_of(
        app_log(APPS),
        item_log(ITEMS),
        users=USERS,
        activity=dict.fromkeys(USERS, 1),
        attributes={"colour": COLOURS},
        cut="2026-05-04T00:00:00",
    )


@pytest.fixture
def settings(registry, dataset):
    """Curated logs of three days and a champion."""
    make_champion(registry, store_training(registry, store_inputs(registry, dataset)))
    publish(registry, APP_LOGS, app_log(APPS))
    publish(registry, ITEM_LOGS, item_log(ITEMS))
    return registry


def run(settings, config=CONFIG):
    return score(settings, config, plan_score(settings, config))


def rows_of(scores):
    return pq.read_table(storage.join(scores["uri"], *scores["facts"]["files"]))


def test_every_user_of_either_log_is_scored_once(settings):
    assert rows_of(run(settings))["user_id"].to_pylist() == USERS


def test_scores_are_what_the_predictor_says(settings, dataset):
    rows = rows_of(run(settings))
    predictor = Predictor.load(storage.local_folder(storage.join(settings.store, "training", "f" * 16, "bundle"), settings.scratch))
    said = predictor.predict(dataset.histories, query_time=dataset.cut, top_k=3)
    np.testing.assert_allclose(np.stack(rows["embedding"].to_numpy()), said.embedding_BD, atol=1e-5)
    np.testing.assert_allclose(rows["activity_probability"].to_numpy(), said.activity_B, atol=1e-5)
    np.testing.assert_allclose(pc.struct_field(rows["attribute_colour"], "red").to_numpy(), said.attributes["colour"][:, 1], atol=1e-5)
    assert rows["top_items"].to_pylist() == [items.tolist() for items in said.top_items]


def test_pieces_of_any_size_give_the_same_scores(settings, monkeypatch):
    whole = rows_of(run(settings)).drop_columns(["model_version"])
    monkeypatch.setattr(module, "_EVENTS_PER_PIECE", 2)
    publish(settings, APP_LOGS, app_log(APPS), digest="2")
    pieces = rows_of(run(settings)).drop_columns(["model_version"])
    assert pieces["user_id"] == whole["user_id"]
    assert pieces["top_items"] == whole["top_items"]
    np.testing.assert_allclose(np.stack(pieces["embedding"].to_numpy()), np.stack(whole["embedding"].to_numpy()), atol=1e-5)


def test_scores_are_stamped_with_version_and_day(settings):
    scores = run(settings)
    assert scores["uri"].endswith("scores/as_of=2026-05-04/version=1")
    assert set(zip(*(rows_of(scores)[name].to_pylist() for name in ("model_version", "as_of")), strict=True)) == {(1, date(2026, 5, 4))}


def test_events_of_the_day_and_later_are_not_read(settings):
    scores = run(settings, CONFIG.model_copy(update={"as_of": date(2026, 5, 2)}))
    assert scores["rows"] == {"users": 3, "events": 5}
    assert rows_of(scores)["user_id"].to_pylist() == ["ann", "bob", "cat"]


def test_the_verdict_of_the_audit_is_in_the_manifest(settings):
    facts = run(settings)["facts"]
    assert facts["verdict"]["success"]
    assert facts["horizon_days"] == 7  # what activity_probability is about
    assert facts["mask_seen"] is True  # top_items has nothing that a user has met


def test_a_second_run_does_no_work(settings):
    first = run(settings)
    assert plan_score(settings, CONFIG)["skip"] == f"version 1 has scored these logs as of 2026-05-04 already: {first['uri']}"
    assert run(settings) == first


def test_after_a_rollback_the_former_scores_are_said_to_hold_again(settings, dataset, monkeypatch):
    monkeypatch.setattr(manifest, "now", lambda: "2026-05-04T01:00:00+00:00")
    first = run(settings)
    make_champion(settings, store_training(settings, store_inputs(settings, dataset, "e"), "e"))
    monkeypatch.setattr(manifest, "now", lambda: "2026-05-04T02:00:00+00:00")
    second = run(settings)
    for hour, champion, scores in ((3, 1, first), (4, 2, second)):
        monkeypatch.setattr(manifest, "now", f"2026-05-04T0{hour}:00:00+00:00".__str__)
        set_alias(settings, CHAMPION, champion)
        assert plan_score(settings, CONFIG)["skip"] is None
        assert run(settings) == scores | {"created_at": manifest.now()}
        assert plan_score(settings, CONFIG)["skip"] is not None


def test_a_partition_ingested_again_is_scored_again(settings):
    first = run(settings)
    publish(settings, ITEM_LOGS, item_log(ITEMS), digest="2")
    assert plan_score(settings, CONFIG)["skip"] is None
    assert run(settings)["digest"] != first["digest"]


def test_the_planned_version_scores_even_if_the_champion_has_moved(settings):
    planned = plan_score(settings, CONFIG)
    delete_alias(settings, CHAMPION)
    assert score(settings, CONFIG, planned)["facts"]["version"] == 1


def test_without_a_champion_there_is_nothing_to_do_yet(registry):
    assert plan_score(registry, CONFIG)["skip"] == "model mfn has no champion yet: run mfn_train, then mfn_promote"


def test_a_champion_that_was_lost_is_no_day_without_work(settings):
    tag_version(settings, 1, {PROMOTED_AT: "2026-05-03T04:05:06+00:00"})
    delete_alias(settings, CHAMPION)
    with pytest.raises(
        ConfigError,
        match=r"mfn has lost its champion: the last of its versions to be promoted is 1 \(2026-05-03T04:05:06\+00:00\).*version=1",
    ):
        plan_score(settings, CONFIG)


def test_a_misspelt_alias_is_refused(settings):
    with pytest.raises(ConfigError, match=r"no version or alias 'champoin'; versions: 1 \(champion\)"):
        plan_score(settings, CONFIG.model_copy(update={"alias": "champoin"}))


def test_events_are_read_up_to_the_last_validated_day(settings):
    validate(settings, FIRST, SECOND)
    assert plan_score(settings, CONFIG)["as_of"] == "2026-05-03"


def test_a_day_that_is_not_validated_is_not_read(settings):
    validate(settings, FIRST, THIRD)
    scores = run(settings)
    assert scores["rows"] == {"users": 4, "events": 6}
    assert list(scores["inputs"]) == [
        curated.partition_uri(settings, *day) for day in ((APP_LOGS, FIRST), (ITEM_LOGS, FIRST), (ITEM_LOGS, THIRD))
    ]


def test_who_has_events_on_days_alone_that_are_not_validated_is_not_scored(settings):
    validate(settings, FIRST, SECOND)
    assert rows_of(run(settings, CONFIG.model_copy(update={"as_of": date(2026, 5, 4)})))["user_id"].to_pylist() == ["ann", "bob", "cat"]


def test_a_day_that_changed_since_it_was_validated_is_read_until_it_is_refused(settings):
    validate(settings, FIRST, SECOND, THIRD)
    publish(settings, ITEM_LOGS, item_log(ITEMS[2:3]), digest="2")
    assert run(settings)["rows"]["events"] == 8  # one of the two items of the second day has gone
    refuse(settings, SECOND)
    assert run(settings)["rows"]["events"] == 6


def test_days_that_are_left_out_are_named_in_the_log_and_in_the_manifest(settings, caplog):
    validate(settings, FIRST, THIRD)
    assert run(settings)["facts"]["left_out"] == ["2026-05-02"]
    assert "1 days before 2026-05-04 were refused or never validated, and are not read: 2026-05-02" in caplog.text


def test_a_day_that_was_left_out_is_scored_when_it_is_validated(settings):
    validate(settings, FIRST, THIRD)
    run(settings)
    validate(settings, SECOND)
    assert plan_score(settings, CONFIG)["skip"] is None
    scores = run(settings)
    assert (scores["rows"]["events"], scores["facts"]["left_out"]) == (9, [])


def test_where_no_day_was_ever_validated_all_are_read(settings):
    scores = run(settings)
    assert (scores["rows"]["events"], scores["facts"]["left_out"]) == (9, [])


def test_where_every_day_is_left_out_scoring_says_which_to_validate(settings):
    validate(settings, FIRST)
    publish(settings, APP_LOGS, app_log(APPS), digest="2")
    refuse(settings, FIRST)
    with pytest.raises(InsufficientDataError, match=r"before as_of=2026-05-04 .*; run mfn_validate for 2026-05-01, 2026-05-02, 2026-05-03"):
        plan_score(settings, CONFIG)


def test_the_verdicts_are_read_once_however_many_users_there_are(settings, monkeypatch):
    validate(settings, FIRST, SECOND, THIRD)
    planned = plan_score(settings, CONFIG)
    asked = []
    monkeypatch.setattr(module, "_EVENTS_PER_PIECE", 2)
    monkeypatch.setattr(module, "is_refused", lambda settings, published, day: asked.append(day) or False)
    score(settings, CONFIG, planned)
    assert asked == [FIRST, SECOND, THIRD]


def test_a_day_before_every_log_is_refused(settings):
    with pytest.raises(InsufficientDataError, match="no curated events before as_of=2026-05-01"):
        plan_score(settings, CONFIG.model_copy(update={"as_of": date(2026, 5, 1)}))


def test_scores_that_fail_the_audit_are_not_published(settings, monkeypatch):
    predict = Predictor.predict

    def broken(self, *arguments, **asked):
        said = predict(self, *arguments, **asked)
        said.embedding_BD[0] = np.nan
        return said

    monkeypatch.setattr(Predictor, "predict", broken)
    with pytest.raises(AuditError, match="not_finite"):
        run(settings)
    assert storage.list_names(storage.join(settings.store, "scores", "as_of=2026-05-04")) == []


def test_a_deployment_of_one_view_is_scored(registry, dataset):
    one_view = registry.model_copy(update={"views": ("micro",)})
    make_champion(one_view, store_training(one_view, store_inputs(one_view, dataset)))
    publish(one_view, ITEM_LOGS, item_log(ITEMS))
    assert rows_of(run(one_view))["user_id"].to_pylist() == ["ann", "bob", "dan"]


def test_columns_of_published_scores(settings):
    schema = rows_of(run(settings)).schema
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "user_id": "string",
        "embedding": "list<element: float>",
        "activity_probability": "float",
        "attribute_colour": "struct<blue: float, red: float>",
        "top_items": "list<element: string>",
        "top_scores": "list<element: float>",
        "model_version": "int64",
        "as_of": "date32[day]",
    }
