"""Bad raw input stops ingest with a message that names the file, the column or row, the value, the limit and the remedy."""

import os
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.errors import ConfigError, PartitionNotReadyError, RejectionError, SchemaError, TransientError
from mfn_core.schema import APP_LOGS
from tasks import log_rows, raw, raw_parts
from tasks.ingest_plan import plan_ingest
from tests.tasks.raw_files import NOW, app_rows, curated_files, deliver, deliver_day, ingest_days

ANN = ("ann", "bank", "finance", "2026-06-01T09:00")
BOB = ("bob", "chess", "games", "2026-06-01T10:00")
FOLDER = "app_logs/dt=2026-06-01"


def plan(settings, first=None, last=None):
    return plan_ingest(settings, APP_LOGS, first and date.fromisoformat(first), last and date.fromisoformat(last), 31, now=NOW)


def refused(settings, error):
    """The message with which ingest of 1 June stops; nothing may be published."""
    with pytest.raises(error) as caught:
        ingest_days(settings, "2026-06-01")
    assert curated_files(settings, APP_LOGS) == []
    return str(caught.value)


def test_a_missing_column(settings):
    file = deliver(settings, f"{FOLDER}/a.parquet", app_rows([ANN]).drop_columns("app_category"))
    assert refused(settings, SchemaError) == (
        f"{file}: column app_category is missing; the file has user_id, app_id, event_time; "
        "add it, or say in MFN_APP_LOG_COLUMNS which column holds app_category"
    )


def test_a_mapped_column_that_the_file_does_not_have(settings):
    mapped = settings.model_copy(update={"app_log_columns": {"app_id": "pakage"}})
    deliver(mapped, f"{FOLDER}/a.parquet", app_rows([ANN]))
    assert "column pakage is missing" in refused(mapped, SchemaError)


def test_a_misspelt_contract_column_in_the_mapping(settings):
    mapped = settings.model_copy(update={"app_log_columns": {"ap_id": "package"}})
    deliver(mapped, f"{FOLDER}/a.parquet", app_rows([ANN]))
    message = refused(mapped, ConfigError)
    assert "MFN_APP_LOG_COLUMNS maps ap_id" in message
    assert "user_id, app_id, app_category, event_time, event_type, duration_s, seq_no" in message


@pytest.mark.parametrize(
    ("column", "values", "found", "expected"),
    [
        ("user_id", pa.array([1.5]), "double", "string or integer"),
        ("app_category", pa.array([3]), "int64", "string"),
        ("event_time", pa.array(["2026-06-01"]), "string", "timestamp with a time zone"),
        ("seq_no", pa.array(["1"]), "string", "integer"),
        ("duration_s", pa.array(["1"]), "string", "number"),
    ],
)
def test_a_wrong_type(settings, column, values, found, expected):
    file = deliver(settings, f"{FOLDER}/a.parquet", app_rows([ANN], **{column: values}))
    assert refused(settings, SchemaError) == f"{file}: column {column} is {found}, expected {expected}; cast it in the source"


@pytest.mark.parametrize("name", ["file_index", "file_row_number", "_file", "_reason", "_row_number", "_Reason", "FILE_INDEX"])
def test_a_column_with_a_name_that_rejected_rows_are_marked_by(settings, name):
    file = deliver(settings, f"{FOLDER}/a.parquet", app_rows([ANN], **{name: pa.array([3])}))
    assert refused(settings, SchemaError) == (
        f"{file}: column {name} has a name that ingest gives to a column of its own (file_index, file_row_number, _file, _reason, "
        "_row_number, /home, /source); rename it in the source"
    )


def test_columns_that_differ_in_case_alone(settings):
    file = deliver(settings, f"{FOLDER}/a.parquet", app_rows([ANN], App_ID=pa.array(["bank"])))
    assert refused(settings, SchemaError) == (
        f"{file}: column App_ID and column app_id of {file} differ in case alone, which the engine does not tell apart; "
        "rename one of them in the source"
    )


