"""The state after an epoch, on disk: enough to go on to the very same weights.

No generator state is kept, since every epoch seeds the generators anew from (seed, epoch).

A checkpoint is written aside, flushed to the disk and renamed, so a crash leaves the old one or the new one. One that cannot
be read all the same (a failing disk, a copy cut short) is set aside as ``checkpoint.pt.damaged`` and the run starts
afresh with a warning: a checkpoint saves time, it is never the only copy of a result. One that was made from other data or
settings is an error, since going on from it would give a model that is neither.
"""

import logging
import os
import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfn_core.errors import ArtifactError
from mfn_core.training import CHECKPOINT
from mfn_core.training.progress import Progress

_LAYOUT = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What it takes to go on. ``identity`` names the data and the settings; ``history`` holds one report per finished epoch."""

    identity: dict[str, Any]
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, list[Tensor] | int]
    best_network: dict[str, Tensor]
    history: tuple[Progress, ...]
    seconds: float  # of training so far, earlier attempts included


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint, whole or not at all."""
    content = {
        "layout": _LAYOUT,
        "identity": checkpoint.identity,
        "network": checkpoint.network,
        "optimizer": checkpoint.optimizer,
        "average": checkpoint.average,
        "best_network": checkpoint.best_network,
        "history": [asdict(progress) for progress in checkpoint.history],
        "seconds": checkpoint.seconds,
    }
    aside = folder / f"{CHECKPOINT}.tmp"
    with aside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, folder / CHECKPOINT)
    _sync_folder(folder)


def load_checkpoint(folder: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint of this folder, its tensors on the CPU; None where there is none to go on from.

    Args:
        folder: the folder of the run.
        identity: what the run is made of; the checkpoint must say the same.

    Raises:
        ArtifactError: the checkpoint is of other data, settings or layout.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content = _read(path)
    if isinstance(content, str):
        damaged = path.replace(path.with_name(f"{CHECKPOINT}.damaged"))
        _log.warning("%s is damaged (%s); kept as %s, and training starts afresh", path, content, damaged.name)
        return None
    stored = content["identity"] | {"layout": content["layout"]}
    for name, wanted in (identity | {"layout": _LAYOUT}).items():
        if stored.get(name) != wanted:
            raise ArtifactError(
                f"{path} was made with {name}={stored.get(name)!r}, but this run has {name}={wanted!r}; "
                f"restore the old value to go on from it, or delete the file to start afresh"
            )
    return Checkpoint(
        identity=content["identity"],
        network=content["network"],
        optimizer=content["optimizer"],
        average=content["average"],
        best_network=content["best_network"],
        history=tuple(Progress(**report) for report in content["history"]),
        seconds=content["seconds"],
    )


def _read(path: Path) -> dict[str, Any] | str:
    """The content, or what is wrong with the file."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes a checksum of every member and never looks at it
            broken = archive.testzip()
        if broken is not None:
            return f"{broken} fails its checksum"
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        return str(error)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
