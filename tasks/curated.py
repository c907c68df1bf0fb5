"""The curated store: one folder per day and log, read through its manifest and never by listing files."""

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

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
    """The Parquet files of one published artifact."""
    return [storage.join(curated.uri, name) for name in curated.facts[FILES]]


def files(settings: Settings, log: LogSchema, first_day: date | None = None, last_day: date | None = None) -> list[str]:
    """The Parquet files of the published days, sorted by day; rows inside a file are sorted by ``LogSchema.order``."""
    return [uri for each in partitions(settings, log, first_day, last_day) for uri in part_uris(each)]


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
