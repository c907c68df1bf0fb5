"""Training in a process of its own: ``python -m mfn_core.training.worker <folder> <pid of the parent>``.

Reads ``job.json`` in the folder, ``{"dataset": path, "network": {…}, "training": {…}, "encoders": folder or null, "processes": number}``.
Of several processes the first starts the others, ``… <folder> <pid of the first> <rank>``, and ends when one of them dies. Standard output
carries one JSON object a line and nothing else: ``{"progress": …}``, ``{"log": {"level", "message"}}``, and last either
``{"result": …}`` or ``{"error": {"type", "message"}}``, where ``type`` is a class of ``mfn_core.errors``. Whatever else prints goes to
standard error.

The process dies with its parent: a training run that nobody listens to would hold the GPU.
"""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from mfn_core.errors import ArtifactError, MFNError, ProcessError
from mfn_core.training import JOB

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_RENDEZVOUS = "rendezvous"
_SECONDS_TO_DIE = 1.0  # between a broken connection and the death that broke it
_SECONDS_TO_NOTICE = 10.0  # what goes wrong in all processes is told by the first, if it is given the time


def main(folder: Path, parent: int, rank: int = 0) -> int:
    """Run the folder's job, or another process's part in it. Returns the exit code: 1 after an error that was reported."""
    die_with(parent)
    channel = _claim_standard_output()
    _keep_freed_memory()
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, handlers=[_Relay(channel)], force=True)
    logging.captureWarnings(capture=True)
    try:
        result = _run(folder, channel, rank)
    except MFNError as error:
        _say(channel, "error", {"type": type(error).__name__, "message": str(error)})
        return 1
    if result is not None:
        _say(channel, "result", result)
    return 0


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; at once where it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _run(folder: Path, channel: TextIO, rank: int) -> dict[str, Any] | None:
    # Imported late: the seconds that torch takes must not delay the bond with the parent.
    import torch

    from mfn_core.config import NetworkConfig, TrainingConfig
    from mfn_core.data.dataset import Dataset
    from mfn_core.training.device import pick_device
    from mfn_core.training.loop import follow, train
    from mfn_core.training.ranks import ALONE, Ranks

    job = _read_job(folder)
    network_config, config = NetworkConfig(**job["network"]), TrainingConfig(**job["training"])
    encoders = Path(job["encoders"]) if job["encoders"] else None
    ranks, size = ALONE, 1 if encoders else job["processes"]
    others = _start_others(folder, size, channel) if rank == 0 else []
    try:
        dataset = Dataset.open(Path(job["dataset"]))
        if size > 1:
            ranks = Ranks.join(rank, size, folder / _RENDEZVOUS, pick_device(config.device))
        if rank != 0:
            follow(dataset, network_config, config, folder, ranks)
            return None
        tell = partial(_say, channel, "progress")
        return train(dataset, network_config, config, folder, lambda progress: tell(progress.to_json()), encoders, ranks).to_json()
    except torch.OutOfMemoryError as error:
        raise ProcessError(
            f"the GPU is out of memory at batch_size={config.batch_size}, evaluation_batch_size={config.evaluation_batch_size}, "
            f"width={network_config.encoder_width} ({error}); free the GPU of other processes and run the task again, or "
            "train anew with a smaller batch_size, then evaluation_batch_size, max_categories"
        ) from error
    except RuntimeError as error:
        # What breaks when another process is gone is the connection to it: say who is gone.
        time.sleep(_SECONDS_TO_DIE if others else 0)
        for number, process in enumerate(others, start=1):
            if process.poll():
                raise ProcessError(_death(number, size, process)) from error
        raise


def _start_others(folder: Path, size: int, channel: TextIO) -> "list[subprocess.Popen[bytes]]":
    """Start the processes from the second on. When one dies, and this one waits for it in vain, say so and end: the others die with it."""

    def watch(rank: int, process: "subprocess.Popen[bytes]") -> None:
        if process.wait() != 0:
            time.sleep(_SECONDS_TO_NOTICE)
            _say(channel, "error", {"type": ProcessError.__name__, "message": _death(rank, size, process)})
            os._exit(1)

    (folder / _RENDEZVOUS).unlink(missing_ok=True)  # of a run that was killed: nobody would come to it
    others: list[subprocess.Popen[bytes]] = []
    for rank in range(1, size):
        command = [sys.executable, "-m", "mfn_core.training.worker", str(folder), str(os.getpid()), str(rank)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)  # what it says goes to the log of errors
        threading.Thread(target=watch, args=(rank, process), daemon=True).start()
        others.append(process)
    return others


def _death(rank: int, size: int, process: "subprocess.Popen[bytes]") -> str:
    code = process.returncode
    how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return (
        f"training process {rank} of {size} (pid {process.pid}, counted from 0) {how}; what it said is in the log of standard error; "
        "a retry goes on from the last finished epoch"
    )


def _read_job(folder: Path) -> dict[str, Any]:
    path = folder / JOB
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); start the training task again") from error


def _claim_standard_output() -> TextIO:
    """A private copy of standard output; the public one is turned to standard error, where libraries may print."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return channel


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: by default the kernel maps and zeroes every large tensor anew. Page faults of a step: half."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


class _Relay(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, channel: TextIO) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        _say(self._channel, "log", {"level": record.levelno, "message": record.getMessage()})


def _say(channel: TextIO, kind: str, content: dict[str, Any]) -> None:
    channel.write(json.dumps({kind: content}, allow_nan=False) + "\n")


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
