"""Raw app log to curated days: what is published, counted, and left alone."""

import logging
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mfn_core.schema import APP_LOGS, ITEM_LOGS
from tasks import audit, curated, ingest, manifest, raw_parts, receipt
from tasks.audit import Verdict
from tasks.ingest_plan import plan_ingest
from tasks.settings import Settings
from tests.tasks.raw_files import NOW, app_rows, counts, curated_files, curated_rows, deliver, deliver_day, digest, ingest_days

ANN = ("ann", "bank", "finance", "2026-06-01T09:00")
BOB = ("bob", "chess", "games", "2026-06-01T10:00")
CAT = ("cat", "maps", "travel", "2026-06-02T11:00")


@pytest.fixture(autouse=True)
def _approving_judge(monkeypatch):
    monkeypatch.setattr(audit, "judge", lambda *_: Verdict("stub", True, 0, (), (), ""))


def test_a_curated_file_has_the_columns_of_the_contract_sorted_by_user_and_time(settings):
    extra = {"seq_no": pa.array([7, 8, 9], pa.int16()), "city": pa.array(["x", "y", "z"])}
    rows = app_rows([BOB, ("ann", "chess", "games", "2026-06-01T12:00"), ANN], **extra)
    deliver(settings, "app_logs/dt=2026-06-01/part-0.parquet", rows)
    ingest_days(settings, "2026-06-01")

    (file,) = curated_files(settings, APP_LOGS)
    at = [datetime(2026, 6, 1, hour, tzinfo=UTC) for hour in (9, 12, 10)]
    assert pq.read_table(file).to_pydict() == {
        "user_id": ["ann", "ann", "bob"],
        "app_id": ["bank", "chess", "chess"],
        "app_category": ["finance", "games", "games"],
        "event_time": at,
        "seq_no": [9, 8, 7],
        "event_type": [None, None, None],
        "duration_s": [None, None, None],
    }


def test_integer_ids_dictionaries_large_strings_and_any_time_unit_are_cast(settings):
    table = app_rows(
        [ANN],
        user_id=pa.array([8817], pa.int64()),
        app_id=pa.array(["bank"], pa.large_string()),
        app_category=pa.array(["finance"]).dictionary_encode(),
        event_time=pa.array([1_780_304_400_000_000_000], pa.timestamp("ns", tz="Europe/Berlin")),
    )
    deliver(settings, "app_logs/dt=2026-06-01/part-0.parquet", table)
    ingest_days(settings, "2026-06-01")
    assert curated_rows(settings) == [("8817", "bank", "finance", "2026-06-01T09:00")]
    (file,) = curated_files(settings, APP_LOGS)
    assert pq.read_schema(file) == curated.schema(APP_LOGS)


def test_files_of_different_types_make_one_day(settings):
    deliver(settings, "app_logs/dt=2026-06-01/part-0.parquet", app_rows([ANN]))
    deliver(settings, "app_logs/dt=2026-06-01/part-1.parquet", app_rows([BOB], user_id=pa.array([42], pa.int64())))
    ingest_days(settings, "2026-06-01")
    assert [row[0] for row in curated_rows(settings)] == ["42", "ann"]


def test_mapped_columns_are_read_under_their_source_names(settings):
    mapped = settings.model_copy(update={"app_log_columns": {"user_id": "uid", "app_id": "package"}})
    deliver(mapped, "app_logs/dt=2026-06-01/a.parquet", app_rows([ANN]).rename_columns(["uid", "package", "app_category", "event_time"]))
    ingest_days(mapped, "2026-06-01")
    assert curated_rows(mapped) == [ANN]


def test_raw_logs_are_read_from_any_fsspec_uri(tmp_path):
    import fsspec

    remote = Settings(var=tmp_path / "var", raw_uri=f"memory://{tmp_path.name}/raw")
    with fsspec.open(f"{remote.raw}/app_logs/dt=2026-06-01/part-0.parquet", "wb") as file:
        pq.write_table(app_rows([ANN]), file)
    ingest_days(remote, "2026-06-01")
    assert curated_rows(remote) == [ANN]


