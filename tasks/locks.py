"""Locks: of the processes of this machine that would do the same work, one does it and the others wait."""

import fcntl
import logging
from collections.abc import Generator
from contextlib import contextmanager

from tasks.settings import Settings

_log = logging.getLogger(__name__)


@contextmanager
def taken(settings: Settings, work: str) -> Generator[None]:
    """Wait for the lock of a piece of work, and hold it; look for what the one before has finished only then.

    The kernel releases a lock when its holder dies, so none is ever stale.

    Args:
        settings: of the installation.
        work: names the work, and the lock file.
    """
    path = settings.var / "locks" / f"{work}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process holds %s: waiting for it to end", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