def test_files_that_change_while_they_are_read(settings, monkeypatch):
    monkeypatch.setattr(raw_parts, "_ROWS_PER_GROUP", 1)  # what the engine sorts is read twice
    deliver_day(settings, "2026-06-01", [ANN, BOB])
    count = log_rows.count

    def count_then_deliver(rows):
        found = count(rows)
        deliver_day(settings, "2026-06-01", [ANN])
        return found

    monkeypatch.setattr(log_rows, "count", count_then_deliver)
    message = refused(settings, TransientError)
    assert "app_logs dt=2026-06-01: 2 rows of 2026-06-01 were accepted, 1 found when they were read again" in message


def test_a_file_that_is_replaced_between_its_footer_and_its_rows(settings, monkeypatch):
    file = deliver_day(settings, "2026-06-01", [ANN, BOB])
    deliver(settings, f"{FOLDER}/whole.parquet", app_rows([("cat", "maps", "travel", "2026-06-01T11:00")]))
    write_judged = raw_parts.write_judged

    def deliver_then_read(*arguments):
        deliver_day(settings, "2026-06-01", [ANN])
        return write_judged(*arguments)

    monkeypatch.setattr(raw_parts, "write_judged", deliver_then_read)
    assert refused(settings, TransientError) == (
        f"app_logs dt=2026-06-01: 3 rows by the footers of its files, 2 when they were read: {file} was replaced meanwhile. "
        "Nothing is published, the run will be retried; deliver a file under a name that begins with _ and rename it, so that it "
        "changes at once"
    )


def test_a_file_that_is_gone_when_its_footer_is_read(settings, monkeypatch):
    file = deliver_day(settings, "2026-06-01", [ANN])
    footers = raw.footers

    def remove_then_read(uris):
        file.unlink()
        return footers(uris)

    monkeypatch.setattr(raw, "footers", remove_then_read)
    assert refused(settings, PartitionNotReadyError).startswith(f"{file} was there when its folder was listed, and is gone")


def test_a_time_without_zone(settings):
    file = deliver(settings, f"{FOLDER}/a.parquet", app_rows([ANN], event_time=pa.array([0], pa.timestamp("ms"))))
    message = refused(settings, SchemaError)
    assert (
        f"{file}: column event_time is timestamp[ms], expected timestamp with a time zone; it has no time zone: write it in UTC" in message
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, "chess", "games", "2026-06-01T10:00"), "user_id is null"),
        (("", "chess", "games", "2026-06-01T10:00"), "user_id is empty"),
        (("bob", None, "games", "2026-06-01T10:00"), "app_id is null"),
        (("bob", "", "games", "2026-06-01T10:00"), "app_id is empty"),
        (("bob", "chess", None, "2026-06-01T10:00"), "app_category is null"),
        (("bob", "chess", "games", None), "event_time is null"),
        (("bob", "chess", "games", "2026-07-01T00:01"), "event_time is in the future"),
        (("bob", "chess", "games", "1970-01-01T23:59"), "event_time is before 1970-01-02"),
        (("bob", "chess", "games", "0001-01-01T00:00"), "event_time is before 1970-01-02"),
    ],
)
def test_a_row_that_breaks_the_contract(settings, row, reason):
    file = deliver_day(settings, "2026-06-01", [ANN, row])
    message = refused(settings, RejectionError)
    assert f"({file}): 1 of 2 rows (50.0%) are rejected, more than max_rejected_share=0.01: {reason} (1 rows)." in message
    assert f"First: {file} row 1: {reason}" in message
    assert "raise MFN_MAX_REJECTED_SHARE" in message


def test_a_time_beyond_all_calendars_as_of_milliseconds_taken_for_seconds(settings):
    milliseconds = 1_780_272_000_000  # 2026-06-01T00:00:00Z
    times = pa.array([1_780_308_000, milliseconds], pa.int64())
    deliver(settings, "app_logs/dt=2026-06-01/part-0.parquet", app_rows([ANN, ANN], event_time=times.cast(pa.timestamp("s", tz="UTC"))))
    message = refused(settings, RejectionError)
    assert "1 of 2 rows (50.0%) are rejected, more than max_rejected_share=0.01: event_time is in the future (1 rows)" in message
    assert "event_time=58384-" in message


