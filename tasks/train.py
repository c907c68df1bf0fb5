"""Training as a managed child: watched, logged, resumed after a crash, and never left behind.

The child (``mfn_core.training.worker``) stays in the process group of the task. It is gone within seconds however the task
ends: a ``finally`` ends it with its descendants when the task fails, times out or is told to stop, and the kernel kills it
when the task's process dies without a word. The GPU's memory goes with it.

A run works in ``<store>/training/<id>``, or in the scratch folder where the store is remote. There lie its checkpoint, its lock and
what the child printed to standard error; the manifest is written last, and a finished run is found by it. An interrupted run
goes on from its last finished epoch.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from mfn_core import errors
from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.errors import MFNError, ProcessError, TransientError
from mfn_core.training import BUNDLE, CHECKPOINT, JOB, RESULT
from mfn_core.training.progress import Progress
from tasks import manifest, storage
from tasks.dag_configs import TrainConfig
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.tracking import runs

_LOCK, _STDERR = "lock", "stderr.log"
_STDERR_LINES = 20
_SECONDS_TO_END = 3.0
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_OF_SILENCE = 600.0
_log = logging.getLogger(__name__)


def train(
    settings: Settings, config: TrainConfig, dataset_manifest: Mapping[str, Any], fingerprint: str, airflow_tags: Mapping[str, str]
) -> dict[str, Any]:
    """Train under the fingerprint's MLflow run: params, dataset and a curve of every loss and validation figure by epoch.

    Args:
        settings: this installation.
        config: of the DAG run.
        dataset_manifest: of ``build_dataset``.
        fingerprint: of inputs, config and code.
        airflow_tags: lead from the MLflow run back to the Airflow run.

    Returns:
        The manifest of the training run; see ``train_managed``, also for what it raises.
    """
    with _locked(_folder(settings, fingerprint)):  # first: the MLflow run of a training under way is not ours to touch
        run_id = runs.open_run(settings, fingerprint, config.model_dump(mode="json"), airflow_tags)
        runs.log_dataset(settings, run_id, Manifest.model_validate(dataset_manifest))

        told = _Curves(settings, run_id)
        try:
            trained = _train(settings, config, dataset_manifest, fingerprint, told.hear)
        except BaseException:
            _unless_away(lambda: runs.close_run(settings, run_id, succeeded=False), "the run goes on being called running")
            raise
        told.complete(storage.read_json(storage.join(trained["uri"], RESULT))["history"])
        return trained


class _Curves:
    """The epochs of a training, told to MLflow as they end. Where it is away it is left alone for a while: a call may wait for minutes."""

    def __init__(self, settings: Settings, run_id: str) -> None:
        self._settings, self._run_id = settings, run_id
        self._told: set[int] = set()
        self._silent_until = 0.0

    def hear(self, progress: Progress) -> None:
        """Tell it an epoch, if it answers."""
        if progress.phase != "epoch" or time.monotonic() < self._silent_until:
            return
        if not _unless_away(lambda: self._tell(progress), "the figures of epochs follow when the training is over"):
            self._silent_until = time.monotonic() + _SECONDS_OF_SILENCE

    def complete(self, history: list[dict[str, Any]]) -> None:
        """Tell it the epochs that it missed: while it was away, or with a process that ended before it had told them."""
        for each in history:
            if each["epoch"] not in self._told:
                self._tell(Progress(**each))

    def _tell(self, progress: Progress) -> None:
        runs.log_metrics(self._settings, self._run_id, _curves(progress), step=progress.epoch)
        self._told.add(progress.epoch)


def _unless_away(tell: Callable[[], None], meanwhile: str) -> bool:
    """Tell MLflow, or say that it does not answer: that must neither end a training of hours nor hide why one has failed."""
    try:
        tell()
    except Exception as error:  # every store's client has errors of its own
        _log.warning("MLflow does not answer, %s: %r", meanwhile, error)
        return False
    return True


def train_managed(
    settings: Settings,
    config: TrainConfig,
    dataset_manifest: Mapping[str, Any],
    fingerprint: str,
    on_progress: Callable[[Progress], None],
    encoders: Manifest | None = None,
) -> dict[str, Any]:
    """Train in a child process, or find the finished run.

    Args:
        settings: this installation.
        config: of the DAG run.
        dataset_manifest: of ``build_dataset``.
        fingerprint: of inputs, config and code.
        on_progress: told every few seconds and at the end of every epoch. What it raises ends the child and the task.
        encoders: a finished training that differs in the labels alone, whose encoders are taken over.

    Returns:
        Manifest of kind ``training``. ``<uri>/bundle`` holds the best weights, ``<uri>/result.json`` every epoch; ``facts`` sum up.

    Raises:
        PermanentError: the child reported one; the same class and message.
        ProcessError: the child died otherwise. A retry goes on from the last finished epoch.
        TransientError: another process is training the same run.
    """
    with _locked(_folder(settings, fingerprint)):
        return _train(settings, config, dataset_manifest, fingerprint, on_progress, encoders)


def _uri(settings: Settings, fingerprint: str) -> str:
    return storage.join(settings.store, "training", fingerprint[:16])


def _folder(settings: Settings, fingerprint: str) -> Path:
    """Where a run works, on this machine."""
    return (storage.local_path(_uri(settings, fingerprint)) or settings.scratch / "training" / fingerprint[:16]).resolve()


def _train(
    settings: Settings,
    config: TrainConfig,
    dataset_manifest: Mapping[str, Any],
    fingerprint: str,
    on_progress: Callable[[Progress], None],
    encoders: Manifest | None = None,
) -> dict[str, Any]:
    """What ``train_managed`` does while it holds the run's lock."""
    uri, folder = _uri(settings, fingerprint), _folder(settings, fingerprint)
    finished = manifest.find(uri, fingerprint)
    if finished:
        _log.info("training %s is finished already: %s", fingerprint[:16], uri)
        return finished.model_dump(mode="json")
    dataset = storage.local_folder(dataset_manifest["uri"], settings.scratch).resolve()
    taken_over = encoders and storage.local_folder(encoders.uri, settings.scratch).resolve()
    _write_job(folder, config, dataset, taken_over, settings.training_processes)
    result = _run_child(folder, settings.home, on_progress)
    _log.info("training stopped by %s after epoch %d; best epoch %d", result["stopped"], result["epochs"], result["best_epoch"])
    is_remote = storage.local_path(uri) is None
    if is_remote:
        _upload(folder, uri)
    made = _manifest(uri, config, dataset_manifest, fingerprint, result)
    manifest.write(made)
    if is_remote:
        shutil.rmtree(folder)
    else:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return made.model_dump(mode="json")


