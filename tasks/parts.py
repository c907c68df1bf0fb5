"""A sorted stream of rows into many Parquet files, one for each value of its key columns."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.expr.types import Table

from tasks import storage

_ROWS_PER_BATCH = 500_000


def write_by_keys(rows: Table, keys: Sequence[str], schema: pa.Schema | None, scratch: Path) -> Iterator[tuple[tuple[Any, ...], Path]]:
    """Write one file for each value of the key columns, a file at a time.

    Args:
        rows: sorted by the key columns first.
        keys: columns without nulls that are no part of the files.
        schema: columns and types of the files; None: all columns but the keys, as they are.
        scratch: folder of this machine. What nobody has moved on by the end of the last file is removed.

    Yields:
        The values of the key columns, and the finished file.
    """
    with storage.temporary_folder(scratch) as folder:
        for key, found in groupby(pieces(batches(rows), keys), key=lambda piece: piece[0]):
            path = folder / f"{uuid.uuid4().hex}.parquet"
            writer: pq.ParquetWriter | None = None
            for _, batch in found:
                piece = batch.drop_columns(list(keys)) if schema is None else batch.select(schema.names).cast(schema)
                writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
                writer.write_batch(piece)
            assert writer is not None, "groupby yields no empty group"
            writer.close()
            yield key, path


def batches(rows: Table) -> Iterator[pa.RecordBatch]:
    """The rows as the engine brings them."""
    return iter(rows.to_pyarrow_batches(chunk_size=_ROWS_PER_BATCH))


def pieces(rows: Iterable[pa.RecordBatch], keys: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pa.RecordBatch]]:
    """Batches of rows that are sorted by key columns without nulls, cut where those change; with their values."""
    for batch in rows:
        if batch.num_rows:
            bounds = _bounds(batch, keys)
            for start, end in pairwise(bounds):
                yield tuple(batch[name][start].as_py() for name in keys), batch.slice(start, end - start)


def _bounds(batch: pa.RecordBatch, keys: Sequence[str]) -> list[int]:
    differs = np.zeros(batch.num_rows - 1, bool)
    for name in keys:
        column = batch[name]
        if pa.types.is_dictionary(column.type):
            column = column.indices  # Arrow would write out every string to compare it
        differs |= pc.not_equal(column.slice(1), column.slice(0, batch.num_rows - 1)).to_numpy(zero_copy_only=False)
    return [0, *(np.flatnonzero(differs) + 1).tolist(), batch.num_rows]