def test_the_summary_names_day_digest_and_rows(settings):
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    (summary,) = ingest_days(settings, "2026-06-01")
    assert summary == {"dt": "2026-06-01", "digest": digest(settings, "2026-06-01"), "rows": 2, "changed": True}


def test_exact_duplicates_are_dropped_and_counted(settings):
    deliver_day(
        settings, "2026-06-01", [ANN, BOB, ("bob", "chess", "games", "2026-06-01T10:01"), ("bob", "mail", "work", "2026-06-01T10:01"), ANN]
    )
    ingest_days(settings, "2026-06-01")
    assert counts(settings, "2026-06-01") == {"read": 5, "accepted": 4, "quarantined": 0, "duplicates": 1, "late": 0}


def test_the_engine_sorts_a_source_too_large_for_memory_as_memory_does(settings, monkeypatch):
    rows = [("bob", "chess", "games", "2026-06-01T10:00"), ANN, BOB, ("ann", "bank", "éclair", "2026-06-01T09:00"), ("ann", "", "x", None)]
    late = ("zoe", "maps", "travel", "2026-05-31T23:59")
    types, durations = pa.array([None, "open", None, "Open", None, None]), pa.array([2.5, float("nan"), -0.0, None, 0.0, -1.0])
    published = []
    for name, rows_per_group in (("memory", 6), ("engine", 5)):
        own = settings.model_copy(update={"var": settings.var / name, "max_rejected_share": 0.5})
        monkeypatch.setattr(raw_parts, "_ROWS_PER_GROUP", rows_per_group)
        deliver(own, "app_logs/dt=2026-06-01/part-0.parquet", app_rows([*rows, late], event_type=types, duration_s=durations))
        ingest_days(own, "2026-06-01")
        files = [pq.read_table(file).to_pylist() for file in curated_files(own, APP_LOGS)]
        published.append((str(files), [(each.digest, each.rows) for each in curated.partitions(own, APP_LOGS)]))
    assert published[0] == published[1]
    assert [each["read"] for _, each in published[0][1]] == [1, 5]


def test_a_rejected_row_is_quarantined_whole_with_reason_file_and_row_number(settings):
    generous = settings.model_copy(update={"max_rejected_share": 0.5})
    rows = app_rows([ANN, ("bob", None, "games", "2026-06-01T10:00")], city=pa.array(["Kyiv", "Oslo"]))
    raw = deliver(generous, "app_logs/dt=2026-06-01/part-0.parquet", rows)
    ingest_days(generous, "2026-06-01")

    (file,) = Path(generous.store, "quarantine/app_logs/dt=2026-06-01").iterdir()
    assert pq.read_table(file).to_pylist() == [
        {
            "user_id": "bob",
            "app_id": None,
            "app_category": "games",
            "event_time": datetime(2026, 6, 1, 10, tzinfo=UTC),
            "city": "Oslo",
            "_reason": "app_id is null",
            "_file": str(raw),
            "_row_number": 1,
        }
    ]
    assert counts(generous, "2026-06-01") == {"read": 2, "accepted": 1, "quarantined": 1, "duplicates": 0, "late": 0}


def test_times_of_dead_clocks_make_no_curated_day(settings):
    generous = settings.model_copy(update={"max_rejected_share": 0.5})
    dead = [("bob", "chess", "games", "1970-01-01T00:00"), ("cat", "chess", "games", "0001-01-01T00:00")]
    deliver_day(generous, "2026-06-01", [ANN, BOB, *dead])
    ingest_days(generous, "2026-06-01")
    assert [each.facts["dt"] for each in curated.partitions(generous, APP_LOGS)] == ["2026-06-01"]
    assert counts(generous, "2026-06-01") == {"read": 4, "accepted": 2, "quarantined": 2, "duplicates": 0, "late": 0}


def test_times_of_dead_clocks_do_not_stretch_a_first_load(settings):
    generous = settings.model_copy(update={"max_rejected_share": 0.5})
    deliver(generous, "app_logs.parquet", app_rows([("bob", "chess", "games", "1970-01-01T00:00"), ANN, CAT]))
    assert plan_ingest(generous, APP_LOGS, None, None, 1, now=NOW) == [{"first_day": "2026-06-01", "last_day": "2026-06-02"}]