def test_too_many_rejects_are_in_quarantine_nevertheless(settings):
    deliver_day(settings, "2026-06-01", [ANN, (None, "chess", "games", "2026-06-01T10:00")])
    refused(settings, RejectionError)
    (file,) = Path(settings.store, "quarantine/app_logs/dt=2026-06-01").iterdir()
    assert pq.read_table(file)["_reason"].to_pylist() == ["user_id is null"]


def test_more_duplicates_than_allowed(settings):
    file = deliver_day(settings, "2026-06-01", [ANN, ANN, BOB])
    message = refused(settings, RejectionError)
    assert f"({file}): 1 of 3 rows (33.3%) are exact duplicates, more than max_duplicate_share=0.2" in message
    assert "raise MFN_MAX_DUPLICATE_SHARE" in message


def test_equal_rows_without_a_number_may_be_repeated_events(settings):
    deliver_day(settings, "2026-06-01", [ANN, ANN, BOB])
    message = refused(settings, RejectionError)
    assert message.endswith(
        "remove the file that was delivered twice, or, where a user repeats an event within one event_time (as where times are whole "
        "days), bring a seq_no that numbers the events of a user, or times of a finer grain, or raise MFN_MAX_DUPLICATE_SHARE"
    )


def test_equal_rows_of_one_number_are_a_file_delivered_twice(settings):
    numbered = app_rows([ANN, ANN, BOB], n=pa.array([1, 1, 2]))
    deliver(settings, f"{FOLDER}/a.parquet", numbered)
    mapped = settings.model_copy(update={"app_log_columns": {"seq_no": "n"}})
    message = refused(mapped, RejectionError)
    assert message.endswith("remove the file that was delivered twice, or raise MFN_MAX_DUPLICATE_SHARE")


def written_long_ago(file, content):
    file.write_bytes(content)
    os.utime(file, (1_780_000_000, 1_780_000_000))


@pytest.mark.parametrize("content", [b"", b"no Parquet at all", b"PAR1PAR1"])
def test_a_file_that_is_no_parquet(settings, content):
    file = deliver_day(settings, "2026-06-01", [ANN])
    written_long_ago(file, content)
    message = refused(settings, SchemaError)
    assert message.startswith(f"{file} is no readable Parquet file (")
    assert message.endswith("write it again")


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_is_half_written_may_be_retried(settings, share):
    file = deliver_day(settings, "2026-06-01", [ANN])
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    message = refused(settings, PartitionNotReadyError)
    assert message.startswith(f"{file} is no readable Parquet file (")
    assert "s ago, less than 900: it may not be finished. The run will be retried" in message


def test_a_parquet_file_with_a_corrupt_page(settings):
    deliver_day(settings, "2026-06-01", [ANN])
    file = deliver(settings, f"{FOLDER}/broken.parquet", app_rows([BOB] * 1000))
    content = bytearray(file.read_bytes())
    content[4:200] = b"\xff" * 196
    written_long_ago(file, content)
    assert refused(settings, SchemaError).startswith(f"{file} is no readable Parquet file (")


def test_an_empty_partition(settings):
    file = deliver_day(settings, "2026-06-01", [])
    message = refused(settings, SchemaError)
    assert message == (
        f"{file}: 0 rows, expected at least 1; deliver app_logs dt=2026-06-01 again with its rows, or, where nobody used it that "
        "day, load the days before and after it: mfn_validate announces it with the next"
    )


def test_a_folder_without_a_row_of_its_day(settings):
    file = deliver_day(settings, "2026-06-01", [("ann", "bank", "finance", "2026-06-02T09:00")])
    message = refused(settings, SchemaError)
    assert f"({file}): none of 1 rows has an event_time on 2026-06-01 (UTC), the day of its folder, but on 2026-06-02" in message


def test_a_folder_whose_name_is_no_day(settings):
    deliver(settings, "app_logs/dt=2026-06-31/a.parquet", app_rows([ANN]))
    with pytest.raises(SchemaError, match=r"dt=2026-06-31: the folder's name is no day; name it dt=YYYY-MM-DD"):
        plan(settings)


