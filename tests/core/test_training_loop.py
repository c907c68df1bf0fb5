"""A training run: what it learns from, what it never sees, when it stops, how it goes on after a crash."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batching import collate
from mfn_core.errors import ArtifactError, ConfigError, InsufficientDataError, PermanentError
from mfn_core.model.builder import build_network
from mfn_core.model.bundle import load_bundle
from mfn_core.schema import FIRST_KNOWN, SPLITS
from mfn_core.training import journal, learner, loop, tally
from mfn_core.training.learner import Learner, batch_size_of
from mfn_core.training.loop import train
from mfn_core.training.step import Adam
from mfn_core.training.validation import Validation
from tests.factories import app_log, dataset_of, item_log, patterned_dataset

NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2)
PAPER = NETWORK.model_copy(update={"preset": "paper"})
TRAINING = TrainingConfig(batch_size=16, evaluation_batch_size=32, max_epochs=2, head_epochs=2, device="cpu", precision="float32")
DATASET = patterned_dataset()
EITHER = pytest.mark.parametrize("network", [NETWORK, PAPER], ids=["default", "paper"])


class Killed(BaseException):
    pass


def ignore(progress):
    pass


def kill_after_epoch(epoch):
    def report(progress):
        if progress.phase == "epoch" and progress.epoch == epoch:
            raise Killed

    return report


def kill_in_labels(progress):
    if progress.phase == "labels" and progress.step == 3:
        raise Killed


def last_weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["network"]


def best_weights(folder):
    return load_bundle(folder / "bundle").network.state_dict()


def encoders(weights):
    return {name: weight for name, weight in weights.items() if not name.startswith(("readers.", "affinity."))}


def without_shares(weights):
    return {name: weight for name, weight in weights.items() if not name.startswith("blend.")}


def same(weights, others):
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(
    ("network", "epoch", "precision"),
    [
        *((NETWORK, epoch, "float32") for epoch in (1, 2, 3, 4)),
        (NETWORK, 2, "bfloat16"),
        (PAPER, 2, "float32"),
        (PAPER, 2, "bfloat16"),
    ],
)
def test_a_run_killed_after_any_epoch_goes_on_to_the_same_weights_bit_for_bit(tmp_path, network, epoch, precision):
    goes_on_to_the_same_weights(tmp_path, network, epoch, TRAINING.model_copy(update={"max_epochs": 4, "precision": precision}))


@EITHER
def test_so_does_one_whose_tables_are_updated_by_the_row(tmp_path, network):
    goes_on_to_the_same_weights(tmp_path, network, 2, TRAINING.model_copy(update={"max_epochs": 4, "num_negatives": 6}))


def test_a_checkpoint_of_tables_updated_by_the_row_is_refused_where_they_are_updated_densely(tmp_path, monkeypatch):
    training = TRAINING.model_copy(update={"max_epochs": 4, "num_negatives": 6})
    with pytest.raises(Killed):
        train(DATASET, NETWORK, training, tmp_path, kill_after_epoch(1))
    sampling_of = learner.sampling_of
    monkeypatch.setattr(learner, "sampling_of", lambda *arguments: (sampling_of(*arguments)[0], []))  # as in one of two processes
    with pytest.raises(ArtifactError, match=r"made with table updates='by the row, as one process on a CPU makes them', but .*'dense'"):
        train(DATASET, NETWORK, training, tmp_path, ignore)


def test_what_is_said_of_the_finished_network_is_of_float32_as_it_answers(tmp_path, monkeypatch):
    measure, in_bfloat16 = Validation.measure, []

    def measured(self, *arguments, **options):
        in_bfloat16.append(torch.is_autocast_enabled("cpu"))
        return measure(self, *arguments, **options)

    monkeypatch.setattr(Validation, "measure", measured)
    train(DATASET, NETWORK, TRAINING.model_copy(update={"max_epochs": 1, "precision": "bfloat16"}), tmp_path, ignore)
    assert in_bfloat16[-1] is False


def goes_on_to_the_same_weights(tmp_path, network, epoch, training):
    train(DATASET, network, training, tmp_path / "whole", ignore)
    with pytest.raises(Killed):
        train(DATASET, network, training, tmp_path / "resumed", kill_after_epoch(epoch))
    epochs = []
    train(DATASET, network, training, tmp_path / "resumed", lambda progress: epochs.append(progress.epoch))
    assert sorted(set(epochs)) == list(range(epoch, 5))
    assert same(last_weights(tmp_path / "resumed"), last_weights(tmp_path / "whole"))
    assert same(best_weights(tmp_path / "resumed"), best_weights(tmp_path / "whole"))


def test_a_run_killed_while_the_labels_are_learned_goes_on_to_the_same_weights_bit_for_bit(tmp_path, monkeypatch):
    train(DATASET, NETWORK, TRAINING, tmp_path / "whole", ignore)
    monkeypatch.setattr(journal, "_SECONDS_BETWEEN_REPORTS", 0)
    with pytest.raises(Killed):
        train(DATASET, NETWORK, TRAINING, tmp_path / "resumed", kill_in_labels)
    train(DATASET, NETWORK, TRAINING, tmp_path / "resumed", ignore)
    assert same(best_weights(tmp_path / "resumed"), best_weights(tmp_path / "whole"))


@EITHER
def test_a_seed_fixes_a_run(tmp_path, network):
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        train(DATASET, network, TRAINING.model_copy(update={"seed": seed}), tmp_path / name, ignore)
    assert same(best_weights(tmp_path / "first"), best_weights(tmp_path / "again"))
    assert not same(best_weights(tmp_path / "first"), best_weights(tmp_path / "other"))


@EITHER
def test_the_rarest_categories_share_one_row_in_training_and_in_answers(tmp_path, network, caplog):
    train(DATASET, network.model_copy(update={"max_categories": 1}), TRAINING, tmp_path, ignore)
    bundle = load_bundle(tmp_path / "bundle")
    batch = collate(DATASET.histories, np.array([1, 2]), prefix="full", max_macro_length=6, max_micro_length=6, query_time=DATASET.cut)
    assert bundle.network(batch).alignment_BGK.shape == (2, 3, 3)  # PAD, UNKNOWN and the most frequent of four
    assert len(bundle.network.macro.embedding.categories.weight) == 6  # every one has an embedding
    # All but 54 of 214 app events, and all but 64 of 246 item events, are of the others.
    assert "the 3 rarest of 4 app categories, 74.8 % of the view's events, share one row" in caplog.text
    assert "the 3 rarest of 4 item categories, 74.0 % of the view's events, share one row" in caplog.text


@EITHER
def test_a_limit_that_no_view_exceeds_changes_nothing(tmp_path, network, caplog):
    for limit in (4, 300):
        train(DATASET, network.model_copy(update={"max_categories": limit}), TRAINING, tmp_path / str(limit), ignore)
    assert same(best_weights(tmp_path / "4"), best_weights(tmp_path / "300"))
    assert "share one row" not in caplog.text


def test_where_people_return_a_model_recommends_what_they_have_met_and_training_says_so(tmp_path, caplog):
    micro = DATASET.histories.micro
    one_item = replace(DATASET.histories, micro=replace(micro, ids=np.full_like(micro.ids, FIRST_KNOWN)))
    train(replace(DATASET, histories=one_item), NETWORK, TRAINING, tmp_path, ignore)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.facts["mask_seen"] is False
    assert bundle.network.successors.successors_NM[FIRST_KNOWN, 0] == FIRST_KNOWN, "an item follows itself"
    assert "100 % of the validation targets are items that their users had met: seen items are ranked and recommended too" in caplog.text


def with_other_labels(splits):
    """The dataset with the labels of the users of these splits turned round."""
    turned_B = np.isin(DATASET.split_B, [SPLITS.index(split) for split in splits])
    activity_B, attributes_BA = DATASET.activity_B.copy(), DATASET.attributes_BA.copy()
    activity_B[turned_B] = 1 - activity_B[turned_B]
    attributes_BA[turned_B] = np.where(attributes_BA >= 0, 2 - attributes_BA, -1)[turned_B]
    return replace(DATASET, activity_B=activity_B, attributes_BA=attributes_BA)


def test_labels_of_test_users_change_nothing(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path / "true", ignore)
    train(with_other_labels(["test"]), NETWORK, TRAINING, tmp_path / "false", ignore)
    assert same(best_weights(tmp_path / "true"), best_weights(tmp_path / "false"))


def test_labels_of_validation_and_test_users_never_teach_the_paper_network(tmp_path):
    train(DATASET, PAPER, TRAINING, tmp_path / "true", ignore)
    train(with_other_labels(["validation", "test"]), PAPER, TRAINING, tmp_path / "false", ignore)
    assert same(last_weights(tmp_path / "true"), last_weights(tmp_path / "false"))


def test_no_label_teaches_the_encoders(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path / "true", ignore)
    train(with_other_labels(SPLITS), NETWORK, TRAINING, tmp_path / "false", ignore)
    assert same(encoders(best_weights(tmp_path / "true")), encoders(best_weights(tmp_path / "false")))


@EITHER
def test_labels_of_train_users_are_learned(tmp_path, network):
    train(DATASET, network, TRAINING, tmp_path / "true", ignore)
    train(with_other_labels(["train"]), network, TRAINING, tmp_path / "false", ignore)
    assert not same(best_weights(tmp_path / "true"), best_weights(tmp_path / "false"))


def with_other_last_items(count):
    """The dataset in which the last events of everybody who has held-out ones are of the first item."""
    micro = DATASET.histories.micro
    ids, categories, times = micro.ids.copy(), micro.categories.copy(), micro.times.copy()
    for row in np.flatnonzero(DATASET.held_out_B == 2):
        stop = micro.offsets[row + 1]
        ids[stop - count : stop], categories[stop - count : stop], times[stop - count : stop] = 2, 2, times[stop - 1]
    return replace(DATASET, histories=replace(DATASET.histories, micro=replace(micro, ids=ids, categories=categories, times=times)))


@EITHER
def test_held_out_items_are_never_learned(tmp_path, network):
    train(DATASET, network, TRAINING, tmp_path / "true", ignore)
    train(with_other_last_items(2), network, TRAINING, tmp_path / "false", ignore)
    # The validation items choose the shares of the score, as they choose the epoch.
    true, false = (without_shares(last_weights(tmp_path / name)) for name in ("true", "false"))
    assert same(true, false)


def test_the_shares_of_the_score_are_chosen_and_kept_with_the_weights(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    untrained = build_network(NETWORK, DATASET.vocabularies, DATASET.attribute_classes).state_dict()
    for name in ("blend.sharpness", "blend.popularity_share", "blend.shares_K"):
        assert not torch.allclose(best_weights(tmp_path)[name], untrained[name], atol=1e-3)


@EITHER
def test_the_test_items_choose_nothing_either(tmp_path, network):
    train(DATASET, network, TRAINING, tmp_path / "true", ignore)
    train(with_other_last_items(1), network, TRAINING, tmp_path / "false", ignore)
    assert same(last_weights(tmp_path / "true"), last_weights(tmp_path / "false"))


def test_next_items_of_test_users_are_learned_up_to_the_held_out_ones(tmp_path):
    items = [(user, f"i{position % 4}", "c", f"2026-05-0{position + 1}T00:00:00") for user in "abcd" for position in range(6)]
    dataset = dataset_of(app_log([]), item_log(items), users="abcd", split=dict.fromkeys("abcd", "test"))
    losses = []
    training = TRAINING.model_copy(update={"max_epochs": 20, "patience": 20, "learning_rate": 0.01})
    train(dataset, NETWORK, training, tmp_path, lambda progress: losses.append(progress.losses["next_item"]))
    assert losses[-1] < losses[0]


@EITHER
@pytest.mark.parametrize("num_negatives", [None, 6], ids=["full", "sampled"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01], ids=["", "decay"])
def test_training_lowers_the_loss(tmp_path, network, num_negatives, weight_decay):
    update = {"max_epochs": 8, "patience": 8, "learning_rate": 0.01, "num_negatives": num_negatives, "weight_decay": weight_decay}
    training = TRAINING.model_copy(update=update)
    result = train(DATASET, network, training, tmp_path, ignore)
    assert result.history[-1].losses["total"] < 0.95 * result.history[0].losses["total"]


def test_the_best_weights_are_kept_and_patience_ends_the_run(tmp_path, monkeypatch):
    plain = TRAINING.model_copy(update={"averaging": 0.0})
    scores = iter([0.1, 0.5, 0.2, 0.3, 0.4])
    monkeypatch.setattr(loop, "score", lambda figures: next(scores))
    result = train(DATASET, NETWORK, plain.model_copy(update={"max_epochs": 9, "patience": 2}), tmp_path / "run", ignore)
    assert (result.stopped, result.epochs, result.best_epoch, result.best_score) == ("patience", 4, 2, 0.5)
    monkeypatch.undo()
    train(DATASET, NETWORK, plain.model_copy(update={"max_epochs": 2}), tmp_path / "two", ignore)
    assert same(encoders(best_weights(tmp_path / "run")), encoders(last_weights(tmp_path / "two")))


@pytest.mark.parametrize(("network", "averaging", "is_average"), [(NETWORK, 0.99, True), (NETWORK, 0.0, False), (PAPER, 0.99, False)])
def test_the_default_keeps_the_average_of_its_weights(tmp_path, network, averaging, is_average):
    events = [("a", "x", "c", "2026-05-01T00:00:00"), ("a", "y", "c", "2026-05-02T00:00:00")]
    dataset = dataset_of(app_log([]), item_log(events), users=["a"])  # nothing to validate on: the latest epoch is the best
    train(dataset, network, TRAINING.model_copy(update={"averaging": averaging}), tmp_path, ignore)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    kept, table = best_weights(tmp_path), "micro.embedding.ids.weight"
    assert torch.equal(kept[table], checkpoint["network"][table]) == (not is_average)
    assert any(
        average.shape == kept[table].shape and torch.equal(average, kept[table]) for average in checkpoint["average"]["average"]
    ) == (is_average)


def test_what_learns_labels_is_written_once_and_averaged_never(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    weights, best, averages = checkpoint["network"], checkpoint["best_network"], checkpoint["average"]["average"]
    own = {name for name in weights if weights[name].data_ptr() != best[name].data_ptr()}
    taught = {name for name in weights if name.startswith(("macro.", "micro.", "next_item.", "items.", "next_app.", "apps."))}
    assert own == taught | {"blend.sharpness", "blend.popularity_share", "blend.shares_K"}
    assert sorted(average.shape for average in averages) == sorted(weights[name].shape for name in taught)


def test_a_checkpoint_that_averages_what_learns_labels_too_is_refused_by_name(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(content | {"layout": 2}, tmp_path / "checkpoint.pt")
    with pytest.raises(ArtifactError, match=r"checkpoint\.pt was made with layout=2, but this run has layout=3; restore .* or delete"):
        train(DATASET, NETWORK, TRAINING, tmp_path, ignore)


@pytest.mark.parametrize(
    ("num_users", "size"), [(10, 32), (48 * 32, 32), (48 * 60, 64), (48 * 100, 128), (48 * 200, 256), (1_000_000, 256)]
)
def test_an_empty_batch_size_gives_some_48_steps_an_epoch(num_users, size):
    assert batch_size_of(TrainingConfig(), NETWORK, num_users) == size


def test_an_empty_batch_size_is_the_sources_in_the_paper_preset_and_a_set_one_is_taken():
    assert batch_size_of(TrainingConfig(), PAPER, 10) == 256
    assert [batch_size_of(TrainingConfig(batch_size=7), network, 10) for network in (NETWORK, PAPER)] == [7, 7]


def test_max_minutes_ends_the_run_after_the_epoch(tmp_path):
    result = train(DATASET, NETWORK, TRAINING.model_copy(update={"max_epochs": 50, "max_minutes": 1e-6}), tmp_path, ignore)
    assert (result.stopped, result.epochs) == ("max_minutes", 1)


@pytest.fixture
def recorded_steps(monkeypatch):
    """The losses of every step; a step takes a minute, nothing else takes time."""
    steps, take = [], Learner.step

    def recorded(self, *arguments):
        steps.append(take(self, *arguments))
        return steps[-1]

    monkeypatch.setattr(Learner, "step", recorded)
    for module in (journal, learner):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 60.0 * len(steps)))
    return steps


@EITHER
@pytest.mark.parametrize("max_epochs", [2, 9])
def test_max_minutes_cuts_an_epoch_short_which_is_validated_kept_and_the_last(tmp_path, monkeypatch, recorded_steps, network, max_epochs):
    monkeypatch.setattr(tally, "_WINDOW", 4)
    training = TRAINING.model_copy(update={"batch_size": 4, "max_epochs": max_epochs, "max_minutes": 18})
    with pytest.raises(Killed):
        train(DATASET, network, training, tmp_path, kill_after_epoch(2))
    weights, taken = last_weights(tmp_path), recorded_steps[13:]
    assert len(taken) == 8  # of 13, as many as in the epoch before: 17 minutes after the fourth, 21 after the eighth
    result = train(DATASET, network, training, tmp_path, ignore)
    assert (result.stopped, result.epochs, len(recorded_steps)) == ("max_minutes", 2, 21)  # the second attempt takes no step
    assert same(last_weights(tmp_path), weights)
    whole, cut = result.history
    assert [(whole.step, whole.num_steps), (cut.step, cut.num_steps)] == [(13, 13), (8, 13)]
    assert (whole.users_per_s, cut.users_per_s) == pytest.approx((49 / (13 * 60), 32 / (8 * 60)))
    assert list(cut.losses.values()) == pytest.approx(torch.stack(taken).mean(0).tolist())
    assert "ndcg@10" in cut.validation


def test_without_anything_to_validate_on_the_latest_weights_are_the_best(tmp_path):
    events = [("a", "x", "c", "2026-05-01T00:00:00"), ("a", "y", "c", "2026-05-02T00:00:00")]
    dataset = dataset_of(app_log([]), item_log(events), users=["a"])
    result = train(dataset, NETWORK, TRAINING, tmp_path, ignore)
    assert (result.best_epoch, result.best_score, result.validation) == (2, None, {})


@EITHER
@pytest.mark.parametrize("absent", ["macro", "micro"])
def test_a_dataset_of_one_view_trains(tmp_path, network, absent):
    events = [(user, f"x{position}", "c", f"2026-05-0{position + 1}T00:00:00") for user in "abcdef" for position in range(4)]
    dataset = dataset_of(
        app_log([] if absent == "macro" else events),
        item_log([] if absent == "micro" else events),
        users="abcdef",
        split=dict(zip("abcdef", ["train", "train", "train", "validation", "validation", "test"], strict=True)),
        activity=dict(zip("abcdef", [0, 1, 0, 1, 0, 1], strict=True)),
    )
    result = train(dataset, network, TRAINING, tmp_path, ignore)
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
    reports = []
    train(DATASET, NETWORK, TRAINING, tmp_path, reports.append)
    assert reports[0].phase == "epoch"
    assert [progress.epoch for progress in reports if progress.phase == "epoch"] == [1, 2]


@pytest.mark.parametrize(
    ("network", "validation", "labels"), [(NETWORK, [1, 2], range(1, 9)), (PAPER, [1, 2, 3], [])], ids=["default", "paper"]
)
def test_progress_is_told_within_an_epoch_and_while_labels_are_learned(tmp_path, monkeypatch, network, validation, labels):
    monkeypatch.setattr(journal, "_SECONDS_BETWEEN_REPORTS", 0)
    reports = []
    train(DATASET, network, TRAINING.model_copy(update={"max_epochs": 1}), tmp_path, reports.append)
    assert [(report.phase, report.step) for report in reports] == [
        ("training", 1), ("training", 2), ("training", 3), *(("validation", step) for step in validation), ("epoch", 4),
        *(("labels", reader) for reader in labels),
    ]  # fmt: skip
    assert all(report.seconds_left >= 0 and report.users_per_s > 0 for report in reports)


@pytest.mark.parametrize(("settings", "name"), [(NETWORK, "sequence_loss"), (PAPER, "joint_loss")], ids=["default", "paper"])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path, monkeypatch, settings, name):
    steps, original = count(1), getattr(learner, name)

    def diverging(*arguments):
        losses = original(*arguments)
        return replace(losses, total=losses.total * (float("nan") if next(steps) == 7 else 1))

    monkeypatch.setattr(learner, name, diverging)
    with pytest.raises(PermanentError, match=r"epoch 2, step 3 of 4: total=nan, next_item=\d.*learning_rate=0\.001.*lower"):
        train(DATASET, settings, TRAINING, tmp_path, ignore)


@EITHER
def test_weights_that_the_last_step_broke_end_training_before_they_are_saved(tmp_path, monkeypatch, network):
    taken = count(1)
    take = Adam.step

    def broken(adam, loss):
        take(adam, loss)
        if next(taken) == 8:  # of two epochs of four steps: no loss is of these weights
            adam._dense[0].data[0, 0] = torch.nan

    monkeypatch.setattr(Adam, "step", broken)
    with pytest.raises(PermanentError, match=r"epoch 2, step 4 of 4: 1 of \d+ weights are not finite, macro\.embedding\.ids\.weight"):
        train(DATASET, network, TRAINING, tmp_path, ignore)
    assert not (tmp_path / "bundle").exists()


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
    result = train(DATASET, NETWORK, TRAINING.model_copy(update={"device": "auto", "precision": "auto"}), tmp_path, ignore)
    assert (result.device, result.precision) == ("cuda", "bfloat16")


def test_training_leaves_torch_as_it_was(tmp_path):
    train(DATASET, NETWORK, TRAINING, tmp_path, ignore)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
