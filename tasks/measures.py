"""What the rows of one curated day amount to: measured while they pass, judged afterwards."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfn_core.data.window import seconds_of
from mfn_core.schema import EVENT_TIME, SEQ_NO, USER_ID, LogSchema
from tasks import curated, equal_rows

_DAY_MICROSECONDS = 86_400_000_000
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


class Measures:
    """Counts over batches of the rows of one day, sorted by user and then by time."""

    def __init__(self, log: LogSchema, day: date) -> None:
        self._log, self._schema = log, curated.schema(log)
        # Times first: as numbers they are compared fast, and they leave few rows whose strings are.
        self._compared = [EVENT_TIME, *(name for name in self._schema.names if name != EVENT_TIME)]
        self._begin = seconds_of(day) * 1_000_000
        self._last: pa.RecordBatch | None = None  # one row, its strings as strings
        self._entities = pa.array([], pa.string())
        self._categories = pa.array([], pa.string())
        self._times: list[int] = []
        self.rows = 0
        self.hash_sum = 0
        self._counts = dict.fromkeys(("users", "null_keys", "equal_rows", "outside_day", "null_seq_no", "negative_durations"), 0)

    def add(self, rows: pa.RecordBatch, hashes: pa.Array) -> None:
        """Count the next rows.

        Args:
            rows: of ``coding.compact``, with the columns of the curated log, at least one row; users in ascending order, over all calls.
            hashes: of the rows, 64 bits.
        """
        self.rows += rows.num_rows
        self.hash_sum += _sum(hashes)
        self._add_neighbours(rows)
        log, counts = self._log, self._counts
        self._entities = _distinct(self._entities, rows[log.id].dictionary)
        self._categories = _distinct(self._categories, rows[log.category].dictionary)
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
            "entities": len(self._entities),
            "categories": len(self._categories),
            "min_time": _instant(min(self._times)),
            "max_time": _instant(max(self._times)),
            "hash_sum": self.hash_sum,
        }

    def _add_neighbours(self, rows: pa.RecordBatch) -> None:
        """Count users and equal rows, by rows that lie side by side: also across the border of two batches."""
        users = rows[USER_ID]
        is_sorted = bool(np.all(np.diff(users.indices.to_numpy()) >= 0)) and _ascends(users.dictionary)
        repeated_users = 0
        first, last = self._plain(rows.slice(0, 1)), self._last
        if last is not None:
            border = pa.concat_batches([last, first])
            repeated_users = int(border[USER_ID][0] == border[USER_ID][1])
            is_sorted &= repeated_users == 1 or _ascends(border[USER_ID])
            self._counts["equal_rows"] += len(equal_rows.equal_neighbours(border, self._compared))
        assert is_sorted, "rows come sorted by user: equal ones would not be seen otherwise"
        self._counts["users"] += len(users.dictionary) - repeated_users
        self._counts["equal_rows"] += len(equal_rows.equal_neighbours(rows, self._compared))
        self._last = self._plain(rows.slice(rows.num_rows - 1))

    def _plain(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows.cast(self._schema)


def _ascends(values: pa.Array) -> bool:
    return bool(pc.all(pc.less(values.slice(0, len(values) - 1), values.slice(1)), min_count=0).as_py())


def _distinct(known: pa.Array, values: pa.Array) -> pa.Array:
    return pc.unique(pa.concat_arrays([known, values])) if len(known) else values


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