def test_a_folder_whose_day_is_spelt_otherwise_would_never_be_found(settings):
    deliver(settings, "app_logs/dt=20260601/a.parquet", app_rows([ANN]))
    with pytest.raises(SchemaError, match=r"dt=20260601: the folder's name is no day; name it dt=YYYY-MM-DD"):
        plan(settings)


@pytest.mark.parametrize("beside", [[], ["a.parquet"]])
def test_files_in_a_folder_of_a_daily_folder_are_not_passed_over(settings, beside):
    for name in ["hour=09/a.parquet", *beside]:
        deliver(settings, f"app_logs/dt=2026-06-01/{name}", app_rows([ANN]))
    with pytest.raises(SchemaError, match=r"dt=2026-06-01 holds the folder hour=09, whose Parquet files are not read: put them into dt="):
        plan(settings, "2026-06-01", "2026-06-01")


@pytest.mark.parametrize("name", ["_temporary/0/a.parquet", ".spark/a.parquet", "checksums/a.crc"])
def test_folders_of_no_data_in_a_daily_folder_do_not_matter(settings, name):
    for path in ("a.parquet", name):
        deliver(settings, f"app_logs/dt=2026-06-01/{path}", app_rows([ANN]))
    assert plan(settings, "2026-06-01", "2026-06-01") == [{"first_day": "2026-06-01", "last_day": "2026-06-01"}]


def test_a_day_that_has_not_arrived_may_be_retried(settings):
    deliver_day(settings, "2026-06-01", [ANN])
    with pytest.raises(PartitionNotReadyError, match=r"app_logs/dt=2026-06-02 has no Parquet file yet"):
        plan(settings, "2026-06-02", "2026-06-02")


def test_a_folder_that_is_still_being_written_has_not_arrived(settings):
    deliver(settings, "app_logs/dt=2026-06-02/_temporary.parquet", app_rows([ANN]))
    with pytest.raises(PartitionNotReadyError, match=r"app_logs/dt=2026-06-02 has no Parquet file yet"):
        plan(settings, "2026-06-02", "2026-06-02")


def test_a_missing_partition_inside_a_range(settings):
    for day in ("2026-06-01", "2026-06-03"):
        deliver_day(settings, day, [ANN])
    with pytest.raises(
        SchemaError, match=r"1 of 3 daily folders between 2026-06-01 and 2026-06-03 are missing or empty, first dt=2026-06-02"
    ):
        plan(settings, "2026-06-01", "2026-06-03")


def test_a_range_that_ends_after_the_last_partition(settings):
    deliver_day(settings, "2026-06-01", [ANN])
    with pytest.raises(SchemaError, match="first dt=2026-06-02"):
        plan(settings, None, "2026-06-03")


def test_a_log_that_is_absent(settings):
    with pytest.raises(
        SchemaError, match=r"no app_logs under .*: neither app_logs/dt=YYYY-MM-DD/\*\.parquet nor app_logs\.parquet"
    ) as caught:
        plan(settings)
    assert "take macro out of MFN_VIEWS" in str(caught.value)


def test_a_view_that_is_not_deployed(settings):
    one_view = settings.model_copy(update={"views": ("micro",)})
    with pytest.raises(ConfigError, match=r"app_logs is the log of view macro, .*MFN_VIEWS is \['micro'\]"):
        plan(one_view)


def test_a_range_that_ends_before_it_starts(settings):
    with pytest.raises(ConfigError, match="first_day=2026-06-02 is after last_day=2026-06-01"):
        plan(settings, "2026-06-02", "2026-06-01")


@pytest.mark.parametrize("time", ["2027-01-01T09:00", "1970-01-01T00:00", None])
def test_a_first_load_without_any_usable_time(settings, time):
    file = deliver(settings, "app_logs.parquet", app_rows([("ann", "bank", "finance", time)]))
    with pytest.raises(SchemaError, match="not null, not before MFN_EARLIEST_DAY=1970-01-02 and not in the future") as caught:
        plan(settings)
    assert str(file) in str(caught.value)
