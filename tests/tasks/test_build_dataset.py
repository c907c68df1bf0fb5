"""From a curated store of a few literal rows to the dataset on disk.

The logs run from Monday 2026-03-02 to Sunday 2026-03-29; with a horizon of 7 days the cut is 2026-03-23T00:00:00Z. Thirty more users
``u00`` … ``u29`` opened one app on the first day, so that every split has someone; every second of them reads an item after the cut.
"""

import re
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.config import DatasetConfig
from mfn_core.data.batching import collate
from mfn_core.data.dataset import Dataset, Shard
from mfn_core.data.splits import split_codes, user_hashes
from mfn_core.data.summary import summarize
from mfn_core.data.window import seconds_of
from mfn_core.errors import ArtifactError, AuditError, ConfigError, InsufficientDataError, LeakError
from mfn_core.schema import APP_LOGS, EVENT_TIME, ITEM_LOGS, PARTITION, SPLITS, LogSchema
from tasks import build_dataset as module
from tasks import curated, manifest, storage
from tasks.build_dataset import build_dataset
from tasks.manifest import Manifest
from tasks.settings import Settings
from tests.factories import Event, app_log, item_log, planned

FINGERPRINT = "0123456789abcdef" * 4
CUT = date(2026, 3, 23)
FILLERS = [f"u{number:02d}" for number in range(30)]

APPS: list[Event] = [
    ("ann", "mail", "work", "2026-03-02T08:00:00"),
    ("ann", "bank", "money", "2026-03-03T09:00:00"),  # the second of ann's third item
    ("ann", "chat", "talk", "2026-03-22T23:59:59"),
    ("ann", "game", "fun", "2026-03-23T00:00:00"),  # at the cut: future
    ("late", "mail", "work", "2026-03-25T12:00:00"),  # first seen after the cut
    *((user, "mail", "work", "2026-03-02T10:00:00") for user in FILLERS),
]
ITEMS: list[Event] = [
    ("ann", "i1", "news", "2026-03-02T09:00:00"),
    ("ann", "i2", "news", "2026-03-03T08:00:00"),
    ("ann", "i3", "film", "2026-03-03T09:00:00"),
    ("ann", "i4", "film", "2026-03-10T09:00:00"),  # held out for test: its seq_no is the greater, though not its id
    ("ann", "i5", "opera", "2026-03-10T09:00:00"),  # held out for validation
    ("ann", "i1", "news", "2026-03-23T00:00:00"),  # at the cut: makes ann active
    ("bob", "i1", "news", "2026-03-02T09:00:00"),
    ("bob", "i3", "film", "2026-03-04T09:00:00"),
    *((user, "i1", "news", "2026-03-29T10:00:00") for user in FILLERS[::2]),
]
ITEM_SEQ_NO = [0, 0, 0, 2, 1] + [0] * (len(ITEMS) - 5)
# u25 is a user of the test split.
USERS = {
    "user_id": ["ann", "bob", "u00", "u12", "u25", "late"],
    "colour": ["red", "blue", None, "red", "blue", "green"],
    "code": [1, 2, None, 1, 2, 3],
    "country": ["de"] * 6,
}


def _publish(settings: Settings, log: LogSchema, rows: pa.Table) -> None:
    by_day = defaultdict(list)
    for position, time in enumerate(rows[EVENT_TIME].to_pylist()):
        by_day[time.date()].append(position)
    for day, positions in by_day.items():
        _publish_part(curated.partition_uri(settings, log, day), rows.take(positions), **{PARTITION: str(day)})


def _publish_part(uri: str, rows: pa.Table, **facts: str) -> None:
    Path(uri).mkdir(parents=True)
    pq.write_table(rows, storage.join(uri, "part-0.parquet"))
    named = {curated.FILES: ["part-0.parquet"], **facts}
    manifest.write(Manifest(kind="curated", uri=uri, digest=f"digest of {uri[-13:]}", rows={"accepted": len(rows)}, facts=named))


