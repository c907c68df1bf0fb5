"""The ETL engine: DuckDB, spoken to through Ibis, under a memory limit and in UTC."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ibis
from fsspec.core import url_to_fs
from ibis.backends.duckdb import Backend
from ibis.expr import datatypes as dt
from ibis.expr.types import DateValue, IntegerColumn, Table, TimestampValue

from tasks import storage
from tasks.settings import Settings

NAME = "duckdb"
FILE = "file_index"
ROW_NUMBER = "file_row_number"
PATH = "_file"


@contextmanager
def connect(settings: Settings) -> Iterator[Backend]:
    """A connection of its own for one piece of work: it spills to ``settings.scratch`` above the memory limit.

    The time zone of a session is UTC: Ibis sets it. Row order is only what an expression asks for.
    """
    with storage.temporary_folder(settings.scratch) as spill:
        connection = ibis.duckdb.connect(
            memory_limit=settings.duckdb_memory_limit,
            threads=settings.duckdb_threads,
            temp_directory=str(spill),
            preserve_insertion_order=False,
        )
        try:
            yield _quiet(connection)
        finally:
            connection.disconnect()


@contextmanager
def beside(connection: Backend) -> Iterator[Backend]:
    """A second connection to the same database, under the same memory limit: for one more thread."""
    other = ibis.duckdb.from_connection(connection.con.cursor())
    try:
        yield _quiet(other)
    finally:
        other.disconnect()


def _quiet(connection: Backend) -> Backend:
    """Without the progress bar that the engine draws, line after line, into the log of a task of more than two seconds."""
    connection.raw_sql("SET enable_progress_bar = false")
    return connection


def read_parquet(connection: Backend, uris: Sequence[str], *, with_origin: bool = False) -> Table:
    """The rows of Parquet files of one schema.

    Args:
        connection: of ``connect``.
        uris: local paths or fsspec URIs; at least one.
        with_origin: adds the file (``FILE``, its position in ``uris``) and the position in it (``ROW_NUMBER``, from 0) of every row.
    """
    assert uris, "read_parquet needs at least one file"
    filesystem, _ = url_to_fs(uris[0])
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    if protocol == "file":
        uris = [url_to_fs(uri)[1] for uri in uris]
    elif not connection.con.filesystem_is_registered(protocol):
        connection.con.register_filesystem(filesystem)
    if not with_origin:
        return connection.read_parquet(list(uris), hive_partitioning=False)
    # Ibis does not see these columns: a number for a file is cheaper to carry, and to join on, than its name.
    name = f"files_{uuid.uuid4().hex}"
    files = ", ".join("'" + uri.replace("'", "''") + "'" for uri in uris)
    rows = f"read_parquet([{files}], hive_partitioning=false)"
    connection.raw_sql(f"CREATE TEMP VIEW {name} AS SELECT *, {FILE}::BIGINT AS {FILE}, {ROW_NUMBER} FROM {rows}")  # noqa: S608  # quoted above
    return connection.table(name)


def paths(uris: Sequence[str]) -> Table:
    """The name (``PATH``) of every ``FILE`` of ``read_parquet``."""
    rows = [{FILE: number, PATH: uri} for number, uri in enumerate(uris)]
    return ibis.memtable(rows, schema=ibis.schema({FILE: "int64", PATH: "string"}))


def row_hash(table: Table, columns: Sequence[str]) -> IntegerColumn:
    """64 bits over the columns of each row.

    The sum over distinct rows is a digest of the content that does not depend on their order. The engine's own hash, because MD5 of
    the row as text takes longer than reading and sorting it. A later DuckDB may hash otherwise: days that are read again are then said
    to have changed, once (``tests/tasks/test_engine.py`` notices).
    """
    return _hash(ibis.struct({name: table[name] for name in columns}))


def utc_day(time: TimestampValue) -> DateValue:
    """The UTC day of an instant; by way of microseconds, since a cast asks the calendar of a time zone for every row."""
    return _make_timestamp(_epoch_us(time)).date()


@ibis.udf.scalar.builtin(name="hash")
def _hash(row) -> dt.uint64:  # type: ignore[empty-body]  # the engine has the body
    """Ibis casts it to a signed number by way of bits."""


@ibis.udf.scalar.builtin(name="epoch_us")
def _epoch_us(time: dt.Timestamp("UTC")) -> dt.int64:  # type: ignore[empty-body]  # likewise
    """Microseconds since 1970."""


@ibis.udf.scalar.builtin(name="make_timestamp")
def _make_timestamp(microseconds: dt.int64) -> dt.timestamp:  # type: ignore[empty-body]  # likewise
    """A time without a zone."""
