"""Which installation a command means: the repository's own, or the one of a folder of Parquet logs.

Curated logs of two sources must not mix, so every data folder gets a ``var`` folder of its own.
"""

import fcntl
import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mfn_core.errors import ConfigError
from mfn_core.schema import APP_LOGS, ITEM_LOGS, LOGS, View
from tasks.settings import load_settings


@dataclass(frozen=True)
class Installation:
    """A ``var`` folder, and the settings that belong to it. ``root`` is the repository's own; a data folder's lies below it."""

    root: Path
    var: Path
    data: Path | None
    views: tuple[View, ...]

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that every process of the installation needs."""
        if self.data is None:
            return {}
        return {"MFN_RAW_URI": str(self.data), "MFN_VIEWS": json.dumps(self.views)}

    @property
    def argument(self) -> str:
        """What a user adds to ``make up`` to mean this installation."""
        return "" if self.data is None else f" DATA={self.data}"


def installation(data: Path | None) -> Installation:
    """The installation of a data folder; without one, that of the settings.

    Raises:
        ConfigError: the folder does not exist, holds no log of the contract, or would share a store; see ``refuse_shared``.
    """
    settings = load_settings()
    if data is None:
        return Installation(settings.var.resolve(), settings.var.resolve(), None, settings.views)
    data = data.resolve()
    refuse_shared(f"DATA={data}")
    if not data.is_dir():
        raise ConfigError(f"DATA={data} is not a folder; give the one that holds {APP_LOGS.dataset} or {ITEM_LOGS.dataset}")
    views = tuple(view for view in settings.views if _has_log(data, LOGS[view].dataset))
    if not views:
        wanted = " or ".join(
            f"{log.dataset}/dt=YYYY-MM-DD/*.parquet, {log.dataset}/*.parquet or {log.dataset}.parquet" for log in LOGS.values()
        )
        raise ConfigError(f"DATA={data} holds no log; expected {wanted}")
    name = f"{data.name}-{hashlib.sha256(str(data).encode()).hexdigest()[:6]}"
    root = settings.var.resolve()
    return Installation(root, root / "data" / name, data, views)


def refuse_shared(meant: str) -> None:
    """Refuse a store or a registry that the settings name: other data would come into it.

    Args:
        meant: whose installation it is, as the user said it.

    Raises:
        ConfigError: ``MFN_STORE_URI`` or ``MFN_TRACKING_URI`` is set.
    """
    settings = load_settings()
    places = {"MFN_STORE_URI": settings.store_uri, "MFN_TRACKING_URI": settings.tracking_uri}
    if shared := " and ".join(f"{name}={uri}" for name, uri in places.items() if uri):
        raise ConfigError(
            f"{meant} has a store and a registry of its own, but {shared} would be shared with other data; unset it for this command"
        )


@contextmanager
def sole_user(meant: Installation) -> Generator[None]:
    """Hold the installation against a second demo, and against a scheduler that would run the demo's tasks too.

    Raises:
        ConfigError: a demo is running there.
    """
    meant.var.mkdir(parents=True, exist_ok=True)
    with (meant.var / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"a demo is running in {meant.var}; wait until it ends, or stop it there") from error
        yield


def _has_log(data: Path, dataset: str) -> bool:
    return (data / dataset).is_dir() or (data / f"{dataset}.parquet").is_file()