def _filled(settings: Settings, users: dict[str, list] = USERS) -> Settings:
    _publish(settings, APP_LOGS, app_log(APPS))
    _publish(settings, ITEM_LOGS, item_log(ITEMS, ITEM_SEQ_NO))
    _publish_part(curated.users_uri(settings), pa.table(users))
    return settings


@pytest.fixture
def store(settings: Settings) -> Settings:
    return _filled(settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict]:
    """The dataset that all the default settings give; tests only read it."""
    settings = _filled(Settings(var=tmp_path_factory.mktemp("installation")))
    return settings, _build(settings)[0]


@pytest.fixture(scope="module")
def built(finished: tuple[Settings, dict]) -> dict:
    return finished[1]


@pytest.fixture(scope="module")
def dataset(built: dict) -> Dataset:
    return Dataset.open(Path(built["uri"]))


def _build(settings: Settings, **changes) -> tuple[dict, Dataset]:
    config = DatasetConfig(**({"min_users": 10, "num_shards": 2} | changes))
    built = build_dataset(settings, config, planned(settings, FINGERPRINT), mask_seen="on")
    return built, Dataset.open(Path(built["uri"]))


def _row(dataset: Dataset, user_id: str) -> int:
    return dataset.histories.user_ids.tolist().index(user_id)


def _history(dataset: Dataset, user_id: str) -> tuple[list[str], list[str]]:
    row, histories = _row(dataset, user_id), dataset.histories
    views = ((histories.macro, dataset.vocabularies.macro_id), (histories.micro, dataset.vocabularies.micro_id))
    apps, items = (vocabulary.decode(view.ids[view.offsets[row] : view.offsets[row + 1]]).tolist() for view, vocabulary in views)
    return apps, items


def test_the_cut_is_the_end_of_data_minus_the_shortest_horizon(built: dict, dataset: Dataset) -> None:
    assert (dataset.cut, dataset.horizon_days) == (seconds_of(CUT), 7)
    assert built["facts"]["cut"] == seconds_of(CUT)
    assert dataset.tasks == ("activity", "attribute", "recommendation")


