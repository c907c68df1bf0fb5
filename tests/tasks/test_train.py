"""Training as a managed child, with real processes: it is found again, it resumes, and it never outlives the task."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from mfn_core.errors import ArtifactError, ProcessError, TransientError
from mfn_core.model.bundle import load_bundle
from mfn_core.training.progress import Progress
from tasks import train as module
from tasks.dag_configs import TrainConfig
from tasks.settings import Settings
from tasks.tracking.runs import find_run, open_run
from tasks.train import train_managed
from tests.factories import patterned_dataset, store_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
FINGERPRINT = "0123456789abcdef" * 4
SHORT = TrainConfig(width=8, num_layers=1, num_alignment_filters=2, batch_size=16, max_epochs=2, device="cpu")
ENDLESS = SHORT.model_copy(update={"max_epochs": 10_000, "patience": 1000})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = store_dataset(patterned_dataset(), tmp_path_factory.mktemp("data") / "dataset")
    return {"kind": "dataset", "uri": str(folder), "digest": "d" * 64}


@dataclass
class Finished:
    """A finished run, and what was seen while it went."""

    settings: Settings
    folder: Path
    manifest: dict
    epochs: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    refusal: str = ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, dataset):
    """Trained in a folder with the lock file of a process that is dead, and asked for a second time while it went."""
    settings = Settings(var=tmp_path_factory.mktemp("finished"))
    run = Finished(settings, Path(settings.store) / "training" / FINGERPRINT[:16], {})
    run.folder.mkdir(parents=True)
    (run.folder / "lock").write_text("4194304\n")

    def watch(progress):
        if progress.phase != "epoch":
            return  # a busy machine also tells of steps within an epoch
        run.epochs.append(progress.epoch)
        with pytest.raises(TransientError) as refused:
            train_managed(settings, SHORT, dataset, FINGERPRINT, ignore)
        run.refusal = str(refused.value)

    listener = logging.Handler()
    listener.emit = lambda record: run.lines.append(record.getMessage())
    module._log.addHandler(listener)
    before, module._log.level = module._log.level, logging.INFO
    run.manifest = train_managed(settings, SHORT, dataset, FINGERPRINT, watch)
    module._log.removeHandler(listener)
    module._log.level = before
    return run


def workers():
    """The training processes that this process started."""
    return [child for child in psutil.Process().children(recursive=True) if "mfn_core.training.worker" in child.cmdline()]


def ignore(progress):
    pass


def gone_within(process, seconds):
    """Whether a process that may be another's child is gone, or a zombie that its reaper has yet to bury."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_run_leaves_a_manifest_of_what_it_was_made_from(finished, dataset):
    made = finished.manifest
    assert (made["kind"], made["uri"], made["digest"]) == ("training", str(finished.folder), FINGERPRINT)
    assert made["inputs"] == {dataset["uri"]: dataset["digest"]}
    assert json.loads((finished.folder / "manifest.json").read_text()) == made


def test_the_manifest_sums_up_how_it_went(finished):
    facts = finished.manifest["facts"]
    assert (facts["epochs"], facts["stopped"], facts["device"]) == (2, "max_epochs", "cpu")
    assert facts["validation"].keys() == {"activity_auc", "attribute_auc", "attribute_colour_auc", "hr@10", "ndcg@10"}


def test_a_run_leaves_the_best_weights_and_no_checkpoint(finished):
    assert load_bundle(finished.folder / "bundle").config.width == 8
    assert not (finished.folder / "checkpoint.pt").exists()


def test_every_epoch_is_told_and_logged_in_one_line(finished):
    assert finished.epochs == [1, 2]
    told = [line for line in finished.lines if "loss" in line and "users/s" in line and "left" in line]
    assert [line[:9] for line in told if " step " not in line] == ["epoch 1/2", "epoch 2/2"]


def test_a_second_training_is_refused_while_the_first_goes_on(finished):
    assert f"training {FINGERPRINT[:16]} is under way in process {os.getpid()}, which holds {finished.folder}/lock" in finished.refusal


def test_a_lock_left_by_a_dead_process_does_not_hold(finished):
    assert finished.manifest["kind"] == "training"


def test_a_finished_run_is_found_and_no_child_is_started(finished, dataset, monkeypatch):
    monkeypatch.setattr(module.subprocess, "Popen", None)
    assert train_managed(finished.settings, SHORT, dataset, FINGERPRINT, ignore) == finished.manifest


def test_a_remote_store_gets_the_bundle_and_scratch_is_left_empty(tmp_path, dataset):
    settings = Settings(var=tmp_path / "var", store_uri="memory://training-test")
    made = train_managed(settings, SHORT.model_copy(update={"max_epochs": 1}), dataset, FINGERPRINT, ignore)
    files = module.storage.list_names(made["uri"])
    assert files == ["bundle", "job.json", "manifest.json", "result.json"]
    assert module.storage.list_names(made["uri"] + "/bundle") == ["bundle.json", "vocabularies", "weights.npz"]
    assert list((settings.scratch / "training").iterdir()) == []


