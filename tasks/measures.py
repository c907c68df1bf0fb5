"""What the rows of one curated day amount to: measured while they pass, judged afterwards."""

from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfn_core.schema import EVENT_TIME, SEQ_NO, USER_ID, LogSchema
from tasks import runs

_DAY_MICROSECONDS = 86_400_000_000
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


class Measures:
    """Counts over batches of the rows of one day, sorted by user and then by time."""

    def __init__(self, log: LogSchema, day: date) -> None:
        self._log = log
        self._begin = int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000
        self._last: pa.RecordBatch | None = None
        self._entities = pa.array([], pa.string())
        self._categories = pa.array([], pa.string())
        self._times: list[int] = []
        self.rows = 0
        self.hash_sum = 0
        self._counts = dict.fromkeys(("users", "null_keys", "equal_rows", "outside_day", "null_seq_no", "negative_durations"), 0)

    def add(self, rows: pa.RecordBatch, hashes: pa.Array) -> None:
        """Count the next rows.

        Args:
            rows: with the columns of the curated log, at least one row; users in ascending order, over all calls.
            hashes: of the rows, 64 bits.
        """
        self.rows += rows.num_rows
        self.hash_sum += _sum(hashes)
        self._add_neighbours(rows)
        log, counts = self._log, self._counts
        self._entities = _distinct(self._entities, rows[log.id])
        self._categories = _distinct(self._categories, rows[log.category])
        counts["null_keys"] += _rows_with_null([rows[name] for name in (USER_ID, log.id, log.category, EVENT_TIME)])
        counts["null_seq_no"] += rows[SEQ_NO].null_count
        if rows[log.duration].null_count < rows.num_rows:
            counts["negative_durations"] += pc.sum(pc.less(rows[log.duration], 0.0)).as_py() or 0
        times = rows[EVENT_TIME].drop_null().cast(pa.int64()).to_numpy()
        counts["outside_day"] += int(np.count_nonzero((times < self._begin) | (times >= self._begin + _DAY_MICROSECONDS)))
        self._times += [int(times.min()), int(times.max())] if len(times) else []

    def row(self) -> dict[str, Any]:
        """The metrics by name; times are UTC."""
        return self._counts | {
            "accepted": self.rows,
            "entities": len(self._entities.drop_null()),
            "categories": len(self._categories.drop_null()),
            "min_time": _instant(min(self._times)),
            "max_time": _instant(max(self._times)),
            "hash_sum": self.hash_sum,
        }

    def _add_neighbours(self, rows: pa.RecordBatch) -> None:
        """Count users and equal rows, by rows that lie side by side: also across the border of two batches."""
        names = [USER_ID, EVENT_TIME, *(name for name in rows.schema.names if name not in (USER_ID, EVENT_TIME))]
        joined = rows if self._last is None else pa.concat_batches([self._last, rows])
        users = joined[USER_ID]
        changes = np.flatnonzero(pc.not_equal(users.slice(1), users.slice(0, len(users) - 1)).to_numpy(zero_copy_only=False))
        before, after = users.take(pa.array(changes)), users.take(pa.array(changes + 1))
        assert pc.all(pc.less(before, after), min_count=0).as_py(), "rows come sorted by user: equal ones would not be seen otherwise"
        self._counts["users"] += len(changes) + (self._last is None)
        self._counts["equal_rows"] += len(runs.equal_neighbours(joined, names))
        self._last = rows.slice(rows.num_rows - 1)


def _distinct(known: pa.Array, values: pa.Array) -> pa.Array:
    found = pc.unique(values)
    return pc.unique(pa.concat_arrays([known, found])) if len(known) else found


def _rows_with_null(columns: list[pa.Array]) -> int:
    if not any(column.null_count for column in columns):
        return 0
    return int(np.count_nonzero(np.any([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=0)))


def _sum(hashes: pa.Array) -> int:
    """Exact sum of unsigned 64-bit numbers, in two halves."""
    values = hashes.to_numpy()
    return (int((values >> _HALF).sum()) << 32) + int((values & _LOW).sum())


def _instant(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
