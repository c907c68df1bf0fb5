"""Training in a process of its own: ``python -m mfn_core.training.worker <folder> <pid of the parent>``.

Reads ``job.json`` in the folder, ``{"dataset": path, "network": {…}, "training": {…}, "encoders": folder or null}``. Standard output
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
import sys
from pathlib import Path
from typing import Any, TextIO

from mfn_core.errors import ArtifactError, MFNError, ProcessError
from mfn_core.training import JOB

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def main(folder: Path, parent: int) -> int:
    """Run the folder's job. Returns the exit code: 1 after an error that was reported."""
    die_with(parent)
    channel = _claim_standard_output()
    _keep_freed_memory()
    logging.basicConfig(level=logging.INFO, handlers=[_Relay(channel)], force=True)
    logging.captureWarnings(capture=True)
    try:
        result = _run(folder, channel)
    except MFNError as error:
        _say(channel, "error", {"type": type(error).__name__, "message": str(error)})
        return 1
    _say(channel, "result", result)
    return 0


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; at once where it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _run(folder: Path, channel: TextIO) -> dict[str, Any]:
    # Imported late: the seconds that torch takes must not delay the bond with the parent.
    import torch

    from mfn_core.config import NetworkConfig, TrainingConfig
    from mfn_core.data.dataset import Dataset
    from mfn_core.training.loop import train

    job = _read_job(folder)
    network_config, config = NetworkConfig(**job["network"]), TrainingConfig(**job["training"])
    try:
        dataset = Dataset.open(Path(job["dataset"]))
        encoders = Path(job["encoders"]) if job["encoders"] else None
        result = train(dataset, network_config, config, folder, lambda progress: _say(channel, "progress", progress.to_json()), encoders)
    except torch.OutOfMemoryError as error:
        raise ProcessError(
            f"the GPU is out of memory at batch_size={config.batch_size}, evaluation_batch_size={config.evaluation_batch_size}, "
            f"width={network_config.encoder_width} ({error}); lower one of them, or free the GPU of other processes"
        ) from error
    return result.to_json()


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
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2])))