def _run_child(folder: Path, home: Path, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    """The worker's result."""
    command = [sys.executable, "-m", "mfn_core.training.worker", str(folder), str(os.getpid())]
    with (folder / _STDERR).open("wb") as stderr:
        # No session of its own: Airflow ends the task's process group, and the child with it.
        child = subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8")
    try:
        said = _listen(child, on_progress)
        code = child.wait()
    finally:
        _end(child)
    if "error" in said:
        raise _error(said["error"])
    if "result" not in said or code != 0:
        raise ProcessError(
            f"the training process {child.pid} {_death(code)}; a retry goes on from the last finished epoch. "
            f"End of {folder / _STDERR}:\n{_tail(folder / _STDERR)}"
        )
    return said["result"]


def _listen(child: "subprocess.Popen[str]", on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    """Relay what the child says until it closes its output. Returns its last word, ``result`` or ``error``, if it had one."""
    assert child.stdout is not None
    said: dict[str, Any] = {}
    last_line = time.monotonic()
    for line in child.stdout:
        kind, content = _parsed(line)
        if kind == "progress":
            progress = Progress(**content)
            if progress.phase == "epoch" or time.monotonic() - last_line >= _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                _log.info("%s", progress.line())
            on_progress(progress)
        elif kind == "log":
            _log.log(content["level"], "%s", content["message"])
        else:
            said[kind] = content
    return said


def _parsed(line: str) -> tuple[str, Any]:
    try:
        ((kind, content),) = json.loads(line).items()
    except ValueError:  # a child killed in the middle of a line
        return "cut short", line
    return kind, content


def _end(child: "subprocess.Popen[str]") -> None:
    """End the child with all its descendants, politely, then not, and reap it."""
    try:
        family = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_SECONDS_TO_END)
    for process in alive:
        _signal(process, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _error(reported: Mapping[str, str]) -> MFNError:
    return getattr(errors, reported["type"])(reported["message"])


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    remedy = " (where memory ran out, a retry meets it again: train anew with a smaller batch_size)" if code == -signal.SIGKILL else ""
    return f"was killed by signal {signal.Signals(-code).name}{remedy}"


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-_STDERR_LINES:]) or "(empty)"


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold the run's lock. The kernel drops it when its holder dies, so a lock is never stale.

    Raises:
        TransientError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise TransientError(
                f"training {folder.name} is under way in process {file.read().strip() or 'unknown'}, which holds {path}; "
                f"wait for it and run the task again: it will find the finished run"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _write_job(folder: Path, config: TrainConfig, dataset: Path, encoders: Path | None, processes: int) -> None:
    values = config.model_dump(mode="json")
    job = {
        "dataset": str(dataset),
        "network": {name: values[name] for name in NetworkConfig.model_fields},
        "training": {name: values[name] for name in TrainingConfig.model_fields},
        "encoders": encoders and str(encoders),
        "processes": processes,
    }
    (folder / JOB).write_text(json.dumps(job, indent=1), encoding="utf-8")


def _upload(folder: Path, uri: str) -> None:
    for path in sorted([folder / JOB, folder / RESULT, *(folder / BUNDLE).rglob("*")]):
        if path.is_file():
            storage.upload(path, storage.join(uri, path.relative_to(folder).as_posix()))


def _manifest(uri: str, config: TrainConfig, dataset_manifest: Mapping[str, Any], fingerprint: str, result: Mapping[str, Any]) -> Manifest:
    told = ("stopped", "epochs", "best_epoch", "best_score", "validation", "device", "precision", "seconds", "users_per_s")
    return Manifest(
        kind="training",
        uri=uri,
        digest=fingerprint,
        rows={"users": result["num_users"], "parameters": result["num_parameters"]},
        inputs={dataset_manifest["uri"]: dataset_manifest["digest"]},
        config=config.model_dump(mode="json"),
        code=manifest.code_digest(),
        created_at=manifest.now(),
        facts={name: result[name] for name in told},
    )


def _curves(progress: Progress) -> dict[str, float]:
    losses = {f"loss_{name}": value for name, value in progress.losses.items()}
    figures = {f"validation_{name}": value for name, value in progress.validation.items()}
    return losses | figures | {"users_per_s": progress.users_per_s, "seconds_left": progress.seconds_left}
