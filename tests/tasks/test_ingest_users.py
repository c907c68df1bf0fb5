"""The users table: attributes as strings, one row per user."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.errors import RejectionError, SchemaError
from tasks import audit, curated, manifest
from tasks import ingest_users as module
from tasks.audit import Verdict
from tasks.ingest_users import ingest_users
from tests.tasks.raw_files import deliver


@pytest.fixture(autouse=True)
def _approving_judge(monkeypatch):
    monkeypatch.setattr(audit, "judge", lambda *_: Verdict("stub", True, 0, (), (), ""))


def published(settings):
    users = curated.users(settings)
    assert users is not None, "no users table is published"
    (file,) = curated.part_uris(users)
    return pq.read_table(file).to_pylist()


def test_attributes_become_strings_and_null_means_unlabelled(settings):
    table = pa.table({"user_id": [2, 1], "gender": ["F", None], "age_code": [25, 18], "member": [True, False]})
    deliver(settings, "users.parquet", table)
    made = ingest_users(settings)
    assert published(settings) == [
        {"user_id": "1", "gender": None, "age_code": "18", "member": "false"},
        {"user_id": "2", "gender": "F", "age_code": "25", "member": "true"},
    ]
    assert made["rows"] == {"read": 2, "accepted": 2, "quarantined": 0, "duplicates": 0}
    assert made["facts"]["attributes"] == ["gender", "age_code", "member"]


def test_an_empty_string_is_no_class_but_a_gap(settings):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann", "bob"], "gender": ["F", ""]}))
    ingest_users(settings)
    assert published(settings) == [{"user_id": "ann", "gender": "F"}, {"user_id": "bob", "gender": None}]


def test_integers_with_gaps_that_pandas_wrote_as_floats_are_integers(settings):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann", "bob", "cai"], "age_code": [18.0, float("nan"), None]}))
    ingest_users(settings)
    assert [user["age_code"] for user in published(settings)] == ["18", None, None]


def test_numbers_that_are_not_whole_are_left_out_and_the_log_says_so(settings, caplog):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann", "bob"], "gender": ["F", "M"], "height": [1.7, 2.0]}))
    assert ingest_users(settings)["facts"]["attributes"] == ["gender"]
    assert "left out height: not all of its numbers are whole" in caplog.text


def test_an_unchanged_table_is_read_once_more_under_other_rules(settings, monkeypatch):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    ingest_users(settings)
    assert "nothing to do" in ingest_users(settings)["skipped"]
    monkeypatch.setattr(module, "_RULES", "other rules")
    assert ingest_users(settings)["rows"]["accepted"] == 1


def test_nothing_stays_in_scratch_where_the_store_is_another_machine(settings):
    remote = settings.model_copy(update={"store_uri": f"memory://{settings.var.name}-{id(settings)}"})
    deliver(remote, "users.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    ingest_users(remote)
    assert list(remote.scratch.iterdir()) == []


def test_a_folder_of_files_is_one_table(settings):
    deliver(settings, "users/a.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    deliver(settings, "users/b.parquet", pa.table({"user_id": ["bob"], "gender": pa.array(["M"]).dictionary_encode()}))
    ingest_users(settings)
    assert published(settings) == [{"user_id": "ann", "gender": "F"}, {"user_id": "bob", "gender": "M"}]


def test_a_column_that_some_files_lack_is_null_for_their_users(settings):
    mapped = settings.model_copy(update={"user_columns": {"city": "town"}})
    deliver(mapped, "users/a.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    deliver(mapped, "users/b.parquet", pa.table({"town": ["Oslo"], "user_id": ["bob"]}))
    assert ingest_users(mapped)["facts"]["attributes"] == ["gender", "city"]
    assert published(mapped) == [{"user_id": "ann", "gender": "F", "city": None}, {"user_id": "bob", "gender": None, "city": "Oslo"}]


def test_a_column_that_is_no_attribute_in_one_file_alone_is_refused(settings):
    deliver(settings, "users/a.parquet", pa.table({"user_id": ["ann"], "height": ["tall"]}))
    file = deliver(settings, "users/b.parquet", pa.table({"user_id": ["bob"], "height": [[1.7]]}))
    with pytest.raises(SchemaError) as caught:
        ingest_users(settings)
    assert (
        str(caught.value)
        == f"{file}: column height is list<element: double>, expected string, integer, boolean or whole number; cast it in the source"
    )


def test_a_mapped_column_that_no_file_has(settings):
    mapped = settings.model_copy(update={"user_columns": {"gender": "sexx"}})
    file = deliver(mapped, "users.parquet", pa.table({"user_id": ["ann"], "sex": ["F"]}))
    with pytest.raises(SchemaError, match=f"{file}: column sexx is missing; the file has user_id, sex; add it, or say in MFN_USER_COLUMNS"):
        ingest_users(mapped)


def test_no_users_table_is_skipped_with_the_reason(settings):
    assert ingest_users(settings) == {"skipped": f"there is no users table under {settings.raw}; attribute prediction is left out"}


def test_a_deleted_table_goes_on_being_used_and_the_reason_says_since_when_and_how_to_drop_it(settings, monkeypatch):
    monkeypatch.setattr(manifest, "now", lambda: "2026-06-01T03:00:00+00:00")
    file = deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    ingest_users(settings)
    file.unlink()
    folder = curated.users_uri(settings)
    assert ingest_users(settings) == {
        "skipped": f"there is no users table under {settings.raw} any longer: the one published at 2026-06-01T03:00:00+00:00 goes on being "
        f"used; deliver users.parquet again, or delete {folder} to leave out attribute prediction"
    }
    assert published(settings) == [{"user_id": "ann", "gender": "F"}]
    shutil.rmtree(folder)
    assert "attribute prediction is left out" in ingest_users(settings)["skipped"]


def test_a_table_of_ids_alone_is_published_without_attributes(settings):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann"]}))
    assert ingest_users(settings)["facts"]["attributes"] == []


def test_an_unchanged_table_is_no_work(settings):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    ingest_users(settings)
    assert "nothing to do" in ingest_users(settings)["skipped"]


def test_the_same_users_in_another_order_keep_the_digest(settings):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann", "bob"], "gender": ["F", "M"]}))
    before = ingest_users(settings)["digest"]
    deliver(settings, "users.parquet", pa.table({"user_id": ["bob", "ann", "ann"], "gender": ["M", "F", "F"]}))
    generous = settings.model_copy(update={"max_duplicate_share": 0.5})
    assert ingest_users(generous)["digest"] == before


def test_exact_duplicates_are_dropped_and_counted(settings):
    generous = settings.model_copy(update={"max_duplicate_share": 0.5})
    deliver(generous, "users.parquet", pa.table({"user_id": ["ann", "ann", "bob"], "gender": ["F", "F", None]}))
    assert ingest_users(generous)["rows"] == {"read": 3, "accepted": 2, "quarantined": 0, "duplicates": 1}


def test_columns_are_mapped_by_the_setting(settings):
    mapped = settings.model_copy(update={"user_columns": {"user_id": "uid", "gender": "sex"}})
    deliver(mapped, "users.parquet", pa.table({"uid": ["ann"], "sex": ["F"]}))
    ingest_users(mapped)
    assert published(mapped) == [{"user_id": "ann", "gender": "F"}]


def test_a_column_that_is_no_attribute_is_left_out_and_the_log_says_so(settings, caplog):
    file = deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "height": [[1.7]]}))
    ingest_users(settings)
    assert published(settings) == [{"user_id": "ann"}]
    assert f"left out height ({file})" in caplog.text


def test_a_column_of_nulls_alone_labels_nobody(settings):
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "gender": ["F"], "note": pa.nulls(1)}))
    ingest_users(settings)
    assert published(settings) == [{"user_id": "ann", "gender": "F", "note": None}]


def test_a_column_whose_name_mlflow_refuses_needs_another_name(settings, caplog):
    file = deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "age (years)": [30]}))
    ingest_users(settings)
    assert published(settings) == [{"user_id": "ann"}]
    assert f"left out age (years) ({file})" in caplog.text
    ingest_users(settings.model_copy(update={"user_columns": {"age": "age (years)"}}))
    assert published(settings) == [{"user_id": "ann", "age": "30"}]


def test_a_column_may_have_any_name_that_mlflow_takes(settings):
    names = ["copies", "distinct_rows", "hash", "Hash_sum", "_part", "row", "user"]
    deliver(settings, "users.parquet", pa.table({"user_id": ["ann", "bob"], **{name: ["x", "y"] for name in names}}))
    assert ingest_users(settings)["facts"]["attributes"] == names
    assert published(settings)[1] == {"user_id": "bob", **dict.fromkeys(names, "y")}


@pytest.mark.parametrize("name", ["file_index", "_reason", "_File"])
def test_a_column_with_a_name_that_rejected_rows_are_marked_by(settings, name):
    file = deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], name: ["x"]}))
    with pytest.raises(SchemaError, match=f"{file}: column {name} has a name that ingest gives to a column of its own .*; rename it"):
        ingest_users(settings)


def test_columns_that_differ_in_case_alone(settings):
    file = deliver(settings, "users.parquet", pa.table({"user_id": ["ann"], "gender": ["F"], "Gender": ["M"]}))
    with pytest.raises(SchemaError, match=f"{file}: column Gender and column gender of {file} differ in case alone"):
        ingest_users(settings)


def test_columns_of_two_files_that_differ_in_case_alone(settings):
    first = deliver(settings, "users/a.parquet", pa.table({"user_id": ["ann"], "gender": ["F"]}))
    second = deliver(settings, "users/b.parquet", pa.table({"user_id": ["bob"], "Gender": ["M"]}))
    with pytest.raises(SchemaError, match=f"{second}: column Gender and column gender of {first} differ in case alone"):
        ingest_users(settings)


def test_users_whose_rows_disagree_are_named_with_the_columns(settings):
    table = pa.table(
        {"user_id": ["ann", "ann", "bob", "bob", "cat"], "gender": ["F", "M", "M", None, "F"], "city": ["x", "x", "y", "z", "x"]}
    )
    file = deliver(settings, "users.parquet", table)
    with pytest.raises(SchemaError) as caught:
        ingest_users(settings)
    assert str(caught.value) == (
        f"{file}: 2 users have rows with different attributes, expected one value per user and column: "
        "ann (gender), bob (gender, city); keep one row per user"
    )
    assert curated.users(settings) is None


def test_a_table_without_user_id(settings):
    file = deliver(settings, "users.parquet", pa.table({"uid": ["ann"], "gender": ["F"]}))
    with pytest.raises(SchemaError) as caught:
        ingest_users(settings)
    assert str(caught.value) == (
        f"{file}: column user_id is missing; the file has uid, gender; add it, or say in MFN_USER_COLUMNS which column holds user_id"
    )


def test_an_empty_table(settings):
    file = deliver(settings, "users.parquet", pa.table({"user_id": pa.array([], pa.string())}))
    with pytest.raises(SchemaError, match=f"{file}: 0 rows, expected at least 1"):
        ingest_users(settings)


def test_rows_without_user_are_quarantined_and_too_many_stop(settings):
    file = deliver(settings, "users.parquet", pa.table({"user_id": ["ann", None], "gender": ["F", "M"]}))
    with pytest.raises(RejectionError, match=f"{file}: 1 of 2 rows \\(50.0%\\) have no user_id, more than max_rejected_share=0.01"):
        ingest_users(settings)
    (part,) = Path(settings.store, "quarantine/users").iterdir()
    (row,) = pq.read_table(part).to_pylist()
    assert (row["gender"], row["_reason"], row["_file"], row["_row_number"]) == ("M", "user_id is null or empty", str(file), 1)
