"""Encoders taken over from a finished run that differs in the labels alone."""

import json
from pathlib import Path

import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.errors import ArtifactError
from mfn_core.model.bundle import load_bundle
from mfn_core.training import JOB
from mfn_core.training.encoders import SETTINGS_OF_LABELS
from mfn_core.training.loop import train
from mfn_core.training.progress import TrainingResult
from tests.factories import patterned_dataset

DATASET = patterned_dataset(40)
NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2)
TRAINING = TrainingConfig(max_epochs=2, batch_size=16, head_epochs=2, device="cpu", precision="float32")


def run(
    folder: Path, network: NetworkConfig = NETWORK, training: TrainingConfig = TRAINING, encoders: Path | None = None
) -> TrainingResult:
    """Train as the worker does, job and all."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {"network": network.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    (folder / JOB).write_text(json.dumps(job))
    return train(DATASET, network, training, folder, lambda _: None, encoders)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_bundle(folder / "bundle").network.state_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.mark.parametrize(
    ("network", "training"),
    [
        (NETWORK.model_copy(update={"product": False, "alignment": False, "gate": False}), TRAINING),
        (NETWORK, TRAINING.model_copy(update={"mutual_information_weight": 0.0})),
    ],
)
def test_the_bundle_is_bit_for_bit_that_of_a_run_that_trained_its_own(tmp_path: Path, finished: Path, network, training) -> None:
    run(tmp_path / "own", network, training)
    run(tmp_path / "taken", network, training, finished)
    own, taken = weights(tmp_path / "own"), weights(tmp_path / "taken")
    assert own.keys() == taken.keys()
    assert all(torch.equal(own[name], taken[name]) for name in own)


def test_the_epochs_and_their_seconds_count_as_the_runs_own(tmp_path: Path, finished: Path) -> None:
    theirs = TrainingResult.from_json(json.loads((finished / "result.json").read_text()))
    ours = run(tmp_path, NETWORK.model_copy(update={"gate": False}), encoders=finished)
    assert (ours.stopped, ours.epochs, ours.best_epoch, ours.history) == ("max_epochs", 2, theirs.best_epoch, theirs.history)
    assert ours.seconds > ours.encoder_seconds >= theirs.encoder_seconds > 0


@pytest.mark.parametrize(
    ("network", "training", "said"),
    [
        (NETWORK.model_copy(update={"dropout": 0.5}), TRAINING, "dropout=0.2 there, 0.5 here"),
        (NETWORK, TRAINING.model_copy(update={"seed": 7}), "seed=0 there, 7 here"),
        (NETWORK.model_copy(update={"preset": "paper"}), TRAINING, "preset=default there, paper here"),
    ],
)
def test_encoders_of_other_settings_are_refused(tmp_path: Path, finished: Path, network, training, said) -> None:
    with pytest.raises(ArtifactError, match=said):
        run(tmp_path, network, training, finished)


def test_encoders_of_other_data_are_refused(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(ArtifactError, match="data="):
        train(patterned_dataset(41), NETWORK, TRAINING, tmp_path, lambda _: None, finished)


def test_a_run_that_is_not_finished_has_no_encoders_to_give(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no finished run"):
        run(tmp_path / "new", encoders=tmp_path / "nowhere")


def test_the_result_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in (JOB, "result.json"):
        (tmp_path / "old" / name).write_text("{}")
    with pytest.raises(ArtifactError, match="holds no finished run"):
        run(tmp_path / "new", encoders=tmp_path / "old")


def test_every_setting_of_the_labels_exists() -> None:
    assert NetworkConfig.model_fields.keys() | TrainingConfig.model_fields.keys() >= SETTINGS_OF_LABELS