def test_an_old_log_is_accepted_by_setting(settings):
    old = settings.model_copy(update={"earliest_day": date(1970, 1, 1)})
    deliver_day(old, "1985-06-01", [("ann", "bank", "finance", "1985-06-01T09:00")])
    ingest_days(old, "1985-06-01")
    assert curated_rows(old) == [("ann", "bank", "finance", "1985-06-01T09:00")]


def test_columns_called_as_ours_are_kept_in_quarantine_where_no_mark_is_called_so(settings):
    generous = settings.model_copy(update={"max_rejected_share": 0.5})
    names = ["_source", "_source_day", "_home", "_day", "_key", "_row_hash", "_primary", "_late"]
    rows = app_rows([ANN, ("bob", None, "games", "2026-06-01T10:00")], **{name: pa.array(["x", "y"]) for name in names})
    deliver(generous, "app_logs/dt=2026-06-01/part-0.parquet", rows)
    ingest_days(generous, "2026-06-01")
    (file,) = Path(generous.store, "quarantine/app_logs/dt=2026-06-01").iterdir()
    (row,) = pq.read_table(file).to_pylist()
    assert {name: row[name] for name in names} == dict.fromkeys(names, "y")


def test_a_corrected_file_empties_its_quarantine(settings):
    generous = settings.model_copy(update={"max_rejected_share": 0.5})
    deliver_day(generous, "2026-06-01", [ANN, ("", "chess", "games", "2026-06-01T10:00")])
    ingest_days(generous, "2026-06-01")
    deliver_day(generous, "2026-06-01", [ANN, BOB])
    ingest_days(generous, "2026-06-01")
    assert list(Path(generous.store, "quarantine/app_logs/dt=2026-06-01").iterdir()) == []


def test_unchanged_raw_files_are_no_work_and_the_log_says_so(settings, caplog):
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    first = ingest_days(settings, "2026-06-01")
    with caplog.at_level(logging.INFO, "tasks"):
        assert plan_ingest(settings, APP_LOGS, None, None, 31, now=NOW) == []
        assert ingest_days(settings, "2026-06-01") == [first[0] | {"changed": False}]
    assert caplog.text.count("nothing to do") == 2


def test_the_same_rows_in_another_order_keep_the_digest(settings):
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    ingest_days(settings, "2026-06-01")
    before = digest(settings, "2026-06-01")
    deliver(settings, "app_logs/dt=2026-06-01/part-0.parquet", app_rows([BOB, ANN], city=pa.array(["x", "y"])))
    (summary,) = ingest_days(settings, "2026-06-01")
    assert (summary["digest"], summary["changed"]) == (before, False)


def test_another_row_changes_the_digest_and_removes_the_old_file(settings):
    deliver_day(settings, "2026-06-01", [ANN])
    ingest_days(settings, "2026-06-01")
    before = digest(settings, "2026-06-01")
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    (summary,) = ingest_days(settings, "2026-06-01")
    assert summary["changed"]
    assert digest(settings, "2026-06-01") != before
    folder = Path(curated.partition_uri(settings, APP_LOGS, date(2026, 6, 1)))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", Path(curated_files(settings, APP_LOGS)[0]).name]


def test_a_crash_before_the_manifest_leaves_the_old_day_readable(settings, monkeypatch):
    deliver_day(settings, "2026-06-01", [ANN])
    ingest_days(settings, "2026-06-01")
    deliver_day(settings, "2026-06-01", [ANN, BOB])

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.publication.manifest.write", fail)
        with pytest.raises(OSError, match="disk full"):
            ingest_days(settings, "2026-06-01")
    assert curated_rows(settings) == [ANN]
    ingest_days(settings, "2026-06-01")
    assert curated_rows(settings) == [ANN, BOB]


