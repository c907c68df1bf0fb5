"""A training run: what it learns from, what it never sees, when it stops, how it goes on after a crash."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.errors import ArtifactError, ConfigError, InsufficientDataError, PermanentError
from mfn_core.model.bundle import load_bundle
from mfn_core.training import loop
from mfn_core.training.loop import train
from tests.factories import app_log, dataset_of, item_log, patterned_dataset

NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2)
TRAINING = TrainingConfig(batch_size=16, evaluation_batch_size=32, max_epochs=2, device="cpu", precision="float32")
DATASET = patterned_dataset()


class Killed(BaseException):
    pass


def ignore(progress):
    pass


def kill_after_epoch(epoch):
    def report(progress):
        if progress.phase == "epoch" and progress.epoch == epoch:
            raise Killed

    return report


def last_weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["network"]


def best_weights(folder):
    return load_bundle(folder / "bundle").network.state_dict()


def same(weights, others):
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(("epoch", "precision"), [(1, "float32"), (2, "float32"), (3, "float32"), (2, "bfloat16")])
def test_a_run_killed_after_any_epoch_goes_on_to_the_same_weights_bit_for_bit(tmp_path, epoch, precision):
    training = TRAINING.model_copy(update={"max_epochs": 4, "precision": precision})
    train(DATASET, NETWORK, training, tmp_path / "whole", ignore)
    with pytest.raises(Killed):
        train(DATASET, NETWORK, training, tmp_path / "resumed", kill_after_epoch(epoch))
    epochs = []
    train(DATASET, NETWORK, training, tmp_path / "resumed", lambda progress: epochs.append(progress.epoch))
    assert sorted(set(epochs)) == list(range(epoch, 5))
    assert same(last_weights(tmp_path / "resumed"), last_weights(tmp_path / "whole"))
    assert same(best_weights(tmp_path / "resumed"), best_weights(tmp_path / "whole"))


def test_a_seed_fixes_a_run(tmp_path):
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        train(DATASET, NETWORK, TRAINING.model_copy(update={"seed": seed}), tmp_path / name, ignore)
    assert same(last_weights(tmp_path / "first"), last_weights(tmp_path / "again"))
    assert not same(last_weights(tmp_path / "first"), last_weights(tmp_path / "other"))


def test_labels_of_validation_and_test_users_are_never_learned(tmp_path):
    unseen_B = DATASET.split_B != 0
    activity_B, attributes_BA = DATASET.activity_B.copy(), DATASET.attributes_BA.copy()
    activity_B[unseen_B] = 1 - activity_B[unseen_B]
    attributes_BA[unseen_B] = np.where(attributes_BA >= 0, 2 - attributes_BA, -1)[unseen_B]
    other = replace(DATASET, activity_B=activity_B, attributes_BA=attributes_BA)
    train(DATASET, NETWORK, TRAINING, tmp_path / "true", ignore)
    train(other, NETWORK, TRAINING, tmp_path / "false", ignore)
    assert same(last_weights(tmp_path / "true"), last_weights(tmp_path / "false"))


def test_labels_of_train_users_are_learned(tmp_path):
    activity_B = np.where(DATASET.split_B == 0, 1 - DATASET.activity_B, DATASET.activity_B).astype(np.int8)
    train(DATASET, NETWORK, TRAINING, tmp_path / "true", ignore)
    train(replace(DATASET, activity_B=activity_B), NETWORK, TRAINING, tmp_path / "false", ignore)
    assert not same(last_weights(tmp_path / "true"), last_weights(tmp_path / "false"))


def test_held_out_items_are_never_learned(tmp_path):
    micro = DATASET.histories.micro
    ids, categories, times = micro.ids.copy(), micro.categories.copy(), micro.times.copy()
    for row in np.flatnonzero(DATASET.held_out_B == 2):
        stop = micro.offsets[row + 1]
        ids[stop - 2 : stop], categories[stop - 2 : stop], times[stop - 2 : stop] = 2, 2, times[stop - 1]
    other = replace(DATASET, histories=replace(DATASET.histories, micro=replace(micro, ids=ids, categories=categories, times=times)))
    train(DATASET, NETWORK, TRAINING, tmp_path / "true", ignore)
    train(other, NETWORK, TRAINING, tmp_path / "false", ignore)
    assert same(last_weights(tmp_path / "true"), last_weights(tmp_path / "false"))


def test_next_items_of_test_users_are_learned_up_to_the_held_out_ones(tmp_path):
    items = [(user, f"i{position % 4}", "c", f"2026-05-0{position + 1}T00:00:00") for user in "abcd" for position in range(6)]
    dataset = dataset_of(app_log([]), item_log(items), users="abcd", split=dict.fromkeys("abcd", "test"))
    losses = []
    training = TRAINING.model_copy(update={"max_epochs": 3})
    train(dataset, NETWORK, training, tmp_path, lambda progress: losses.append(progress.losses["next_item"]))
    assert losses[-1] < losses[0]


def test_training_lowers_the_loss(tmp_path):
    training = TRAINING.model_copy(update={"max_epochs": 8, "patience": 8, "learning_rate": 0.01})
    result = train(DATASET, NETWORK, training, tmp_path, ignore)
    assert result.history[-1].losses["total"] < 0.95 * result.history[0].losses["total"]


def test_the_best_weights_are_kept_and_patience_ends_the_run(tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.2, 0.3, 0.4])
    monkeypatch.setattr(loop, "score", lambda figures: next(scores))
    result = train(DATASET, NETWORK, TRAINING.model_copy(update={"max_epochs": 9, "patience": 2}), tmp_path / "run", ignore)
    assert (result.stopped, result.epochs, result.best_epoch, result.best_score) == ("patience", 4, 2, 0.5)
    monkeypatch.undo()
    train(DATASET, NETWORK, TRAINING.model_copy(update={"max_epochs": 2}), tmp_path / "two", ignore)
    assert same(best_weights(tmp_path / "run"), last_weights(tmp_path / "two"))


def test_max_minutes_ends_the_run_after_the_epoch(tmp_path):
    result = train(DATASET, NETWORK, TRAINING.model_copy(update={"max_epochs": 50, "max_minutes": 1e-6}), tmp_path, ignore)
    assert (result.stopped, result.epochs) == ("max_minutes", 1)


def test_without_anything_to_validate_on_the_latest_weights_are_the_best(tmp_path):
    events = [("a", "x", "c", "2026-05-01T00:00:00"), ("a", "y", "c", "2026-05-02T00:00:00")]
    dataset = dataset_of(app_log([]), item_log(events), users=["a"])
    result = train(dataset, NETWORK, TRAINING, tmp_path, ignore)
    assert (result.best_epoch, result.best_score, result.validation) == (2, None, {})


@pytest.mark.parametrize("absent", ["macro", "micro"])
def test_a_dataset_of_one_view_trains(tmp_path, absent):
    events = [(user, f"x{position}", "c", f"2026-05-0{position + 1}T00:00:00") for user in "abcdef" for position in range(4)]
    dataset = dataset_of(
        app_log([] if absent == "macro" else events),
        item_log([] if absent == "micro" else events),
        users="abcdef",
        split=dict(zip("abcdef", ["train", "train", "train", "validation", "validation", "test"], strict=True)),
        activity=dict(zip("abcdef", [0, 1, 0, 1, 0, 1], strict=True)),
    )
    result = train(dataset, NETWORK, TRAINING, tmp_path, ignore)
    assert ("ndcg@10" in result.validation) == (absent == "macro")
    assert "activity_auc" in result.validation


def test_the_result_and_the_bundle_are_written(tmp_path):
    result = train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored == json.loads(json.dumps(result.to_json()))
    assert (stored["epochs"], stored["device"], stored["precision"], stored["num_users"]) == (2, "cpu", "float32", 49)
    assert load_bundle(tmp_path / "bundle").facts["tasks"] == ["activity", "attribute", "recommendation"]


def test_a_finished_run_asked_for_again_trains_no_epoch(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    weights = last_weights(tmp_path)
    result = train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    assert result.epochs == 2
    assert same(last_weights(tmp_path), weights)


def test_a_run_that_goes_on_tells_its_last_epoch_again(tmp_path):
    with pytest.raises(Killed):
        train(DATASET, NETWORK, TRAINING, tmp_path, kill_after_epoch(1))
    epochs = []
    train(DATASET, NETWORK, TRAINING, tmp_path, lambda progress: epochs.append((progress.phase, progress.epoch)))
    assert epochs == [("epoch", 1), ("epoch", 2)]


def test_progress_is_told_within_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 0)
    reports = []
    train(DATASET, NETWORK, TRAINING.model_copy(update={"max_epochs": 1}), tmp_path, reports.append)
    assert [(report.phase, report.step) for report in reports] == [
        ("training", 1), ("training", 2), ("training", 3), ("validation", 1), ("validation", 2), ("validation", 3), ("epoch", 4),
    ]  # fmt: skip
    assert all(report.seconds_left >= 0 and report.users_per_s > 0 for report in reports)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path, monkeypatch):
    steps = count(1)

    def diverging(network, batch, config):
        losses = total_loss(network, batch, config)
        return replace(losses, total=losses.total * (float("nan") if next(steps) == 7 else 1))

    total_loss = loop.total_loss
    monkeypatch.setattr(loop, "total_loss", diverging)
    with pytest.raises(PermanentError, match=r"epoch 2, step 3 of 4: total=nan, next_item=\d.*learning_rate=0\.001.*lower"):
        train(DATASET, NETWORK, TRAINING, tmp_path, ignore)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    with pytest.raises(ArtifactError, match=r"checkpoint\.pt was made with width=8, but this run has width=16; restore .* or delete"):
        train(DATASET, NETWORK.model_copy(update={"width": 16}), TRAINING, tmp_path, ignore)


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    with pytest.raises(ArtifactError, match="made with dataset="):
        train(patterned_dataset(num_users=61), NETWORK, TRAINING, tmp_path, ignore)


def test_nothing_to_learn_from_is_an_error(tmp_path):
    dataset = dataset_of(app_log([("a", "x", "c", "2026-05-01T00:00:00")]), item_log([]), users=["a"])
    with pytest.raises(InsufficientDataError, match="none of the dataset's 1 users"):
        train(dataset, NETWORK, TRAINING, tmp_path, ignore)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"device=cuda, but torch .* set device=auto or cpu"):
        train(DATASET, NETWORK, TRAINING.model_copy(update={"device": "cuda"}), tmp_path, ignore)


def test_bfloat16_trains_on_request(tmp_path):
    result = train(DATASET, NETWORK, TRAINING.model_copy(update={"precision": "bfloat16"}), tmp_path, ignore)
    assert result.precision == "bfloat16"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_runs_on_a_gpu(tmp_path):
    result = train(DATASET, NETWORK, TRAINING.model_copy(update={"device": "auto"}), tmp_path, ignore)
    assert (result.device, result.precision) == ("cuda", "bfloat16")


def test_training_leaves_torch_as_it_was(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
