"""What became of each raw source: by it an unchanged source is known again, and a changed one cleaned up after.

A daily folder has one receipt; a first load has one per range of days that was read from it.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from mfn_core.errors import ArtifactError
from mfn_core.schema import PARTITION, LogSchema
from tasks import manifest, storage
from tasks.manifest import Manifest
from tasks.raw import Source
from tasks.settings import Settings

_RULES = 1
_RANGE = ".."
_DAILY = f"{PARTITION}="


def digest(settings: Settings, log: LogSchema, source: Source) -> str:
    """Of the files of a source and of everything else that decides what becomes of its rows."""
    return manifest.digest_of(_RULES, dict(source.signatures), rules(settings, log))


def rules(settings: Settings, log: LogSchema) -> dict[str, Any]:
    """The settings that decide what becomes of a row."""
    return {"columns": column_mapping(settings, log), "late_rows": settings.late_rows, "earliest_day": str(settings.earliest_day)}


def column_mapping(settings: Settings, log: LogSchema) -> dict[str, str]:
    """Source column of the contract columns that are called something else."""
    return settings.app_log_columns if log.view == "macro" else settings.item_log_columns


def read_daily(settings: Settings, log: LogSchema, day: date) -> Manifest | None:
    """The receipt of a daily folder, or None."""
    return _read(_uri(settings, log, f"{_DAILY}{day}"))


def read_first_loads(settings: Settings, log: LogSchema, source: str) -> list[tuple[date, date, Manifest]]:
    """First day, last day and receipt of every range of a first load that was read; what a crash left half written is none."""
    folder = _uri(settings, log, source)
    found: list[tuple[date, date, Manifest]] = []
    for name in storage.list_names(folder):
        first, _, last = name.partition(_RANGE)
        if (known := _read(storage.join(folder, name))) is not None:
            found.append((date.fromisoformat(first), date.fromisoformat(last), known))
    return found


def days(receipt: Manifest) -> list[date]:
    """The curated days that the rows of a source went to."""
    return [date.fromisoformat(day) for day in receipt.facts["days"]]


def reach(receipt: Manifest) -> tuple[date, date]:
    """First and last day of all that a first load holds, whatever range of it was read."""
    first, last = receipt.facts["reach"]
    return date.fromisoformat(first), date.fromisoformat(last)


def announce_daily(settings: Settings, log: LogSchema, source: Source, landing: Iterable[date]) -> None:
    """Say, before anything is published, which curated days a daily folder is about to reach, beside those that it reached before.

    Whoever reads the folder again after a crash cleans up after all of them. It counts as not read until ``write_daily``.
    """
    assert source.day is not None, "of a daily folder"
    former = read_daily(settings, log, source.day)
    reached = set(landing) | set(days(former) if former else [])
    uri = _uri(settings, log, source.name)
    manifest.write(
        Manifest(kind="receipt", uri=uri, digest="", created_at=manifest.now(), facts={"days": [str(day) for day in sorted(reached)]})
    )


def write_daily(settings: Settings, log: LogSchema, source: Source, rows: dict[str, int], landed: Iterable[date]) -> None:
    """Record that a daily folder was read, how its rows were counted, and the curated days they went to."""
    _write(settings, log, source, source.name, rows, {"days": [str(day) for day in sorted(landed)]})


def write_first_load(
    settings: Settings,
    log: LogSchema,
    source: Source,
    rows: dict[str, int],
    landed: Iterable[date],
    *,
    span: tuple[date, date],
    reach: tuple[date, date],
) -> None:
    """Record that the days of ``span`` were read from a first load that reaches over the days of ``reach``.

    The receipts of ranges within the span are replaced.
    """
    for first, last, former in read_first_loads(settings, log, source.name):
        if span[0] <= first and last <= span[1]:
            storage.remove(former.uri)
    name = storage.join(source.name, f"{span[0]}{_RANGE}{span[1]}")
    _write(settings, log, source, name, rows, {"days": [str(day) for day in sorted(landed)], "reach": [str(day) for day in reach]})


def is_expected(settings: Settings, log: LogSchema, day: date) -> bool:
    """Whether a log must have rows on a day: daily folders have no gaps, a first load may have."""
    names = storage.list_names(storage.join(settings.store, "receipts", log.dataset))
    folders = [name.removeprefix(_DAILY) for name in names if name.startswith(_DAILY)]
    return str(day) >= min(folders) if folders else not names


def _write(settings: Settings, log: LogSchema, source: Source, name: str, rows: dict[str, int], facts: dict[str, list[str]]) -> None:
    manifest.write(
        Manifest(
            kind="receipt",
            uri=_uri(settings, log, name),
            digest=digest(settings, log, source),
            rows=rows,
            inputs=dict(source.signatures),
            config=rules(settings, log),
            created_at=manifest.now(),
            facts=facts,
        )
    )


def _read(uri: str) -> Manifest | None:
    try:
        return manifest.read(uri)
    except ArtifactError:
        return None


def _uri(settings: Settings, log: LogSchema, name: str) -> str:
    return storage.join(settings.store, "receipts", log.dataset, name)
