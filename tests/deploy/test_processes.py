"""Whatever a service started ends with it, however it hid or whoever died first."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.processes import Processes

# A service with a child in a process group and session of its own, as a task of Airflow's has.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    group = Processes(tmp_path / "run")
    yield group
    group.stop(grace_s=0)


def start(processes: Processes, code: str) -> str:
    processes.start("service", [sys.executable, "-c", code], os.environ, cwd=Path.cwd())
    deadline = time.monotonic() + 20
    while not (said := processes.log("service").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return said


def leader(tmp_path: Path) -> int:
    return json.loads((tmp_path / "run" / "service.json").read_text())["pid"]


def test_stop_ends_a_child_in_a_session_of_its_own(processes: Processes) -> None:
    child = int(start(processes, PARENT))

    processes.stop()

    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_stop_ends_an_orphan_whose_parent_was_killed(processes: Processes, tmp_path: Path) -> None:
    child = int(start(processes, PARENT))
    parent = psutil.Process(leader(tmp_path))
    parent.kill()
    parent.wait(20)

    assert processes.stop() == 1
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_stop_ends_a_process_that_ignores_the_polite_signal(processes: Processes) -> None:
    start(processes, DEAF)

    processes.stop(grace_s=0.5)

    assert processes.members() == set()


def test_a_stranger_who_got_the_process_id_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as stranger:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "service.json").write_text(json.dumps({"pid": stranger.pid, "created": 0.0}))

        assert not processes.is_running("service")
        assert processes.stop() == 0
        assert stranger.poll() is None
        stranger.kill()


def test_stopping_nothing_is_fine(processes: Processes) -> None:
    assert processes.stop() == 0
