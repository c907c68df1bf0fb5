"""The curated store: one folder per day and log, read through its manifest and never by listing files."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from mfn_core.errors import ArtifactError
from mfn_core.schema import EVENT_TIME, EVENT_TYPE, PARTITION, SEQ_NO, USER_ID, USERS, LogSchema, View
from tasks import manifest, storage
from tasks.manifest import Manifest
from tasks.settings import Settings

FILES = "files"
CONTRIBUTIONS = "contributions"  # in the facts of a day: by source, what it brought
_PREFIX = f"{PARTITION}="


def schema(log: LogSchema) -> pa.Schema:
    """Columns and types of every curated file of a log."""
    return pa.schema(
        [
            (USER_ID, pa.string()),
            (log.id, pa.string()),
            (log.category, pa.string()),
            (EVENT_TIME, pa.timestamp("us", tz="UTC")),
            (SEQ_NO, pa.int64()),
            (EVENT_TYPE, pa.string()),
            (log.duration, pa.float64()),
        ]
    )


def log_uri(settings: Settings, log: LogSchema) -> str:
    """Folder of a curated log."""
    return storage.join(settings.store, "curated", log.dataset)


def partition_uri(settings: Settings, log: LogSchema, day: date) -> str:
    """Folder of one day of a curated log."""
    return storage.join(log_uri(settings, log), f"{_PREFIX}{day}")


def users_uri(settings: Settings) -> str:
    """Folder of the curated users table."""
    return storage.join(settings.store, "curated", USERS)


def days(settings: Settings, log: LogSchema, first_day: date | None = None, last_day: date | None = None) -> list[date]:
    """Sorted days that have a folder; a folder without a manifest is not published yet."""
    names = [name for name in storage.list_names(log_uri(settings, log)) if name.startswith(_PREFIX)]
    found = [date.fromisoformat(name.removeprefix(_PREFIX)) for name in names]
    return [day for day in found if (first_day is None or day >= first_day) and (last_day is None or day <= last_day)]


def partition(settings: Settings, log: LogSchema, day: date) -> Manifest | None:
    """The manifest of one published day, or None."""
    try:
        return manifest.read(partition_uri(settings, log, day))
    except ArtifactError:
        return None


def partitions(settings: Settings, log: LogSchema, first_day: date | None = None, last_day: date | None = None) -> list[Manifest]:
    """Manifests of the published days, sorted by day."""
    found = (partition(settings, log, day) for day in days(settings, log, first_day, last_day))
    return [each for each in found if each is not None]


def part_uris(curated: Manifest) -> list[str]:
    """The Parquet files of one published artifact; in each file of a day the rows are sorted by ``LogSchema.order``."""
    return [storage.join(curated.uri, name) for name in curated.facts[FILES]]


def row_groups(partition: Manifest, strings: Sequence[str], others: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The row groups of a published day, one after the other: ``strings`` as dictionaries, ``others`` as they are."""
    for uri in part_uris(partition):
        filesystem, path = url_to_fs(uri)
        with filesystem.open(path, "rb") as file:
            metadata = pq.read_metadata(file)
            parquet = pq.ParquetFile(file, metadata=metadata, read_dictionary=_dictionary_encoded(metadata))
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number, [*strings, *others], use_threads=False)
                for name in strings:
                    if not pa.types.is_dictionary(rows[name].type):
                        rows = rows.set_column(rows.column_names.index(name), name, rows[name].dictionary_encode())
                yield rows


def users(settings: Settings) -> Manifest | None:
    """The manifest of the curated users table, or None where the deployment has none."""
    try:
        return manifest.read(users_uri(settings))
    except ArtifactError:
        return None


def content(partitions: Mapping[View, Sequence[Manifest]], users: Manifest | None) -> tuple[dict[View, list[tuple[str, str]]], str | None]:
    """What tells inputs of a dataset from others: day and digest of every partition, by view, and the digest of the users table."""
    days = {view: [(each.facts[PARTITION], each.digest) for each in found] for view, found in partitions.items()}
    return days, users.digest if users else None


def _dictionary_encoded(metadata: pq.FileMetaData) -> list[str]:
    """Columns whose dictionary can be read as it is: Arrow cannot make one of strings that are stored as differences."""
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)] if metadata.num_row_groups else []
    return [column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page]