def test_an_app_log_that_goes_on_longer_does_not_move_the_cut(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    # With a horizon of 14 days before 2026-04-06 everybody would count as inactive in a week that has no item log yet.
    _publish(settings, APP_LOGS, app_log([("ann", "mail", "work", "2026-04-05T08:00:00")]))
    _, dataset = _build(_filled(settings))
    assert (dataset.cut, dataset.horizon_days) == (seconds_of(CUT), 7)
    assert "the logs end on different days (app_logs before 2026-04-06, item_logs before 2026-03-30)" in caplog.text


def test_histories_hold_events_before_the_cut_only(dataset: Dataset) -> None:
    # i4 and i5 are held out, so the vocabulary has never met them
    assert _history(dataset, "ann") == (["mail", "bank", "chat"], ["i1", "i2", "i3", "<unknown>", "<unknown>"])


def test_asof_counts_are_strict(dataset: Dataset) -> None:
    row, histories = _row(dataset, "ann"), dataset.histories
    first, stop = histories.micro.offsets[row : row + 2]
    # bank opens at the very second of i3
    assert histories.macro_before[first:stop].tolist() == [1, 1, 1, 2, 2]


def test_users_are_those_seen_before_the_cut_each_once(dataset: Dataset) -> None:
    assert sorted(dataset.histories.user_ids.tolist()) == sorted(["ann", "bob", *FILLERS])


def test_a_user_keeps_the_split_of_its_hash(dataset: Dataset) -> None:
    users = ["ann", "bob", *FILLERS]
    splits = dict(zip(dataset.histories.user_ids.tolist(), dataset.split_B.tolist(), strict=True))
    assert splits == dict(zip(users, split_codes(users, 0).tolist(), strict=True))


def test_activity_is_an_item_event_from_the_cut_to_before_its_end(dataset: Dataset) -> None:
    activity = {user: int(label) for user, label in zip(dataset.histories.user_ids, dataset.activity_B, strict=True)}
    assert activity == {"ann": 1, "bob": 0} | {user: int(number % 2 == 0) for number, user in enumerate(FILLERS)}


def test_an_item_event_at_cut_plus_horizon_is_outside(store: Settings) -> None:
    rows = [("u01", "i1", "news", "2026-03-16T00:00:00"), ("u03", "i1", "news", "2026-03-15T23:59:59")]
    _publish_part(curated.partition_uri(store, ITEM_LOGS, date(2026, 3, 16)), item_log(rows), dt="2026-03-16")
    _, dataset = _build(store, cut=date(2026, 3, 9), horizon_days=7)
    assert [int(dataset.activity_B[_row(dataset, user)]) for user in ("ann", "u01", "u03")] == [1, 0, 1]


def test_vocabularies_know_training_events_only(dataset: Dataset) -> None:
    vocabularies = dataset.vocabularies
    assert vocabularies.macro_id.tokens.to_pylist() == ["mail", "bank", "chat"]  # not game, of the future
    assert vocabularies.micro_id.tokens.to_pylist() == ["i1", "i3", "i2"]  # not i4 and i5, held out
    assert vocabularies.micro_id.known_counts().tolist() == [2, 2, 1]
    assert vocabularies.micro_category.tokens.to_pylist() == ["news", "film"]


def test_min_count_turns_rare_apps_and_items_into_unknown(store: Settings) -> None:
    _, dataset = _build(store, min_count=2)
    assert dataset.vocabularies.macro_id.tokens.to_pylist() == ["mail"]
    assert _history(dataset, "ann")[0] == ["mail", "<unknown>", "<unknown>"]


def test_seq_no_decides_which_of_two_items_of_one_second_is_the_last(dataset: Dataset) -> None:
    row = _row(dataset, "ann")
    micro = dataset.histories.micro
    last_two = micro.categories[micro.offsets[row + 1] - 2 : micro.offsets[row + 1]]
    assert dataset.vocabularies.micro_category.decode(last_two).tolist() == ["<unknown>", "film"]  # i5 (opera), then i4 (film)


def test_the_training_batch_of_the_written_dataset(dataset: Dataset) -> None:
    row = np.array([_row(dataset, "ann")])
    batch = collate(dataset.histories, row, prefix="train", held_out_B=dataset.held_out_B, max_macro_length=9, max_micro_length=3)
    assert batch.micro_ids_BL.tolist() == [[2, 4, 3]]
    assert batch.targets_BL.tolist() == [[4, 3, 0]]
    assert batch.asof_BL.tolist() == [[0, 0, 2]]


def test_attribute_labels_come_from_the_users_table(built: dict, dataset: Dataset) -> None:
    assert dataset.attribute_classes == {"colour": ("blue", "red")}  # green is the colour of nobody before the cut
    assert [int(dataset.attributes_BA[_row(dataset, user), 0]) for user in ("ann", "bob", "u00", "u01")] == [1, 0, -1, -1]
    assert built["facts"]["left_out_attributes"] == {
        "code": "it re-codes colour",
        "country": "1 values among the users; an attribute needs 2 to 50",
    }


def test_an_attribute_that_no_test_user_has_a_value_of_is_left_out_before_anything_is_trained(settings: Settings) -> None:
    _, dataset = _build(_filled(settings, {"user_id": ["ann", "bob"], "colour": ["red", "blue"]}))
    assert dataset.skipped["attribute"] == (
        "no column of the users table can be predicted (colour: 2 train users and 0 test users have a value; both splits need one)"
    )


def test_the_manifest_counts_what_was_written(built: dict) -> None:
    counts = built["rows"]
    assert {name: counts[name] for name in ("users", "macro_events", "micro_events", "held_out_events", "active_users")} == {
        "users": 32,
        "macro_events": 33,
        "micro_events": 7,
        "held_out_events": 2,
        "active_users": 16,
    }
    assert (counts["apps"], counts["items"], counts["app_categories"], counts["item_categories"]) == (3, 3, 3, 2)
    assert counts["train_users"] + counts["validation_users"] + counts["test_users"] == 32


def test_the_leak_proof_is_in_the_manifest(built: dict) -> None:
    cut = seconds_of(CUT)
    assert built["facts"]["leak_proof"] == {
        "activity": {"max_input_time": cut - 1, "min_label_time": cut},
        "attribute": {"max_input_time": cut - 1, "min_label_time": None},
        "recommendation": {
            "max_input_time": seconds_of(date(2026, 3, 2)) + 8 * 3600,
            "min_label_time": seconds_of(date(2026, 3, 2)) + 9 * 3600,
        },
    }


def test_a_leak_leaves_no_dataset_behind(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(*_: object) -> None:
        raise LeakError("found")

    monkeypatch.setattr(module, "prove_no_leak", leak)
    with pytest.raises(LeakError, match="found"):
        _build(store)
    assert storage.list_names(storage.join(store.store, "datasets")) == []


def test_of_two_shards_that_leak_the_first_is_told(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    users = ["ann", "bob", *FILLERS]
    hashes = user_hashes(users, 0)
    first = min(user for user, number in zip(users, hashes, strict=True) if number % 2 == 0)
    second_has_leaked = threading.Event()

    def leak(shard: Shard, *_: object) -> None:
        if shard.histories.user_ids[0] == first:
            assert second_has_leaked.wait(60)
        second_has_leaked.set()
        raise LeakError(f"of {shard.histories.user_ids[0]}")

    monkeypatch.setattr(module, "check_shard", leak)
    with pytest.raises(LeakError, match=f"of {first}"):
        _build(store)


def test_the_manifest_names_every_input_by_digest(built: dict, finished: tuple[Settings, dict]) -> None:
    days = {"2026-03-02", "2026-03-03", "2026-03-22", "2026-03-23", "2026-03-25"}
    assert {uri[-10:] for uri in built["inputs"] if "app_logs" in uri} == days
    assert built["inputs"][curated.users_uri(finished[0])].startswith("digest of")


def test_a_finished_dataset_is_returned_untouched(finished: tuple[Settings, dict]) -> None:
    settings, built = finished
    shard = next(Path(built["uri"]).glob("shard-*.arrow"))
    before = shard.stat().st_mtime_ns
    again, _ = _build(settings)
    assert (again, shard.stat().st_mtime_ns) == (built, before)


def test_the_number_of_shards_changes_the_order_of_users_only(dataset: Dataset, store: Settings) -> None:
    _, seven = _build(store, num_shards=7)
    assert {user: _history(dataset, user) for user in dataset.histories.user_ids} == {
        user: _history(seven, user) for user in seven.histories.user_ids
    }


def test_the_audit_is_in_the_manifest(built: dict) -> None:
    assert (built["facts"]["verdict"]["suite"], built["facts"]["verdict"]["success"]) == ("dataset", True)


def test_a_dataset_that_fails_its_audit_is_not_left_behind(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "summarize", lambda shards, window: replace(summarize(shards, window), leaks=3))
    with pytest.raises(AuditError, match="leak_violations"):
        _build(store)
    assert storage.list_names(storage.join(store.store, "datasets")) == []


def test_targets_that_return_are_warned_of_where_seen_items_are_masked(
    store: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        module, "summarize", lambda shards, window: replace(summarize(shards, window), held_out_events=10, returning_targets=2)
    )
    (warning,) = _build(store)[0]["facts"]["verdict"]["warnings"]
    assert re.match(r"returning_share = 0\.4 .*, expected at most 0\.2 \(people return to items here: set mask_seen to auto", warning)
    assert warning in caplog.text

    config = DatasetConfig(min_users=10, num_shards=2)
    assert build_dataset(store, config, planned(store, "f" * 64), mask_seen="auto")["facts"]["verdict"]["warnings"] == []


def test_users_of_few_items_leave_recommendation_out(settings: Settings) -> None:
    _publish(settings, ITEM_LOGS, item_log([(user, "i1", "news", "2026-03-02T10:00:00") for user in FILLERS]))
    _publish_part(curated.users_uri(settings), pa.table({"user_id": FILLERS, "colour": ["red", "blue"] * 15}))
    _, dataset = _build(settings.model_copy(update={"views": ("micro",)}))
    assert dataset.tasks == ("attribute",)
    assert dataset.skipped["recommendation"].startswith("no user has more than 2 item events before the cut")


def test_only_the_days_asked_for_are_read(store: Settings) -> None:
    built = build_dataset(
        store, DatasetConfig(min_users=10), planned(store, FINGERPRINT, date(2026, 3, 2), date(2026, 3, 9)), mask_seen="on"
    )
    dataset = Dataset.open(Path(built["uri"]))
    assert _history(dataset, "ann")[0] == ["mail", "bank"]
    assert dataset.cut == seconds_of(date(2026, 3, 5))  # the last event is on 03-04
    assert dataset.skipped["activity"].startswith("no horizon of 1, 3, 7, 14, 28, 56, 91, 182 days at the end of the item log (2026-03-05)")


def test_an_item_log_that_began_late_is_not_cut_to_nothing(store: Settings) -> None:
    # Items of eight days, of which a horizon of a week would leave one; half of the users are active on the last of them.
    for day in (2, 3, 4, 10):
        storage.remove(curated.partition_uri(store, ITEM_LOGS, date(2026, 3, day)))
    _publish(store, ITEM_LOGS, item_log([("ann", "i1", "news", "2026-03-22T10:00:00")]))
    _, dataset = _build(store)
    assert (dataset.cut, dataset.horizon_days) == (seconds_of(date(2026, 3, 27)), 3)


def test_without_an_item_log_attributes_remain(store: Settings) -> None:
    built, dataset = _build(store.model_copy(update={"views": ("macro",)}))
    assert built["facts"]["skipped"] == {
        "activity": "this deployment has no item log",
        "recommendation": "this deployment has no item log",
    }
    assert dataset.cut == seconds_of(date(2026, 3, 26))  # the end of the app log
    assert built["facts"]["leak_proof"].keys() == {"attribute"}


def test_without_an_app_log_the_macro_view_is_empty(settings: Settings) -> None:
    items = [(user, f"i{day}", "news", f"2026-03-{day:02d}T10:00:00") for user in FILLERS for day in (2, 3, 4)]
    items += [
        ("u00", "i2", "news", "2026-03-29T10:00:00"),
        ("u01", "i2", "news", "2026-03-29T10:00:00"),
        ("u02", "i2", "news", "2026-03-29T10:00:00"),
    ]
    _publish(settings, ITEM_LOGS, item_log(items))
    _, dataset = _build(settings.model_copy(update={"views": ("micro",)}))
    assert dataset.tasks == ("activity", "recommendation")
    assert dataset.skipped == {"attribute": "there is no users table"}
    assert not dataset.histories.macro.lengths.any()
    assert not dataset.histories.macro_before.any()


def test_a_view_without_curated_rows_is_an_error_with_the_remedy(settings: Settings) -> None:
    _publish(settings, APP_LOGS, app_log(APPS))
    with pytest.raises(InsufficientDataError, match=r"item_logs has no curated rows.*MFN_VIEWS='\[\"macro\"\]'"):
        _build(settings)


def test_nothing_to_learn_is_an_error(settings: Settings) -> None:
    _publish(settings, APP_LOGS, app_log(APPS))
    with pytest.raises(InsufficientDataError, match=r"no downstream task can run \(.*attribute: there is no users table"):
        _build(settings.model_copy(update={"views": ("macro",)}))


def test_fewer_users_than_the_limit_are_an_error(store: Settings) -> None:
    with pytest.raises(InsufficientDataError, match=r"32 users have an event before the cut 2026-03-23.*min_users=33"):
        _build(store, min_users=33)


def test_an_empty_split_is_an_error(store: Settings) -> None:
    test = SPLITS.index("test")
    empty = next(seed for seed in range(1000) if test not in split_codes(["ann", "bob", *FILLERS], seed))
    with pytest.raises(InsufficientDataError, match=f"32 users falls into the (validation|test) split at split_seed={empty}"):
        _build(store, split_seed=empty)


def test_a_misspelt_attribute_is_an_error(store: Settings) -> None:
    with pytest.raises(ConfigError, match="no column 'color'; it has colour, code, country"):
        _build(store, attributes=("color",))


def test_an_attribute_of_one_class_is_an_error(store: Settings) -> None:
    with pytest.raises(InsufficientDataError, match="'country' has fewer than 2 classes"):
        _build(store, attributes=("country",))


@pytest.mark.parametrize("change", ["another digest", "another day", "a day withdrawn", "other users"])
def test_what_has_changed_since_it_was_planned_is_not_built_under_the_old_fingerprint(store: Settings, change: str) -> None:
    plan = planned(store, FINGERPRINT)
    day = manifest.read(curated.partition_uri(store, APP_LOGS, date(2026, 3, 22)))
    users = manifest.read(curated.users_uri(store))
    match change:
        case "another digest":
            manifest.write(day.model_copy(update={"digest": "corrected", "created_at": "2026-04-01T03:00:00+00:00"}))
        case "another day":
            _publish(store, ITEM_LOGS, item_log([("ann", "i9", "news", "2026-03-22T10:00:00")]))
        case "a day withdrawn":
            storage.remove(day.uri)
        case "other users":
            manifest.write(users.model_copy(update={"digest": "corrected"}))
    with pytest.raises(ArtifactError) as caught:
        build_dataset(store, DatasetConfig(min_users=10), plan, mask_seen="on")
    found = planned(store, FINGERPRINT)["inputs"]
    assert f"have changed since they were planned (digest {found[:16]}, planned {plan['inputs'][:16]})" in str(caught.value)
    if change == "another digest":
        assert f"published last was {day.uri}, at 2026-04-01T03:00:00+00:00. Plan again: clear the task plan" in str(caught.value)
    assert not storage.exists(storage.join(store.store, "datasets", FINGERPRINT[:16]))


def test_two_builds_of_one_plan_take_turns_and_the_second_finds_the_dataset_of_the_first(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, prove, proofs = planned(store, FINGERPRINT), module.prove_no_leak, []
    is_building, may_go_on = threading.Event(), threading.Event()

    def prove_when_told(*given):
        proofs.append(given)
        is_building.set()
        assert may_go_on.wait(60)
        return prove(*given)

    monkeypatch.setattr(module, "prove_no_leak", prove_when_told)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(build_dataset, store, DatasetConfig(min_users=10), plan, mask_seen="on")
        assert is_building.wait(60)
        second = pool.submit(build_dataset, store, DatasetConfig(min_users=10), plan, mask_seen="on")
        assert wait([second], timeout=1).not_done
        may_go_on.set()
        assert second.result() == first.result()
    assert len(proofs) == 1


def test_a_finished_dataset_is_found_though_a_day_has_changed_since(store: Settings) -> None:
    plan = planned(store, FINGERPRINT)
    built = build_dataset(store, DatasetConfig(min_users=10), plan, mask_seen="on")
    storage.remove(curated.partition_uri(store, APP_LOGS, date(2026, 3, 22)))
    assert build_dataset(store, DatasetConfig(min_users=10), plan, mask_seen="on") == built


def test_a_failed_build_leaves_no_dataset(store: Settings) -> None:
    with pytest.raises(InsufficientDataError):
        _build(store, min_users=33)
    assert not storage.exists(storage.join(store.store, "datasets", FINGERPRINT[:16]))
