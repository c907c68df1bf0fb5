"""What the rows of a day amount to, counted by hand."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from mfn_core.schema import APP_LOGS
from tasks import coding, curated
from tasks.measures import Measures

DAY = date(2026, 6, 1)


def batch(*rows):
    """Curated rows of (user, app, category, time, seq_no, duration)."""
    columns = list(zip(*rows, strict=True))
    times = [time and datetime.fromisoformat(time).replace(tzinfo=UTC) for time in columns[3]]
    arrays = [*columns[:3], times, columns[4], [None] * len(rows), columns[5]]
    schema = curated.schema(APP_LOGS)
    plain = pa.RecordBatch.from_arrays([pa.array(values, field.type) for values, field in zip(arrays, schema, strict=True)], schema=schema)
    return coding.compact(plain)


def measured(*batches, hashes=None):
    """The metrics of batches."""
    measures = Measures(APP_LOGS, DAY)
    for number, rows in enumerate(batches):
        measures.add(rows, pa.array(hashes[number] if hashes else [1] * rows.num_rows, pa.uint64()))
    return measures.row()


ANN_9 = ("ann", "bank", "finance", "2026-06-01T09:00", 0, 2.5)
ANN_10 = ("ann", "chess", "games", "2026-06-01T10:00", 0, None)
BOB = ("bob", "bank", "finance", "2026-06-01T08:00", 0, -1.0)


def test_users_and_tokens_are_counted_once_over_batches():
    row = measured(batch(ANN_9), batch(ANN_10, BOB))
    assert {name: row[name] for name in ("accepted", "users", "entities", "categories", "equal_rows")} == {
        "accepted": 3,
        "users": 2,
        "entities": 2,
        "categories": 2,
        "equal_rows": 0,
    }


@pytest.mark.parametrize("batches", [[batch(ANN_9, ANN_9, BOB)], [batch(ANN_9), batch(ANN_9, BOB)]])
def test_equal_rows_are_seen_within_and_across_batches(batches):
    assert measured(*batches)["equal_rows"] == 1


def test_what_a_day_must_not_hold_is_counted():
    rows = batch(
        ("ann", None, "finance", "2026-06-01T09:00", None, -1.0),
        ("ann", "bank", None, "2026-06-02T00:00", 0, 0.0),
        ("bob", "bank", "finance", "2026-05-31T23:59", 0, -2.0),
    )
    row = measured(rows)
    assert [row[name] for name in ("null_keys", "null_seq_no", "outside_day", "negative_durations")] == [2, 1, 2, 2]


def test_the_times_are_the_first_and_the_last_of_all_batches():
    row = measured(batch(ANN_9, ANN_10), batch(BOB))
    assert (row["min_time"], row["max_time"]) == (datetime(2026, 6, 1, 8, tzinfo=UTC), datetime(2026, 6, 1, 10, tzinfo=UTC))


def test_the_sum_of_hashes_does_not_overflow():
    assert measured(batch(ANN_9, ANN_10), batch(BOB), hashes=[[2**64 - 1, 2**64 - 1], [3]])["hash_sum"] == 2**65 + 1


def test_rows_that_are_not_sorted_by_user_are_refused():
    with pytest.raises(AssertionError, match="sorted by user"):
        measured(batch(BOB), batch(ANN_9))
