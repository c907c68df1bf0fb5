"""A checkpoint is whole or it is not there; a damaged one is noticed, a foreign one refused."""

import pytest
import torch

from mfn_core.errors import ArtifactError
from mfn_core.training import checkpoint as module
from mfn_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mfn_core.training.progress import Progress

IDENTITY = {"dataset": "d1", "width": 8}
EPOCH = Progress("epoch", 1, 4, 10, 10, {"total": 2.5}, {"activity_auc": 0.7}, 0.7, 1, 0.7, 100.0, 30.0)


def checkpoint(value=1.0):
    return Checkpoint(
        identity=IDENTITY,
        network={"weight": torch.full((50, 50), value)},
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        average={"average": [torch.full((50, 50), 0.5)], "updates": 30},
        best_network={"weight": torch.zeros(50, 50)},
        history=(EPOCH,),
        seconds=12.5,
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path, checkpoint())
    loaded = load_checkpoint(tmp_path, IDENTITY)
    assert loaded is not None
    assert torch.equal(loaded.network["weight"], torch.ones(50, 50))
    assert torch.equal(loaded.optimizer["state"][0]["step"], torch.tensor(3.0))
    assert torch.equal(loaded.average["average"][0], torch.full((50, 50), 0.5))
    assert loaded.average["updates"] == 30
    assert (loaded.history, loaded.seconds) == ((EPOCH,), 12.5)


def test_a_folder_without_a_checkpoint_has_none(tmp_path):
    assert load_checkpoint(tmp_path, IDENTITY) is None


def test_it_loads_without_pickle(tmp_path):
    save_checkpoint(tmp_path, checkpoint())
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["identity"] == IDENTITY


def test_a_crash_while_writing_leaves_the_old_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(value=1.0))

    def crash(content, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(module.torch, "save", crash)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(value=2.0))
    loaded = load_checkpoint(tmp_path, IDENTITY)
    assert loaded is not None
    assert torch.equal(loaded.network["weight"], torch.ones(50, 50))


def truncate(content):
    return content[: len(content) // 2]


def flip_a_weight(content):
    position = content.index(torch.ones(50, 50).numpy().tobytes()) + 5000
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip_a_weight, lambda content: b"", lambda content: b"not a checkpoint"])
def test_a_damaged_checkpoint_is_set_aside_with_a_warning(tmp_path, caplog, damage):
    save_checkpoint(tmp_path, checkpoint())
    damaged = damage((tmp_path / "checkpoint.pt").read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(damaged)
    assert load_checkpoint(tmp_path, IDENTITY) is None
    assert f"{tmp_path}/checkpoint.pt is damaged" in caplog.text
    assert "kept as checkpoint.pt.damaged, and training starts afresh" in caplog.text
    assert (tmp_path / "checkpoint.pt.damaged").read_bytes() == damaged


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    save_checkpoint(tmp_path, checkpoint())
    with pytest.raises(ArtifactError, match=r"made with dataset='d1', but this run has dataset='d2'"):
        load_checkpoint(tmp_path, IDENTITY | {"dataset": "d2"})


def test_a_checkpoint_of_an_older_layout_is_refused(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint())
    monkeypatch.setattr(module, "_LAYOUT", 99)
    with pytest.raises(ArtifactError, match="made with layout=3, but this run has layout=99"):
        load_checkpoint(tmp_path, IDENTITY)
