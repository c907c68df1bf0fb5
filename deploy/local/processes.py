"""Long-running processes of an installation: started in sessions of their own, found again, ended with all they started."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

_MARK = "DEPLOYED_BY_MFN"
_POLL_S = 0.2


class Processes:
    """The processes whose records are in a folder.

    A record outlives the command that started the process, so that another command can end it.

    Args:
        folder: for the records and the logs; also what marks the processes as belonging together.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        """Start a process in a session of its own; its output goes to ``<folder>/<name>.log``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**environment, _MARK: str(self._folder)},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._record(name).write_text(json.dumps({"pid": process.pid, "created": psutil.Process(process.pid).create_time()}))

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self._folder / f"{name}.log"

    def is_running(self, name: str) -> bool:
        """Whether the process that was started under this name is alive."""
        if not self._record(name).exists():
            return False
        known = _read(self._record(name))
        return not _is_stranger(known) and _is_alive(known["pid"])

    def members(self) -> set[psutil.Process]:
        """Every living process of the installation: those started here, and all that came from them.

        A task has a process group of its own and outlives its scheduler, so descent alone does not find all: whatever is in a
        recorded session or carries the mark in its environment belongs to it as well.
        """
        sessions = {known["pid"] for known in map(_read, self._folder.glob("*.json")) if not _is_stranger(known)}
        found = set[psutil.Process]()
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) in sessions or process.environ().get(_MARK) == str(self._folder):
                    found.add(process)
            except (psutil.Error, ProcessLookupError, PermissionError):
                continue
        for process in list(found):
            try:
                found.update(process.children(recursive=True))
            except psutil.Error:
                continue
        return {process for process in found if _is_alive(process.pid)}

    def stop(self, grace_s: float = 15) -> int:
        """End every process of the installation; after ``grace_s`` seconds by force. The number that had to be ended."""
        ended = set[psutil.Process]()
        deadline = time.monotonic() + grace_s
        while members := self.members():
            late = time.monotonic() > deadline
            for process in members if late else members - ended:
                try:
                    process.kill() if late else process.terminate()
                except psutil.NoSuchProcess:
                    continue
            ended |= members
            time.sleep(_POLL_S)
        for record in self._folder.glob("*.json"):
            record.unlink()
        return len(ended)

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _read(record: Path) -> dict[str, Any]:
    return json.loads(record.read_text())


def _is_stranger(known: dict[str, Any]) -> bool:
    """Process ids are used again: the time of its birth tells a stranger from ours."""
    try:
        return psutil.Process(known["pid"]).create_time() != known["created"]
    except psutil.NoSuchProcess:
        return False


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