def test_a_killed_child_is_a_transient_error_and_the_next_call_resumes(settings, dataset):
    def kill_after_two(progress):
        if progress.epoch == 2:
            workers()[0].kill()

    with pytest.raises(
        ProcessError, match=r"killed by signal SIGKILL .*train anew with a smaller batch_size.*goes on from the last finished epoch"
    ):
        train_managed(settings, SHORT.model_copy(update={"max_epochs": 100}), dataset, FINGERPRINT, kill_after_two)
    epochs = []

    def stop_after_one(progress):
        epochs.append(progress.epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_managed(settings, SHORT.model_copy(update={"max_epochs": 100}), dataset, FINGERPRINT, stop_after_one)
    assert epochs[0] >= 2
    assert epochs[1] == epochs[0] + 1


def test_two_processes_train_one_network(settings, dataset, finished):
    together = settings.model_copy(update={"training_processes": 2})
    folder = Path(settings.store) / "training" / FINGERPRINT[:16]
    folder.mkdir(parents=True)
    (folder / "rendezvous").write_text("where the processes of a run that was killed met")
    seen = set()
    made = train_managed(together, SHORT, dataset, FINGERPRINT, lambda progress: seen.update(workers()))
    assert len(seen) == 2
    assert all(gone_within(worker, 5) for worker in seen)
    one, two = (json.loads((Path(each["uri"]) / "result.json").read_text()) for each in (finished.manifest, made))
    # Dropout differs: the losses are near, not equal.
    assert two["history"][0]["losses"]["next_item"] == pytest.approx(one["history"][0]["losses"]["next_item"], rel=0.02)
    assert made["facts"]["epochs"] == 2


def test_the_death_of_one_of_two_processes_ends_both_is_told_and_the_next_call_resumes(settings, dataset):
    together, seen, epochs = settings.model_copy(update={"training_processes": 2}), set(), []

    def kill_the_second_after_two(progress):
        seen.update(workers())
        if progress.epoch == 2:
            next(worker for worker in seen if worker.cmdline()[-1] == "1").kill()

    with pytest.raises(ProcessError, match=r"training process 1 of 2 \(pid \d+, .*\) was killed by signal SIGKILL; .* a retry goes on"):
        train_managed(together, ENDLESS, dataset, FINGERPRINT, kill_the_second_after_two)
    assert all(gone_within(worker, 5) for worker in seen)

    def stop_after_one(progress):
        epochs.append(progress.epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_managed(together, ENDLESS, dataset, FINGERPRINT, stop_after_one)
    assert epochs[0] >= 2
    assert epochs[1] == epochs[0] + 1


def test_an_exception_in_on_progress_ends_the_child(settings, dataset):
    started = []

    def fail(progress):
        started.extend(workers())
        raise RuntimeError("the tracking server is down")

    with pytest.raises(RuntimeError, match="tracking server"):
        train_managed(settings, ENDLESS, dataset, FINGERPRINT, fail)
    assert len(started) == 1
    assert not started[0].is_running()


def test_a_timeout_of_the_task_ends_the_child(settings, dataset):
    """Airflow raises its timeout out of a signal handler, here while the task waits for the child's next line."""

    class TaskTimeout(BaseException):
        pass

    started = []

    def arm_the_clock(progress):
        started[:] = started or workers()
        signal.setitimer(signal.ITIMER_REAL, 0.3)

    def time_out(number, frame):
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, time_out)
    try:
        slow = ENDLESS.model_copy(update={"width": 512, "num_layers": 4})
        with pytest.raises(TaskTimeout):
            train_managed(settings, slow, dataset, FINGERPRINT, arm_the_clock)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not started[0].is_running()


def test_a_child_dies_with_its_parent(tmp_path, dataset):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, json, psutil\n"
        "from pathlib import Path\n"
        "from tasks.dag_configs import TrainConfig\n"
        "from tasks.settings import Settings\n"
        "from tasks.train import train_managed\n"
        "config, dataset = TrainConfig.model_validate_json(sys.argv[2]), json.loads(sys.argv[3])\n"
        "def tell(progress):\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "train_managed(Settings(var=Path(sys.argv[1])), config, dataset, 'f' * 64, tell)\n"
    )
    arguments = [str(tmp_path / "var"), ENDLESS.model_dump_json(), json.dumps(dataset)]
    with subprocess.Popen(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
        assert gone_within(worker, 5)


def test_a_permanent_error_of_the_child_is_raised_as_itself(settings, dataset, tmp_path):
    empty = dataset | {"uri": str(tmp_path / "nothing")}
    with pytest.raises(ArtifactError, match=r"nothing/dataset\.json cannot be read"):
        train_managed(settings, SHORT, empty, FINGERPRINT, ignore)


def test_a_crash_of_the_child_tells_the_end_of_its_standard_error(settings, dataset, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'Traceback: something broke' >&2\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(module.sys, "executable", str(program))
    with pytest.raises(ProcessError, match=r"(?s)ended with exit code 3.*Traceback: something broke"):
        train_managed(settings, SHORT, dataset, FINGERPRINT, ignore)


EPOCH = Progress("epoch", 3, 30, 8, 8, {"total": 2.5}, {"activity_auc": 0.7}, 0.7, 3, 0.7, 100.0, 30.0)
STEP = replace(EPOCH, phase="training", losses={"total": 9.9}, validation={})


def trained(tmp_path, *epochs):
    """The manifest of a training, as far as the curves read it."""
    (tmp_path / "result.json").write_text(json.dumps({"history": [each.to_json() for each in epochs]}))
    return {"kind": "training", "uri": str(tmp_path)}


def test_every_epoch_is_a_point_of_the_curves_in_mlflow(registry, dataset, monkeypatch, tmp_path):
    def reporting(settings, config, dataset_manifest, fingerprint, on_progress):
        on_progress(STEP)
        on_progress(EPOCH)
        return trained(tmp_path, EPOCH)

    monkeypatch.setattr(module, "_train", reporting)
    made = module.train(registry, SHORT, dataset, FINGERPRINT, {"airflow.dag_id": "mfn_train"})
    run = MlflowClient(registry.tracking).get_run(find_run(registry, FINGERPRINT))
    assert made["kind"] == "training"
    assert run.data.metrics == {"loss_total": 2.5, "validation_activity_auc": 0.7, "users_per_s": 100.0, "seconds_left": 30.0}
    assert (run.data.params["width"], run.data.tags["airflow.dag_id"], run.info.status) == ("8", "mfn_train", "RUNNING")


def away(*_arguments, **_named):
    raise OSError("connection refused")


def told_epochs(registry):
    history = MlflowClient(registry.tracking).get_metric_history(find_run(registry, FINGERPRINT), "loss_total")
    return sorted(point.step for point in history)


def test_a_training_goes_on_where_mlflow_is_away_and_tells_it_the_epochs_afterwards(registry, dataset, monkeypatch, tmp_path, caplog):
    asked = []

    def reporting(settings, config, dataset_manifest, fingerprint, on_progress):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.tracking.runs.log_metrics", lambda *arguments, step, **named: asked.append(step) or away())
            on_progress(EPOCH)
            on_progress(replace(EPOCH, epoch=4))
        return trained(tmp_path, EPOCH, replace(EPOCH, epoch=4))

    monkeypatch.setattr(module, "_train", reporting)
    assert module.train(registry, SHORT, dataset, FINGERPRINT, {})["kind"] == "training"
    assert asked == [3], "a server that is away may take minutes to say so: it is not asked again at once"
    assert told_epochs(registry) == [3, 4]
    assert "MLflow does not answer, the figures of epochs follow when the training is over" in caplog.text


def test_a_retry_tells_the_epochs_that_mlflow_missed_until_the_end(registry, dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_train", lambda *_arguments: trained(tmp_path, EPOCH))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.tracking.runs.log_metrics", away)
        with pytest.raises(OSError, match="connection refused"):
            module.train(registry, SHORT, dataset, FINGERPRINT, {})
    module.train(registry, SHORT, dataset, FINGERPRINT, {})
    assert told_epochs(registry) == [3]


def test_a_failed_training_says_why_though_mlflow_is_away(registry, dataset, monkeypatch):
    def failing(*arguments):
        monkeypatch.setattr("tasks.tracking.runs.close_run", away)
        raise ArtifactError("the checkpoint is of another layout")

    monkeypatch.setattr(module, "_train", failing)
    with pytest.raises(ArtifactError, match="the checkpoint is of another layout"):
        module.train(registry, SHORT, dataset, FINGERPRINT, {})


def test_a_failed_training_ends_its_mlflow_run_as_failed(registry, dataset, monkeypatch):
    def failing(*arguments):
        raise ProcessError("killed")

    monkeypatch.setattr(module, "_train", failing)
    with pytest.raises(ProcessError, match="killed"):
        module.train(registry, SHORT, dataset, FINGERPRINT, {})
    assert MlflowClient(registry.tracking).get_run(find_run(registry, FINGERPRINT)).info.status == "FAILED"


def test_a_second_training_leaves_the_mlflow_run_of_the_first_as_it_is(registry, dataset):
    run_id = open_run(registry, FINGERPRINT, {}, {"airflow.run_id": "first"})
    with module._locked(module._folder(registry, FINGERPRINT)), pytest.raises(TransientError, match="is under way"):
        module.train(registry, SHORT, dataset, FINGERPRINT, {"airflow.run_id": "second"})
    run = MlflowClient(registry.tracking).get_run(run_id)
    assert (run.info.status, run.data.tags["airflow.run_id"]) == ("RUNNING", "first")
