"""Raw Parquet as it was delivered: which files make up a source, and whether they keep the data contract."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from mfn_core.errors import ConfigError, MFNError, PartitionNotReadyError, SchemaError
from mfn_core.schema import EVENT_TIME, EVENT_TYPE, PARTITION, SEQ_NO, USER_ID, LogSchema
from tasks import storage
from tasks.settings import Settings

FIRST_LOAD = "first-load"
_PREFIX = f"{PARTITION}="
_PARQUET = re.compile(r"[^_.].*\.parquet")
_READERS = 16
_SETTLED = timedelta(minutes=15)  # less than a retry waits: the next try judges the file, unless it was written meanwhile


@dataclass(frozen=True)
class Source:
    """Files that are delivered, and replaced, together: one ``dt=`` folder, or the files of a first load."""

    name: str
    day: date | None
    signatures: Mapping[str, str]

    @property
    def uris(self) -> list[str]:
        """The files, sorted."""
        return sorted(self.signatures)


@dataclass(frozen=True)
class Footer:
    """What the footer of a Parquet file says."""

    uri: str
    rows: int
    schema: pa.Schema


@dataclass(frozen=True)
class Rule:
    """The type that a column of the contract may have in a raw file."""

    expected: str
    fits: Callable[[pa.DataType], bool]


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


_IDENTIFIER = Rule("string or integer", lambda kind: _is_string(kind) or pa.types.is_integer(kind))
_OTHER_ATTRIBUTES = (pa.types.is_boolean, pa.types.is_floating, pa.types.is_null)
_ATTRIBUTE = Rule(
    "string, integer, boolean or whole number", lambda kind: _IDENTIFIER.fits(kind) or any(fits(kind) for fits in _OTHER_ATTRIBUTES)
)


def first_load(settings: Settings, log: LogSchema) -> Source | None:
    """The files beside the daily folders: ``<log>.parquet`` or ``<log>/*.parquet``; None where there are none."""
    signatures = _signatures(settings.raw, re.compile(rf"{log.dataset}\.parquet"))
    signatures |= _signatures(storage.join(settings.raw, log.dataset), _PARQUET)
    return Source(FIRST_LOAD, None, signatures) if signatures else None


def days(settings: Settings, log: LogSchema) -> list[date]:
    """Sorted days of the ``dt=`` folders, without opening them.

    Raises:
        SchemaError: a folder's name is no day.
    """
    folder = storage.join(settings.raw, log.dataset)
    names = [name for name in storage.list_names(folder) if name.startswith(_PREFIX)]
    return [_day_of(name, folder) for name in names]


def daily(settings: Settings, log: LogSchema, day: date) -> Source | None:
    """The files of one ``dt=`` folder; None where no file has arrived."""
    name = f"{_PREFIX}{day}"
    signatures = _signatures(storage.join(settings.raw, log.dataset, name), _PARQUET)
    return Source(name, day, signatures) if signatures else None


def check_flat(settings: Settings, log: LogSchema, day: date) -> None:
    """Refuse a ``dt=`` folder with folders of its own, as of hours: whatever lies in them would be passed over without a word.

    Raises:
        SchemaError: one of them holds Parquet files.
    """
    folder = storage.join(settings.raw, log.dataset, f"{_PREFIX}{day}")
    filesystem, path = url_to_fs(folder)
    entries = filesystem.ls(path, detail=True) if filesystem.isdir(path) else []
    names = sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")
    for name in names:
        files = filesystem.find(f"{path}/{name}") if name[0] not in "_." else []
        if any(_PARQUET.fullmatch(file.rsplit("/", 1)[-1]) for file in files):
            raise SchemaError(
                f"{folder} holds the folder {name}, whose Parquet files are not read: put them into {_PREFIX}{day} itself, under names of "
                "their own, and remove the folder"
            )


def users(settings: Settings) -> Source | None:
    """The files of the users table: ``users.parquet`` or ``users/*.parquet``; None where there are none."""
    signatures = _signatures(settings.raw, re.compile(r"users\.parquet"))
    signatures |= _signatures(storage.join(settings.raw, "users"), _PARQUET)
    return Source("users", None, signatures) if signatures else None


def footers(uris: Sequence[str]) -> list[Footer]:
    """The footers of Parquet files.

    Raises:
        SchemaError: a file is no Parquet.
        PartitionNotReadyError: it is none yet.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_footer, uris))


@contextmanager
def corrupt_files_named(uris: Sequence[str]) -> Iterator[None]:
    """The engine fails on a corrupt page without naming the file: read them one by one to find it.

    Raises:
        SchemaError: a file cannot be read.
        PartitionNotReadyError: it cannot be read yet.
    """
    try:
        yield
    except duckdb.Error:
        for uri in uris:
            _read_to_the_end(uri)
        raise


def log_rules(log: LogSchema) -> dict[str, Rule]:
    """The types that a raw log may have, by contract column."""
    return {
        USER_ID: _IDENTIFIER,
        log.id: _IDENTIFIER,
        log.category: Rule("string", _is_string),
        EVENT_TIME: Rule("timestamp with a time zone", lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None),
        EVENT_TYPE: Rule("string", _is_string),
        log.duration: Rule("number", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)),
        SEQ_NO: Rule("integer", pa.types.is_integer),
    }


def user_rules(names: Sequence[str]) -> dict[str, Rule]:
    """The types that a raw users table may have: its id, and one column per attribute."""
    return {name: _IDENTIFIER if name == USER_ID else _ATTRIBUTE for name in names}


def attribute_columns(schema: pa.Schema) -> set[str]:
    """The columns of a users table whose type an attribute may have."""
    return {field.name for field in schema if _ATTRIBUTE.fits(field.type)}


def check_mapping(mapping: Mapping[str, str], known: Sequence[str] | None, setting: str) -> None:
    """Refuse a column mapping that names a column the contract does not have.

    Args:
        mapping: source column by contract column.
        known: columns of the contract; None: any name may be one.
        setting: where the mapping is set.

    Raises:
        ConfigError: a key is misspelt, or two columns are mapped to one source column.
    """
    unknown = sorted(set(mapping) - set(known)) if known is not None else []
    if unknown:
        raise ConfigError(f"{setting} maps {', '.join(unknown)}, which the contract does not have; its columns are {', '.join(known)}")
    shared = sorted({source for source in mapping.values() if list(mapping.values()).count(source) > 1})
    if shared:
        raise ConfigError(
            f"{setting} maps more than one column to {', '.join(shared)}; give each contract column a source column of its own"
        )


def check_names(columns: Iterable[tuple[str, str]], own: Sequence[str] = ()) -> None:
    """Refuse names that the engine would confuse: it tells no columns apart by case.

    Args:
        columns: name and file of each.
        own: names of columns that ingest adds.

    Raises:
        SchemaError: a column has a name of ``own``, or two have names that differ in case alone.
    """
    reserved = {name.lower() for name in own}
    first: dict[str, tuple[str, str]] = {}
    for name, file in columns:
        if name.lower() in reserved:
            raise SchemaError(
                f"{file}: column {name} has a name that ingest gives to a column of its own ({', '.join(own)}); rename it in the source"
            )
        other, its_file = first.setdefault(name.lower(), (name, file))
        if other != name:
            raise SchemaError(
                f"{file}: column {name} and column {other} of {its_file} differ in case alone, which the engine does not tell apart; "
                "rename one of them in the source"
            )


def check_columns(footer: Footer, mapping: Mapping[str, str], rules: Mapping[str, Rule], required: Sequence[str], setting: str) -> None:
    """Hold the columns of a file against the contract.

    Raises:
        SchemaError: a required or mapped column is missing, or a column has another type.
    """
    names = set(footer.schema.names)
    for column, rule in rules.items():
        source = mapping.get(column, column)
        if source not in names:
            if column in required or column in mapping:
                raise SchemaError(
                    f"{footer.uri}: column {source} is missing; the file has {', '.join(footer.schema.names)}; "
                    f"add it, or say in {setting} which column holds {column}"
                )
            continue
        kind = footer.schema.field(source).type
        is_absent = pa.types.is_null(kind) and column not in required
        if not is_absent and not rule.fits(kind):
            raise SchemaError(f"{footer.uri}: column {source} is {kind}, expected {rule.expected}; {_remedy(column, kind)}")


def group_by_schema(footers: Sequence[Footer]) -> list[list[Footer]]:
    """Files of equal columns and types together, since one scan reads files of one schema only."""
    groups: dict[str, list[Footer]] = {}
    for footer in footers:
        groups.setdefault(str(footer.schema), []).append(footer)
    return list(groups.values())


def _day_of(name: str, folder: str) -> date:
    said = name.removeprefix(_PREFIX)
    with suppress(ValueError):
        if str(day := date.fromisoformat(said)) == said:  # else, as 20260601, it would be looked for by another name
            return day
    raise SchemaError(f"{storage.join(folder, name)}: the folder's name is no day; name it {_PREFIX}YYYY-MM-DD")


def _signatures(folder: str, pattern: re.Pattern[str]) -> dict[str, str]:
    """Size and version of the matching files of a folder, by URI: they change when a file is written anew."""
    filesystem, path = url_to_fs(folder)
    if not filesystem.isdir(path):
        return {}
    found: dict[str, str] = {}
    for entry in filesystem.ls(path, detail=True):
        if entry["type"] == "file" and pattern.fullmatch(entry["name"].rsplit("/", 1)[-1]):
            version = next((entry[key] for key in ("ETag", "etag", "mtime", "LastModified", "updated", "created") if key in entry), "")
            found[_uri(folder, filesystem.unstrip_protocol(entry["name"]), entry["name"])] = f"{entry['size']} bytes, {version}"
    return found


def _uri(folder: str, with_protocol: str, path: str) -> str:
    return with_protocol if "://" in folder else path


def _footer(uri: str) -> Footer:
    filesystem, path = url_to_fs(uri)
    try:
        with filesystem.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            return Footer(uri, parquet.metadata.num_rows, parquet.schema_arrow.remove_metadata())
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(uri, error) from error


def _read_to_the_end(uri: str) -> None:
    filesystem, path = url_to_fs(uri)
    try:
        with filesystem.open(path, "rb") as file:
            for _ in pq.ParquetFile(file).iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(uri, error) from error


def _corrupt(uri: str, error: Exception) -> MFNError:
    """Half a file looks like a broken one: only its age tells, and a new one is not judged yet."""
    if isinstance(error, FileNotFoundError):
        return PartitionNotReadyError(f"{uri} was there when its folder was listed, and is gone: deliver it again, the run will be retried")
    what = f"{uri} is no readable Parquet file ({str(error).strip().splitlines()[0]})"
    age = _age(uri)
    if age is not None and age < _SETTLED:
        return PartitionNotReadyError(
            f"{what}, but was written {age.total_seconds():.0f} s ago, less than {_SETTLED.total_seconds():.0f}: it may not be finished. "
            "The run will be retried; write it again if it is broken, or write files under a name that begins with _ and rename them"
        )
    return SchemaError(f"{what}; write it again")


def _age(uri: str) -> timedelta | None:
    filesystem, path = url_to_fs(uri)
    try:
        return datetime.now(UTC) - filesystem.modified(path)
    except (NotImplementedError, FileNotFoundError):  # not every store tells times
        return None


def _remedy(column: str, kind: pa.DataType) -> str:
    if column == EVENT_TIME and pa.types.is_timestamp(kind):
        return "it has no time zone: write it in UTC, as an instant and not as a local time"
    return "cast it in the source"
