"""Equal rows of a sorted stream, wherever its batches end."""

import pyarrow as pa
import pytest

from tasks.equal_rows import runs

NAN = float("nan")


def batch(rows):
    """Rows of (user, duration, hash, is primary)."""
    users, durations, hashes, primary = zip(*rows, strict=True)
    columns = {
        "user": pa.array(users, pa.string()),
        "duration": pa.array(durations, pa.float64(), from_pandas=False),
        "hash": pa.array(hashes, pa.uint64()),
        "primary": pa.array(primary),
    }
    return pa.RecordBatch.from_pydict(columns)


def users_of(batches):
    """One user per run, over the whole stream."""
    return [user for each in runs(batches, ["user", "duration"], "hash") for user in each.first()["user"].to_pylist()]


ANN = ("ann", 1.0, 11, True)
BOB = ("bob", None, 22, False)
CAI = ("cai", NAN, 33, True)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_run_is_one_wherever_the_batches_end(cut):
    rows = [ANN, BOB, BOB, BOB, CAI, CAI]
    assert users_of([batch(rows[:cut]), batch(rows[cut:])]) == ["ann", "bob", "cai"]


def test_rows_that_share_a_hash_only_are_different():
    assert users_of([batch([ANN, ("bob", 1.0, 11, True)])]) == ["ann", "bob"]


def test_null_and_nan_equal_themselves_and_not_each_other():
    rows = [("ann", None, 11, True), ("ann", None, 11, True), ("ann", NAN, 11, True), ("ann", NAN, 11, True)]
    assert users_of([batch(rows)]) == ["ann", "ann"]


def test_any_and_all_go_by_run():
    rows = [ANN, ("bob", None, 22, True), BOB, ("cai", NAN, 33, True)]
    (found,) = runs([batch(rows)], ["user", "duration"], "hash")
    assert found.any("primary").tolist() == [True, True, True]
    assert found.all("primary").tolist() == [True, False, True]


def test_no_batches_are_no_runs():
    assert list(runs([], ["user", "duration"], "hash")) == []
