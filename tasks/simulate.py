"""Writes the raw logs of a simulated world: the embedded default input.

``<raw>/simulation.json`` says what the folder holds. It is written first, unfinished, as a claim on the folder, and again last:
so a run that broke off is told from a folder of somebody's own logs, which is never touched.
"""

import logging
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfn_core import simulation
from mfn_core.config import SimulationConfig
from mfn_core.errors import ArtifactError, ConfigError
from mfn_core.schema import APP_LOGS, EVENT_TIME, ITEM_LOGS, PARTITION, USERS
from tasks import storage
from tasks.manifest import Manifest, digest_of, now
from tasks.settings import Settings

SIMULATION = "simulation.json"

_log = logging.getLogger(__name__)
_LOGS = (APP_LOGS.dataset, ITEM_LOGS.dataset)
_USERS_FILE = f"{USERS}.parquet"
_PART = "part-0.parquet"


def simulate(settings: Settings, config: SimulationConfig) -> dict[str, Any]:
    """Write the world of ``config`` below ``settings.raw``. The same world again is no work.

    Returns:
        The manifest of the raw folder.

    Raises:
        ConfigError: the folder holds files that no simulation wrote.
    """
    digest = digest_of(config.model_dump(mode="json"), _code_of_simulation())
    there = _read(settings.raw)
    days = [config.last_day - timedelta(days=back) for back in reversed(range(config.num_days))]
    if there is not None and there.digest == digest and _is_whole(there):
        _log.info("%s already holds this world (digest %s): nothing to do", settings.raw, digest[:12])
        return there.model_dump(mode="json")
    _refuse_foreign_files(settings.raw, there)

    facts = {"first_day": days[0].isoformat(), "last_day": days[-1].isoformat(), "finished": False}
    manifest = Manifest(kind="raw", uri=settings.raw, digest=digest, config=config.model_dump(mode="json"), created_at=now(), facts=facts)
    _write(manifest.model_copy(update={"facts": _claim(facts, there)}))
    world = simulation.simulate(config)
    rows = {USERS: world.users.num_rows}
    for dataset, table in zip(_LOGS, (world.app_logs, world.item_logs), strict=True):
        _write_log(settings, dataset, table, days)
        rows[dataset] = table.num_rows
    _write_users(settings, world.users)

    manifest = manifest.model_copy(update={"rows": rows, "facts": facts | {"finished": True}})
    _write(manifest)
    _log.info("wrote %s to %s into %s: %s", days[0], days[-1], settings.raw, rows)
    return manifest.model_dump(mode="json")


def _code_of_simulation() -> dict[str, str]:
    """Every file of the package: whichever of them changes, the rows may be others."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(simulation.__file__).parent.glob("*.py"))}


def _read(raw: str) -> Manifest | None:
    uri = storage.join(raw, SIMULATION)
    try:
        return Manifest.model_validate(storage.read_json(uri)) if storage.exists(uri) else None
    except (ArtifactError, ValueError) as error:
        raise ConfigError(
            f"{uri} is no record of a simulation ({error}); point MFN_RAW_URI at another folder, or empty this one"
        ) from error


def _write(manifest: Manifest) -> None:
    storage.write_json(storage.join(manifest.uri, SIMULATION), manifest.model_dump(mode="json"))


def _is_whole(there: Manifest) -> bool:
    return there.facts["finished"] and {*_LOGS, _USERS_FILE} <= set(storage.list_names(there.uri))


def _claim(facts: dict[str, Any], there: Manifest | None) -> dict[str, Any]:
    """The days of the new world and of the one that it replaces: both may be there until the writing is done."""
    if there is None:
        return facts
    return facts | {
        "first_day": min(facts["first_day"], there.facts["first_day"]),
        "last_day": max(facts["last_day"], there.facts["last_day"]),
    }


def _refuse_foreign_files(raw: str, there: Manifest | None) -> None:
    known = {SIMULATION, *_LOGS, _USERS_FILE} if there is not None else set[str]()
    foreign = [name for name in storage.list_names(raw) if name not in known and not _is_aside(name)]
    if there is not None:
        foreign += [f"{dataset}/{name}" for dataset in _LOGS for name in _foreign_parts(storage.join(raw, dataset), there)]
    if foreign:
        raise ConfigError(
            f"{raw} holds {', '.join(foreign[:5])}{', …' if len(foreign) > 5 else ''}, which no simulation wrote, and will not be "
            "overwritten; point MFN_RAW_URI at another folder for the simulated world, or empty this one"
        )


def _foreign_parts(folder: str, there: Manifest) -> list[str]:
    first, last = (f"{PARTITION}={there.facts[end]}" for end in ("first_day", "last_day"))
    names = storage.list_names(folder)
    parts = [f"{name}/{part}" for name in names if first <= name <= last for part in storage.list_names(storage.join(folder, name))]
    return [name for name in names if not first <= name <= last] + [part for part in parts if not part.endswith(f"/{_PART}")]


def _is_aside(name: str) -> bool:
    """Hidden files, and what a run that broke off had not yet renamed."""
    return name.startswith(".") or name.endswith(".tmp")


def _write_log(settings: Settings, dataset: str, table: pa.Table, days: list[date]) -> None:
    """One folder per day that has rows; all of them appear at once."""
    uri = storage.join(settings.raw, dataset)
    midnights = np.array([*days, days[-1] + timedelta(days=1)], dtype="datetime64[us]")
    bounds = np.searchsorted(table[EVENT_TIME].cast(pa.timestamp("us")).to_numpy(), midnights)
    with storage.staged_folder(uri, settings.scratch) as folder:
        for day, start, stop in zip(days, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if stop > start:
                part = folder / f"{PARTITION}={day}" / _PART
                part.parent.mkdir()
                pq.write_table(table.slice(start, stop - start), part, compression="zstd")
        if storage.local_path(uri) is None:  # an object store does not replace by renaming: days of an older world would stay
            storage.remove(uri)


def _write_users(settings: Settings, table: pa.Table) -> None:
    settings.scratch.mkdir(parents=True, exist_ok=True)
    local = settings.scratch / _USERS_FILE
    pq.write_table(table, local, compression="zstd")
    storage.upload(local, storage.join(settings.raw, _USERS_FILE))