def test_a_crash_while_the_receipt_of_a_first_load_is_written_is_made_good_by_the_next_run(settings, monkeypatch):
    deliver(settings, "app_logs.parquet", app_rows([ANN, BOB]))
    write = manifest.write

    def fail(written, folder=None):
        if written.kind == "receipt":
            Path(written.uri).mkdir(parents=True)
            raise OSError("disk full")
        write(written, folder)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", fail)
        with pytest.raises(OSError, match="disk full"):
            ingest_days(settings, "2026-06-01")
    ingest_days(settings, "2026-06-01")
    assert curated_rows(settings) == [ANN, BOB]
    assert plan_ingest(settings, APP_LOGS, None, None, 1, now=NOW) == []


def test_a_first_load_is_split_by_day_of_event(settings):
    deliver(settings, "app_logs.parquet", app_rows([CAT, ANN, BOB]))
    assert plan_ingest(settings, APP_LOGS, None, None, 1, now=NOW) == [{"first_day": "2026-06-01", "last_day": "2026-06-02"}]
    ingest_days(settings, "2026-06-01", "2026-06-02")
    assert (curated_rows(settings, "2026-06-01"), curated_rows(settings, "2026-06-02")) == ([ANN, BOB], [CAT])
    assert plan_ingest(settings, APP_LOGS, None, None, 1, now=NOW) == []


def test_a_first_load_of_several_files_beside_the_daily_folders_is_read(settings):
    deliver(settings, "app_logs/history-0.parquet", app_rows([ANN]))
    deliver(settings, "app_logs/history-1.parquet", app_rows([BOB]))
    ingest_days(settings, "2026-06-01")
    assert curated_rows(settings) == [ANN, BOB]


def test_a_row_without_time_in_a_first_load_is_counted_once_whatever_the_chunks(settings):
    generous = settings.model_copy(update={"max_rejected_share": 0.5})
    deliver(generous, "app_logs.parquet", app_rows([ANN, CAT, ("bob", "chess", "games", None)]))
    ingest_days(generous, "2026-06-02")
    ingest_days(generous, "2026-06-01")
    assert [counts(generous, day)["quarantined"] for day in ("2026-06-01", "2026-06-02")] == [1, 0]


def test_a_shorter_first_load_withdraws_the_days_it_no_longer_has(settings):
    deliver(settings, "app_logs.parquet", app_rows([ANN, CAT]))
    ingest_days(settings, "2026-06-01", "2026-06-02")
    deliver(settings, "app_logs.parquet", app_rows([ANN]))
    assert plan_ingest(settings, APP_LOGS, None, None, 31, now=NOW) == [{"first_day": "2026-06-01", "last_day": "2026-06-02"}]
    ingest_days(settings, "2026-06-01", "2026-06-02")
    assert [each.facts["dt"] for each in curated.partitions(settings, APP_LOGS)] == ["2026-06-01"]


def test_daily_folders_continue_a_first_load(settings):
    deliver(settings, "app_logs.parquet", app_rows([ANN]))
    deliver_day(settings, "2026-06-02", [CAT])
    ingest_days(settings, "2026-06-01", "2026-06-02")
    assert curated_rows(settings) == [ANN, CAT]


def test_a_finished_first_load_is_not_opened_for_the_day_after_it(settings):
    deliver(settings, "app_logs.parquet", app_rows([ANN]))
    ingest_days(settings, "2026-06-01")
    deliver_day(settings, "2026-06-02", [CAT])
    assert len(plan_ingest(settings, APP_LOGS, date(2026, 6, 2), date(2026, 6, 2), 31, now=NOW)) == 1
    ingest_days(settings, "2026-06-02")
    assert [name for _, _, each in receipt.read_first_loads(settings, APP_LOGS, "first-load") for name in receipt.days(each)] == [
        date(2026, 6, 1)
    ]


def test_a_plan_of_daily_folders_goes_by_days_per_chunk(settings):
    for day in (1, 2, 3):
        deliver_day(settings, f"2026-06-0{day}", [("ann", "bank", "finance", f"2026-06-0{day}T09:00")])
    assert plan_ingest(settings, APP_LOGS, None, None, 2, now=NOW) == [
        {"first_day": "2026-06-01", "last_day": "2026-06-02"},
        {"first_day": "2026-06-03", "last_day": "2026-06-03"},
    ]


