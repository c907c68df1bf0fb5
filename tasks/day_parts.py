"""Sorted rows into the Parquet files of curated days, each measured while it is written."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.expr.types import Table
from numpy.typing import NDArray

from mfn_core.schema import EVENT_TIME, EVENT_TYPE, SEQ_NO, USER_ID, LogSchema
from tasks import coding, curated, parts
from tasks.equal_rows import runs
from tasks.log_rows import DAY, ROW_HASH, SOURCE
from tasks.measures import Measures

PRIMARY = "_primary"
LATE = "_late"
_WHOLE_DICTIONARY = 2**30


@dataclass(frozen=True)
class Part:
    """The distinct rows that one source brings to one day, on their way to the store."""

    source: str
    day: date
    arrived: int
    measures: Measures
    path: Path


@dataclass(frozen=True)
class MergedDay:
    """A day of several contributions: what it amounts to, and the file of the rows that the primary one lacks."""

    day: date
    measures: Measures
    late: int
    extra: Part | None


def write_sorted(rows: Iterable[pa.RecordBatch], log: LogSchema, columns: Sequence[str], folder: Path) -> Iterator[Part]:
    """Write one file for each source and day; of equal rows one is kept.

    Args:
        rows: with source, day and hash, sorted by source, day and the order of the log.
        log: which log.
        columns: of the contract, that the rows have.
        folder: where the files are put.
    """
    for (source, day), pieces in groupby(parts.pieces(rows, [SOURCE, DAY]), key=lambda piece: piece[0]):
        file, arrived = _File(log, day, folder), 0
        for each in runs((batch for _, batch in pieces), columns, ROW_HASH):
            arrived += each.rows.num_rows
            file.write(each.first())
        yield file.close(source, arrived)


def merge(rows: Table, log: LogSchema, folder: Path) -> Iterator[MergedDay]:
    """Merge the contributions of days: equal rows of several are one.

    Args:
        rows: of curated files with their hash, ``PRIMARY`` and ``LATE``, sorted by day and the order of the log.
        log: which log.
        folder: where the files of further rows are put.
    """
    columns = curated.schema(log).names
    for (day,), pieces in groupby(parts.pieces(parts.batches(rows), [DAY]), key=lambda piece: piece[0]):
        measures, late, extra = Measures(log, day), 0, _File(log, day, folder)
        for each in runs((batch for _, batch in pieces), columns, ROW_HASH):
            first = each.first()
            measures.add(_conform(first, log), first[ROW_HASH])
            late += int(each.all(LATE).sum())
            _write_where(extra, first, ~each.any(PRIMARY))
        yield MergedDay(day, measures, late, extra.close("", extra.measures.rows) if extra.measures.rows else None)


class _File:
    """A curated file in the making."""

    def __init__(self, log: LogSchema, day: date, folder: Path) -> None:
        self._log, self._day = log, day
        self._path = folder / f"{uuid.uuid4().hex}.parquet"
        self._writer: pq.ParquetWriter | None = None
        self.measures = Measures(log, day)

    def write(self, rows: pa.RecordBatch) -> None:
        conformed = _conform(rows, self._log)
        self.measures.add(conformed, rows[ROW_HASH])
        self._writer = self._writer or pq.ParquetWriter(
            self._path,
            conformed.schema,
            store_schema=False,  # else strings would come back as dictionaries
            compression="zstd",
            # The dictionaries are there, and sorted users are runs of one code: as plain strings they take longer to write and to read.
            use_dictionary=[USER_ID, self._log.id, self._log.category, EVENT_TYPE],
            dictionary_pagesize_limit=_WHOLE_DICTIONARY,
            column_encoding={EVENT_TIME: "DELTA_BINARY_PACKED", SEQ_NO: "DELTA_BINARY_PACKED"},
            write_statistics=[EVENT_TIME],  # by which the engine passes over rows; those of strings cost as much as their pages
        )
        self._writer.write_batch(conformed)

    def close(self, source: str, arrived: int) -> Part:
        assert self._writer is not None, "a file has rows"
        self._writer.close()
        return Part(source, self._day, arrived, self.measures, self._path)


def _write_where(file: _File, rows: pa.RecordBatch, chosen: NDArray[np.bool_]) -> None:
    if chosen.any():
        file.write(rows if chosen.all() else rows.filter(pa.array(chosen)))


def _conform(rows: pa.RecordBatch, log: LogSchema) -> pa.RecordBatch:
    """The columns of the curated log, coded; one that no file had is null, and 0 where it numbers rows."""
    schema = curated.schema(log)
    return coding.compact(pa.RecordBatch.from_arrays([_column(rows, field) for field in schema], names=schema.names))


def _column(rows: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.name not in rows.schema.names:
        return pa.repeat(pa.scalar(0 if field.name == SEQ_NO else None, field.type), rows.num_rows)
    column = rows[field.name]
    return column if pa.types.is_dictionary(column.type) else column.cast(field.type)
