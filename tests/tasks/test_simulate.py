"""The simulated raw folder: written once, the same bytes each time, and nobody's own logs overwritten."""

import json
import logging
import shutil
from datetime import date
from pathlib import Path

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from mfn_core import simulation
from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError
from tasks.settings import Settings
from tasks.simulate import simulate

CONFIG = SimulationConfig(num_users=40, num_days=10, last_day=date(2026, 6, 28), events_per_user=50, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder but the record, whose time of writing differs."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "simulation.json"
    }


def raw(settings: Settings) -> Path:
    return Path(settings.raw)


def test_one_file_per_day_and_log_holds_every_row(settings: Settings):
    manifest = simulate(settings, CONFIG)
    world = simulation.simulate(CONFIG)
    assert {path for path in contents(raw(settings)) if path.startswith("app_logs")} == {
        f"app_logs/dt=2026-06-{day}/part-0.parquet" for day in range(19, 29)
    }
    for dataset, table in (("app_logs", world.app_logs), ("item_logs", world.item_logs)):
        written = pads.dataset(raw(settings) / dataset, format="parquet").to_table()
        assert written.sort_by([("event_time", "ascending"), ("user_id", "ascending"), ("seq_no", "ascending")]) == table.sort_by(
            [("event_time", "ascending"), ("user_id", "ascending"), ("seq_no", "ascending")]
        )
        assert manifest["rows"][dataset] == table.num_rows
    assert pq.read_table(raw(settings) / "users.parquet") == world.users


def test_a_day_holds_that_day_only(settings: Settings):
    simulate(settings, CONFIG)
    times = pq.read_table(raw(settings) / "item_logs/dt=2026-06-25/part-0.parquet", partitioning=None)["event_time"].to_pylist()
    assert {time.date() for time in times} == {date(2026, 6, 25)}


def test_the_same_config_writes_the_same_bytes(settings: Settings, tmp_path: Path):
    other = Settings(var=tmp_path / "other")
    simulate(settings, CONFIG)
    simulate(other, CONFIG)
    assert contents(raw(settings)) == contents(raw(other))


def test_a_second_run_does_no_work_and_says_so(settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    first = simulate(settings, CONFIG)
    monkeypatch.delattr("mfn_core.simulation.simulate")
    with caplog.at_level(logging.INFO, logger="tasks.simulate"):
        assert simulate(settings, CONFIG) == first
    assert "already holds this world" in caplog.text
    assert "nothing to do" in caplog.text


def test_another_world_replaces_a_simulated_one(settings: Settings, tmp_path: Path):
    other = Settings(var=tmp_path / "other")
    shorter = CONFIG.model_copy(update={"num_days": 7, "seed": 4})
    simulate(settings, CONFIG)
    simulate(settings, shorter)
    simulate(other, shorter)
    assert contents(raw(settings)) == contents(raw(other))


@pytest.mark.parametrize("file", sorted(path.name for path in Path(simulation.__file__).parent.glob("*.py")))
def test_a_change_of_any_file_of_the_simulation_is_another_world(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
):
    known = simulate(settings, CONFIG)["digest"]
    code = shutil.copytree(Path(simulation.__file__).parent, tmp_path / "simulation")
    monkeypatch.setattr(simulation, "__file__", str(code / "__init__.py"))
    assert simulate(settings, CONFIG)["digest"] == known
    with (code / file).open("a") as source:
        source.write("# another draw\n")
    assert simulate(settings, CONFIG)["digest"] != known


def test_a_run_that_broke_off_is_done_again(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = Settings(var=tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr("tasks.simulate._write_users", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            simulate(settings, CONFIG)
    simulate(settings, CONFIG)
    simulate(other, CONFIG)
    assert contents(raw(settings)) == contents(raw(other))


def test_logs_of_somebody_else_are_never_overwritten(settings: Settings):
    own = raw(settings) / "app_logs" / "dt=2026-06-28" / "own.parquet"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    with pytest.raises(ConfigError, match=r"holds app_logs, which no simulation wrote, .* MFN_RAW_URI"):
        simulate(settings, CONFIG)
    assert contents(raw(settings)) == {"app_logs/dt=2026-06-28/own.parquet": b"own"}


@pytest.mark.parametrize("added", ["app_logs/dt=2026-06-29/part-0.parquet", "app_logs/dt=2026-06-28/own.parquet", "app_logs.parquet"])
def test_a_file_added_to_a_simulated_folder_is_not_lost(settings: Settings, added: str):
    simulate(settings, CONFIG)
    own = raw(settings) / added
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(b"own")
    with pytest.raises(ConfigError, match=rf"holds {'/'.join(added.split('/')[:2])}"):
        simulate(settings, CONFIG.model_copy(update={"seed": 4}))
    assert own.read_bytes() == b"own"


def test_a_log_that_was_deleted_is_written_again(settings: Settings):
    simulate(settings, CONFIG)
    before = contents(raw(settings))
    shutil.rmtree(raw(settings) / "item_logs")
    simulate(settings, CONFIG)
    assert contents(raw(settings)) == before


def test_the_record_names_the_world(settings: Settings):
    simulate(settings, CONFIG)
    record = json.loads((raw(settings) / "simulation.json").read_text())
    assert record["config"] == json.loads(CONFIG.model_dump_json())
    assert record["facts"] == {"finished": True, "first_day": "2026-06-19", "last_day": "2026-06-28"}