def test_a_plan_holds_only_the_day_that_was_delivered_anew(settings):
    for day in (1, 2, 3):
        deliver_day(settings, f"2026-06-0{day}", [("ann", "bank", "finance", f"2026-06-0{day}T09:00")])
    ingest_days(settings, "2026-06-01", "2026-06-03")
    deliver_day(settings, "2026-06-02", [CAT])
    assert plan_ingest(settings, APP_LOGS, None, None, 31, now=NOW) == [{"first_day": "2026-06-02", "last_day": "2026-06-02"}]


def test_another_column_mapping_is_work_again(settings):
    deliver(settings, "app_logs/dt=2026-06-01/a.parquet", app_rows([ANN], label=pa.array(["bank 2"])))
    ingest_days(settings, "2026-06-01")
    mapped = settings.model_copy(update={"app_log_columns": {"app_category": "label"}})
    assert len(plan_ingest(mapped, APP_LOGS, None, None, 31, now=NOW)) == 1


def test_another_earliest_day_is_work_again(settings):
    deliver_day(settings, "2026-06-01", [ANN])
    ingest_days(settings, "2026-06-01")
    later = settings.model_copy(update={"earliest_day": date(2000, 1, 1)})
    assert len(plan_ingest(later, APP_LOGS, None, None, 31, now=NOW)) == 1


def test_the_item_log_has_columns_of_its_own(settings):
    table = app_rows([ANN], dwell_s=pa.array([2.5])).rename_columns(["user_id", "item_id", "item_category", "event_time", "dwell_s"])
    deliver(settings, "item_logs/dt=2026-06-01/part-0.parquet", table)
    ingest.ingest_chunk(settings, ITEM_LOGS, date(2026, 6, 1), date(2026, 6, 1), now=NOW)
    (file,) = curated_files(settings, ITEM_LOGS)
    assert pq.read_table(file).select(["item_id", "dwell_s"]).to_pylist() == [{"item_id": "bank", "dwell_s": 2.5}]


_RAW_ROW = st.tuples(
    st.sampled_from(["ann", "bob", "", None]),
    st.sampled_from(["bank", None]),
    st.sampled_from(["finance", ""]),
    st.sampled_from(["2026-06-01T09:00", "2026-06-02T09:00", "2026-06-03T09:00", "2027-01-01T00:00", None]),
)


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    days=st.lists(st.lists(_RAW_ROW, max_size=6), min_size=2, max_size=2),
    late_rows=st.sampled_from(["event_time", "quarantine"]),
    rows_per_group=st.sampled_from([1, 100]),
)
def test_accepted_quarantined_and_duplicates_make_up_the_rows_read(tmp_path_factory, monkeypatch, days, late_rows, rows_per_group):
    monkeypatch.setattr(raw_parts, "_ROWS_PER_GROUP", rows_per_group)  # by the engine, and in memory
    var = tmp_path_factory.mktemp("rows")
    settings = Settings(var=var, late_rows=late_rows, max_rejected_share=1, max_duplicate_share=1)
    delivered = 0
    for number, rows in enumerate(days, start=1):
        own = ("zoe", "maps", "travel", f"2026-06-0{number}T12:00")  # a folder without any row of its day is an error
        deliver_day(settings, f"2026-06-0{number}", [*rows, own])
        delivered += len(rows) + 1
    ingest_days(settings, "2026-06-01", "2026-06-02")
    rows = [each.rows for each in curated.partitions(settings, APP_LOGS)]
    assert sum(each["read"] for each in rows) == delivered
    assert all(each["accepted"] + each["quarantined"] + each["duplicates"] == each["read"] for each in rows)
    files = Path(settings.store, "quarantine").rglob("*.parquet")
    assert sum(pq.read_metadata(file).num_rows for file in files) == sum(each["quarantined"] for each in rows)
    known = [receipt.read_daily(settings, APP_LOGS, date(2026, 6, day)) for day in (1, 2)]
    assert sum(each.rows["read"] for each in known if each) == delivered
