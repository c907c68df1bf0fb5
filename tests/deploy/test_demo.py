"""``make demo`` on a folder of logs: the real DAGs, from Parquet to a champion that has scored every user."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.local.environment import HOME
from mfn_core.config import SimulationConfig
from mfn_core.simulation import simulate

pytestmark = [pytest.mark.slow_start, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Demo:
    var: Path
    first: str
    again: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.var / "summary.json").read_text())


def demo(var: Path, data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local.demo", "--data", str(data)]
    return subprocess.run(command, cwd=HOME, env=os.environ | {"MFN_VAR": str(var)}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("demo")
    world = simulate(SimulationConfig(num_users=200, num_days=21, events_per_user=12, num_items=60, num_apps=20))
    (folder / "logs").mkdir()
    pq.write_table(world.item_logs, folder / "logs" / "item_logs.parquet")
    pq.write_table(world.users, folder / "logs" / "users.parquet")
    first = demo(folder / "var", folder / "logs")
    assert first.returncode == 0, first.stdout + first.stderr
    again = demo(folder / "var", folder / "logs")
    assert again.returncode == 0, again.stdout + again.stderr
    return Demo(folder / "var", first.stdout, again.stdout)


def test_it_ends_with_a_champion(twice: Demo) -> None:
    assert twice.summary["model"] == {"name": "mfn", "version": 1, "aliases": ["champion"]}
    assert "Registered model   mfn version 1, alias champion" in twice.first


def test_every_figure_stands_beside_that_of_the_baseline(twice: Demo) -> None:
    figures = twice.summary["downstream"]["recommendation"]

    assert {"hr@5", "hr@10", "ndcg@5", "ndcg@10", "n"} <= figures.keys()
    assert {"hr@5", "hr@10", "ndcg@5", "ndcg@10"} <= figures["baseline"].keys()


def test_it_says_which_view_it_leaves_out(twice: Demo) -> None:
    assert "The macro view is left out: there are no app_logs in the folder" in twice.first


def test_every_stage_of_the_job_was_run_and_timed(twice: Demo) -> None:
    stages = ["ingest_item_logs", "ingest_users", "validate", "build_dataset", "train", "evaluate", "register", "promote", "score"]
    assert list(twice.summary["seconds"]) == stages


def test_epochs_are_shown_as_they_pass(twice: Demo) -> None:
    assert "epoch 1/30, loss" in twice.first


def test_a_second_run_does_no_work_and_says_so(twice: Demo) -> None:
    steps = [line for line in twice.again.splitlines() if "·" in line]

    assert {step.split("· ")[1] for step in steps} == {"plan", "ingest", "promote"}
    assert twice.again.count("skipped:") == len(steps)


def test_a_second_run_ends_with_the_same_table(twice: Demo) -> None:
    assert twice.first.split("\n\n")[1] == twice.again.split("\n\n")[1]
