"""The ETL engine: DuckDB, spoken to through Ibis, under a memory limit and in UTC."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ibis
from fsspec.core import url_to_fs
from ibis.backends.duckdb import Backend
from ibis.expr import datatypes as dt
from ibis.expr.types import IntegerColumn, Table

from tasks.settings import Settings

NAME = "duckdb"
FILE = "_file"
ROW_NUMBER = "file_row_number"
_FIELD_SEPARATOR = "\x1f"
_NULL = "\x1e"


@contextmanager
def connect(settings: Settings) -> Iterator[Backend]:
    """A connection of its own for one piece of work: it spills to ``settings.scratch`` above the memory limit.

    The time zone of a session is UTC: Ibis sets it. Row order is only what an expression asks for.
    """
    spill = settings.scratch / f"duckdb-{uuid.uuid4().hex[:12]}"
    spill.mkdir(parents=True)
    connection = ibis.duckdb.connect(
        memory_limit=settings.duckdb_memory_limit,
        threads=settings.duckdb_threads,
        temp_directory=str(spill),
        preserve_insertion_order=False,
    )
    try:
        yield connection
    finally:
        connection.disconnect()
        shutil.rmtree(spill, ignore_errors=True)


def read_parquet(connection: Backend, uris: Sequence[str], *, with_origin: bool = False) -> Table:
    """The rows of Parquet files of one schema.

    Args:
        connection: of ``connect``.
        uris: local paths or fsspec URIs; at least one.
        with_origin: adds the file (``FILE``) and the position in it (``ROW_NUMBER``, from 0) of every row.
    """
    assert uris, "read_parquet needs at least one file"
    filesystem, _ = url_to_fs(uris[0])
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    if protocol == "file":
        uris = [url_to_fs(uri)[1] for uri in uris]
    elif not connection.con.filesystem_is_registered(protocol):
        connection.con.register_filesystem(filesystem)
    origin = {"filename": FILE, ROW_NUMBER: True} if with_origin else {}
    return connection.read_parquet(list(uris), hive_partitioning=False, **origin)


def row_hash(table: Table, columns: Sequence[str]) -> IntegerColumn:
    """64 bits of MD5 over the columns of each row.

    The sum over rows is a digest of the content that does not depend on their order. MD5 because DuckDB's own ``hash``
    may change between its versions.
    """
    fields = [ibis.coalesce(table[name].cast("string"), _NULL) for name in columns]
    return _md5_number_lower(ibis.literal(_FIELD_SEPARATOR).join(fields))


@ibis.udf.scalar.builtin(name="md5_number_lower")
def _md5_number_lower(text: dt.string) -> dt.uint64:  # type: ignore[empty-body]  # the engine has the body
    """Ibis has MD5 as a hex string only."""
