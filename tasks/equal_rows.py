"""Equal rows of a sorted stream, side by side in it, taken together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class Runs:
    """Sorted rows in which no run of equal ones is cut apart."""

    rows: pa.RecordBatch
    starts: NDArray[np.int64]  # the first row of every run

    def first(self) -> pa.RecordBatch:
        """One row of every run."""
        return self.rows if len(self.starts) == self.rows.num_rows else self.rows.take(pa.array(self.starts))

    def any(self, name: str) -> NDArray[np.bool_]:
        """Per run: whether a column is true in one of its rows."""
        return np.logical_or.reduceat(_booleans(self.rows[name]), self.starts)

    def all(self, name: str) -> NDArray[np.bool_]:
        """Per run: whether a column is true in all of its rows."""
        return np.logical_and.reduceat(_booleans(self.rows[name]), self.starts)


def runs(batches: Iterable[pa.RecordBatch], columns: Sequence[str], hash_column: str) -> Iterator[Runs]:
    """Split batches of sorted rows at the ends of runs.

    Args:
        batches: none of them empty.
        columns: rows that agree in these are equal, nulls and NaN included.
        hash_column: equal in equal rows.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        if held is not None:
            starts = _starts(held, columns, hash_column)
            cut = int(starts[-1])
            if cut:
                yield Runs(held.slice(0, cut), starts[:-1])
            held = pa.concat_batches([held.slice(cut), batch])
        else:
            held = batch
    if held is not None:
        yield Runs(held, _starts(held, columns, hash_column))


def equal_neighbours(rows: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.int64]:
    """Rows that equal the row after them."""
    found = np.arange(rows.num_rows - 1)
    for name in columns:
        column = rows[name]
        if len(found) == rows.num_rows - 1:
            found = found[_equal(column.slice(0, len(found)), column.slice(1))]
        elif len(found):
            found = found[_equal(column.take(pa.array(found)), column.take(pa.array(found + 1)))]
    return found


def _starts(rows: pa.RecordBatch, columns: Sequence[str], hash_column: str) -> NDArray[np.int64]:
    is_start = np.ones(rows.num_rows, bool)
    is_start[equal_neighbours(rows, [hash_column, *columns]) + 1] = False
    return np.flatnonzero(is_start)


def _equal(left: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    equal = _booleans(pc.fill_null(pc.equal(left, right), False))
    if left.null_count and right.null_count:
        equal |= _booleans(left.is_null()) & _booleans(right.is_null())
    if pa.types.is_floating(left.type):
        equal |= _booleans(pc.fill_null(pc.and_(pc.is_nan(left), pc.is_nan(right)), False))
    return equal


def _booleans(values: pa.Array) -> NDArray[np.bool_]:
    return values.to_numpy(zero_copy_only=False)
