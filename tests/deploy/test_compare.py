"""``make compare``: from a folder of logs to rows, table and chart; once."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from deploy.local import compare
from deploy.local.environment import HOME
from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError
from mfn_core.simulation import simulate

FAST = ["--seeds", "2", "--models", "popularity,bigram,micro_only", "--trials", "1", "--set", "bootstrap_samples=100"]


def command(*arguments: str, var: Path, results: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local.compare", *arguments, "--results", str(results)],
        cwd=HOME,
        env=os.environ | {"MFN_VAR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )


def write_shop(folder: Path) -> None:
    """Item logs of 200 users."""
    folder.mkdir()
    world = simulate(SimulationConfig(num_users=200, num_days=21, events_per_user=12, num_items=60, num_apps=20))
    pq.write_table(world.item_logs, folder / "item_logs.parquet")


@dataclass(frozen=True)
class Twice:
    results: Path
    first: str
    again: str


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    folder = tmp_path_factory.mktemp("compare")
    write_shop(folder / "shop")
    runs = [command("--data", str(folder / "shop"), *FAST, var=folder / "var", results=folder / "results") for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stdout + runs[0].stderr + runs[1].stderr
    return Twice(folder / "results", *(run.stdout for run in runs))


@pytest.mark.slow_start
@pytest.mark.timeout(900)
def test_it_ends_with_rows_table_and_chart_under_the_name_of_the_data(twice: Twice) -> None:
    assert sorted(file.name for file in twice.results.iterdir()) == ["compare-shop.json", "compare-shop.md", "compare-shop.png"]
    content = json.loads((twice.results / "compare-shop.json").read_text())
    assert {(row["model"], row["seeds"]) for row in content["rows"]} == {("popularity", 2), ("bigram", 2)}
    assert content["left_out"] == {"micro_only": "the same network as mfn: micro is the only view"}
    assert (twice.results / "compare-shop.md").read_text() in twice.first


@pytest.mark.slow_start
@pytest.mark.timeout(900)
def test_a_second_run_ends_with_the_same_table(twice: Twice) -> None:
    tables = [[line for line in text.splitlines() if line.startswith("| ")] for text in (twice.first, twice.again)]
    assert tables[0] == tables[1] != []  # the seconds of the first run, too: nothing was measured again


@pytest.mark.slow_start
@pytest.mark.timeout(300)
def test_nothing_goes_on_after_it_was_told_to_stop(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop")
    run = subprocess.Popen(
        [sys.executable, "-m", "deploy.local.compare", "--data", str(tmp_path / "shop"), "--models", "mfn", "--set", "patience=1000"],
        cwd=HOME,
        env=os.environ | {"MFN_VAR": str(tmp_path / "var")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    with run, run.stdout as said:
        assert any("measuring" in line for line in said)
        family: list[psutil.Process] = []
        while not any("mfn_core.training.worker" in process.cmdline() for process in family):
            family = psutil.Process(run.pid).children(recursive=True)
            time.sleep(0.1)
        run.terminate()
        _, alive = psutil.wait_procs(family, timeout=30)
        for process in alive:
            process.kill()
        assert alive == []


@pytest.mark.parametrize("arguments", [[], ["--data", ".", "--world", "mixed"]])
def test_either_a_folder_or_a_world_is_compared_on(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"give either DATA=<folder of logs> or WORLD=<mixed\|agreement"):
        compare._meant(compare._parser().parse_args(arguments))


def test_a_world_does_not_come_into_a_store_of_other_data(monkeypatch) -> None:
    monkeypatch.setenv("MFN_STORE_URI", "s3://team/mfn")
    with pytest.raises(ConfigError, match="WORLD=product has a store and a registry of its own, but MFN_STORE_URI=s3://team/mfn"):
        compare._meant(compare._parser().parse_args(["--world", "product"]))


def test_a_world_has_an_installation_of_its_own() -> None:
    meant, name = compare._meant(compare._parser().parse_args(["--world", "product"]))
    assert (meant.var, name) == (meant.root / "worlds" / "product", "sim-product")


def test_another_cut_has_results_of_its_own() -> None:
    names = [compare._meant(compare._parser().parse_args(["--world", "mixed", *cut]))[1] for cut in ([], ["--cut", "2026-06-01"])]
    assert names == ["sim-mixed", "sim-mixed-2026-06-01"]


def test_the_command_line_fills_the_form() -> None:
    options = compare._parser().parse_args(
        ["--seeds", "3", "--models", "mfn,bigram", "--cut", "2026-06-01", "--minutes", "1.5", "--set", "width=16"]
    )
    config = compare._config(options)
    assert (config.seeds, config.models, str(config.cut), config.max_minutes, config.width) == (3, ("mfn", "bigram"), "2026-06-01", 1.5, 16)
    assert (config.trials, config.recbole_scores) == (8, "")


def test_a_misspelt_setting_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'widht', did you mean 'width'"):
        compare._config(compare._parser().parse_args(["--set", "widht=16"]))


def test_a_value_out_of_range_is_refused_by_the_name_of_its_variable() -> None:
    options = compare._parser().parse_args(["--seeds", "0", "--minutes", "-1", "--set", "width=4"])
    with pytest.raises(ConfigError, match=r"MINUTES=-1.0: .*; width='4': Input should be .* 8; SEEDS=0: .*\. Run the command again with"):
        compare._config(options)
