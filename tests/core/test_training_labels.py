"""The readers: who teaches them, what stops them, what is left as it was."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.model.builder import build_network
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.schema import SPLITS
from mfn_core.training import labels
from mfn_core.training.labels import gather, learn_labels
from tests.factories import patterned_dataset

NETWORK = NetworkConfig(width=8, num_layers=1, max_macro_length=6, max_micro_length=6, num_alignment_filters=2, num_successors=4)
TRAINING = TrainingConfig(head_epochs=3, evaluation_batch_size=32, device="cpu")
DATASET = patterned_dataset()  # activity is the parity of the user's number; the attribute has three classes
ACTIVITY, COLOUR = 0, 1
Weights = dict[str, torch.Tensor]


def fresh(dataset: Dataset = DATASET) -> MacroMicroFusionNetwork:
    torch.manual_seed(0)
    network = build_network(NETWORK, dataset.vocabularies, dataset.attribute_classes)
    network.count(dataset.histories, dataset.held_out_B, may_return=False)
    return network.eval()


def learned(dataset: Dataset = DATASET, **settings) -> MacroMicroFusionNetwork:
    network = fresh(dataset)
    learn_labels(network, dataset, NETWORK, TRAINING.model_copy(update=settings), lambda done, total: None)
    return network


def weights(network: torch.nn.Module, *, blend: bool = True) -> Weights:
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if blend or not name.endswith("blend_4")}


def same(some: Weights, others: Weights) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def in_split(name: str) -> np.ndarray:
    return DATASET.split_B == SPLITS.index(name)


def flipped(users_B: np.ndarray) -> Dataset:
    """The dataset with other labels for these users."""
    activity_B = np.where(users_B & (DATASET.activity_B >= 0), 1 - DATASET.activity_B, DATASET.activity_B).astype(np.int8)
    colours_BA = np.where(users_B[:, None] & (DATASET.attributes_BA >= 0), (DATASET.attributes_BA + 1) % 3, DATASET.attributes_BA)
    return replace(DATASET, activity_B=activity_B, attributes_BA=colours_BA.astype(np.int32))


class TestWhoTeaches:
    def test_labels_of_test_users_change_nothing(self):
        assert same(weights(learned(flipped(in_split("test")))), weights(learned()))

    def test_labels_of_validation_users_stop_and_blend_and_never_teach(self):
        true, false = (learned(dataset, head_epochs=1) for dataset in (DATASET, flipped(in_split("validation"))))
        assert same(weights(true, blend=False), weights(false, blend=False))
        assert not torch.equal(true.label_readers[ACTIVITY].blend_4, false.label_readers[ACTIVITY].blend_4)

    def test_counts_are_scaled_by_labelled_train_users(self):
        network = learned(head_epochs=1)
        rows = np.flatnonzero(in_split("train") & (DATASET.activity_B >= 0))
        means = gather(network, DATASET, rows, NETWORK, TRAINING).macro.volumes_BV.mean(0)
        encoding = network.label_readers[ACTIVITY].readers[0].experts.experts[0].encoding
        torch.testing.assert_close(encoding.mean_X[: len(means)], means)

    def test_labels_of_train_users_teach(self):
        assert not same(weights(learned(flipped(in_split("train")))), weights(learned()))

    def test_events_of_test_users_change_nothing(self):
        micro = DATASET.histories.micro
        of_test = np.repeat(in_split("test"), micro.lengths)
        other = replace(DATASET.histories, micro=replace(micro, ids=np.where(of_test, 2, micro.ids).astype(np.int32)))
        network = fresh()  # which has counted as if nothing were other
        learn_labels(network, replace(DATASET, histories=other), NETWORK, TRAINING, lambda done, total: None)
        assert same(weights(network), weights(learned()))

    def test_the_encoders_and_the_scores_of_items_stand_still(self):
        before, after = weights(fresh()), weights(learned())
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"readers"}

    def test_a_label_without_train_users_is_left_as_it_was(self):
        without = replace(DATASET, activity_B=np.where(in_split("train"), -1, DATASET.activity_B).astype(np.int8))
        assert same(weights(learned(without).label_readers[ACTIVITY]), weights(fresh().label_readers[ACTIVITY]))

    @pytest.mark.parametrize(("of_train", "users", "classes"), [(-1, 0, 0), (1, 32, 1)])
    def test_a_label_that_the_train_split_lacks_is_told(self, caplog, of_train, users, classes):
        activity_B = np.where(in_split("train"), of_train, DATASET.activity_B).astype(np.int8)
        learned(replace(DATASET, activity_B=activity_B), head_epochs=1)
        (message,) = [record.getMessage() for record in caplog.records]
        expected = f"the {users} labelled users of the train split are of {classes} of its 2 classes"
        assert message == f"activity cannot be learned: {expected}; label more users"

    def test_a_label_that_nobody_has_is_not_told(self, caplog):
        learned(replace(DATASET, activity_B=np.full_like(DATASET.activity_B, -1)), head_epochs=1)
        assert not caplog.records

    def test_a_label_without_validation_users_is_judged_by_those_who_teach(self):
        without = replace(DATASET, activity_B=np.where(in_split("train"), DATASET.activity_B, -1).astype(np.int8))
        shares = learned(without).label_readers[ACTIVITY].blend_4
        assert not torch.equal(shares, torch.full((4,), 0.25))


class TestStopping:
    @pytest.fixture
    def passes(self, monkeypatch: pytest.MonkeyPatch) -> Counter:
        """Activity is told best after its second pass, colour after each pass better; how many passes each reader took."""
        taken: Counter = Counter()

        def scripted(network, reader, evidence, rows):
            classes = len(reader.bias)
            label = ACTIVITY if classes == 2 else COLOUR
            place = list(network.label_readers[label].readers).index(reader)
            taken[label, place] += 1
            done = taken[label, place]
            confidence = {1: 0.4, 2: 0.9}.get(done, 0.3) if label == ACTIVITY else 0.3 + 0.05 * done
            truth = (DATASET.activity_B if label == ACTIVITY else DATASET.attributes_BA[:, 0])[DATASET.split_B != 2][rows]
            told = torch.full((len(rows), classes), (1 - confidence) / (classes - 1))
            told[torch.arange(len(rows)), torch.from_numpy(truth.astype(np.int64))] = confidence
            return told

        monkeypatch.setattr(labels, "_probabilities", scripted)
        return taken

    def test_every_label_stops_on_its_own(self, passes):
        learned(head_epochs=7, head_patience=2)
        assert passes == {(ACTIVITY, place): 4 for place in range(4)} | {(COLOUR, place): 7 for place in range(4)}

    def test_the_weights_of_the_best_pass_stay(self, passes):
        long = learned(head_epochs=7, head_patience=2)
        passes.clear()
        short = learned(head_epochs=2)
        assert same(weights(long.label_readers[ACTIVITY]), weights(short.label_readers[ACTIVITY]))
        assert not same(weights(long.label_readers[COLOUR]), weights(short.label_readers[COLOUR]))

    def test_no_time_left_leaves_every_reader_one_pass(self, passes, monkeypatch, caplog):
        monkeypatch.setattr(labels, "_LEAST_SECONDS", 0.0)
        learned(head_epochs=7, max_minutes=1e-9)
        assert passes == {(label, place): 1 for label in (ACTIVITY, COLOUR) for place in range(4)}
        assert "8 parts of the labels stopped before they had learned all they could" in caplog.text
        assert "raise max_minutes" in caplog.text

    def test_time_is_shared_by_those_who_are_still_to_learn(self, monkeypatch):
        clock = iter([0, 29, 30, 40, 109, 110]).__next__  # of 120 seconds for four: 30, then a third of the 80 that are left at 40
        monkeypatch.setattr(labels.time, "monotonic", clock)
        turns = labels._Turns(deadline=120, num_learners=4)
        first = turns.begin()
        assert (first(), first()) == (False, True)
        turns.begin()
        third = turns.begin()  # at 109: half of the 11 seconds left
        assert third() is False

    @pytest.mark.parametrize(("encoder_seconds", "seconds"), [(0, 7200), (3600, 3600), (7000, 1800)])
    def test_labels_have_what_the_encoders_left_and_at_least_half_an_hour(self, monkeypatch, encoder_seconds, seconds):
        deadlines, turns = [], labels._Turns
        monkeypatch.setattr(labels.time, "monotonic", lambda: 50.0)
        monkeypatch.setattr(labels, "_Turns", lambda deadline, num_learners: deadlines.append(deadline) or turns(deadline, num_learners))
        config = TRAINING.model_copy(update={"max_minutes": 120, "head_epochs": 1})
        learn_labels(fresh(), DATASET, NETWORK, config, lambda done, total: None, encoder_seconds)
        assert deadlines == [50 + seconds]


def test_a_label_is_learned_the_same_whatever_the_others_are():
    colourless = replace(DATASET, attributes_BA=np.full_like(DATASET.attributes_BA, -1))
    assert same(weights(learned(colourless).label_readers[ACTIVITY]), weights(learned().label_readers[ACTIVITY]))


def test_a_seed_fixes_the_readers():
    assert same(weights(learned(seed=5)), weights(learned(seed=5)))
    assert not same(weights(learned(seed=5)), weights(learned(seed=6)))


def test_what_was_drawn_before_changes_nothing():
    network = fresh()
    torch.manual_seed(123)
    learn_labels(network, DATASET, NETWORK, TRAINING, lambda done, total: None)
    assert same(weights(network), weights(learned()))


def test_progress_is_told_after_every_reader():
    told = []
    learn_labels(fresh(), DATASET, NETWORK, TRAINING, lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(1, 9)]


def test_the_network_is_left_ready_to_predict():
    assert not any(module.training for module in learned().modules())


class TestAffinity:
    """Every user needs a group to be found in: as many as 32 with both views in the train and the validation split."""

    MANY = patterned_dataset(240)

    def test_learns_where_there_are_users_enough(self):
        assert not torch.equal(learned(self.MANY, head_epochs=1).affinity.weight_DD, fresh(self.MANY).affinity.weight_DD)

    def test_is_left_as_it_was_where_there_are_too_few(self):
        assert torch.equal(learned(head_epochs=1).affinity.weight_DD, fresh().affinity.weight_DD)

    def test_is_left_as_it_was_without_mutual_information(self):
        network = learned(self.MANY, head_epochs=1, mutual_information_weight=0.0)
        assert torch.equal(network.affinity.weight_DD, fresh(self.MANY).affinity.weight_DD)

    def test_a_pass_is_of_no_more_users_than_the_products_allow(self, monkeypatch):
        taught, batches = [], labels._batches
        monkeypatch.setattr(labels, "_batches", lambda rows, size, least: taught.append(len(rows)) or batches(rows, size, least))
        monkeypatch.setattr(labels, "_MOST_PRODUCTS_PER_PASS", 40 * 32 * 6 * 6)  # of 40 users, in groups of 32, 6 categories in either view
        learned(self.MANY, head_epochs=1)
        assert taught[1] == 40

    def other_categories(self, split: str) -> Dataset:
        """The users of a split have met items of one category only."""
        micro = self.MANY.histories.micro
        of_split = np.repeat(self.MANY.split_B == SPLITS.index(split), micro.lengths)
        other = replace(micro, categories=np.where(of_split, 2, micro.categories).astype(np.int32))
        return replace(self.MANY, histories=replace(self.MANY.histories, micro=other))

    def test_never_sees_test_users(self):
        true, false = (learned(dataset, head_epochs=1) for dataset in (self.MANY, self.other_categories("test")))
        assert same(weights(true.affinity), weights(false.affinity))

    def test_is_stopped_by_validation_users_and_not_taught(self, monkeypatch):
        monkeypatch.setattr(labels, "_AFFINITY_EPOCHS", 1)
        true, false = (learned(dataset, head_epochs=1) for dataset in (self.MANY, self.other_categories("validation")))
        assert same(weights(true.affinity), weights(false.affinity))
        assert not same(weights(true.affinity), weights(fresh(self.MANY).affinity))


class TestBlend:
    TRUTH = torch.tensor([0, 1])

    def shares(self, *truth_told: float) -> list[float]:
        """Of readers who give the truth this probability."""
        reader = fresh().label_readers[ACTIVITY]
        told = torch.tensor([[[told, 1 - told], [1 - told, told]] for told in truth_told])
        labels._blend(reader, told, self.TRUTH)
        return reader.blend_4.tolist()

    def test_equal_readers_keep_equal_shares(self):
        assert self.shares(0.7, 0.7, 0.7, 0.7) == pytest.approx([0.25] * 4)

    def test_the_reader_who_knows_gets_most_and_shares_sum_to_one(self):
        shares = self.shares(0.5, 0.6, 0.9, 0.4)
        assert shares[2] > 0.9
        assert sum(shares) == pytest.approx(1)

    def test_readers_who_err_apart_are_blended(self):
        # Each knows one of two users: together they are better than either.
        reader = fresh().label_readers[ACTIVITY]
        first, second, useless = [[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]
        labels._blend(reader, torch.tensor([first, second, useless, useless]), self.TRUTH)
        assert reader.blend_4[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.01)


def test_evidence_is_in_the_order_asked_for_whatever_the_batches():
    network, rows = fresh(), np.array([41, 3, 20, 8, 0])
    together = gather(network, DATASET, rows, NETWORK, TRAINING)
    for place, row in enumerate(rows):
        alone = gather(network, DATASET, np.array([row]), NETWORK, TRAINING.model_copy(update={"evaluation_batch_size": 1}))
        torch.testing.assert_close(together.micro.state_BS[place], alone.micro.state_BS[0], rtol=0, atol=2e-6)
        torch.testing.assert_close(together.macro.volumes_BV[place], alone.macro.volumes_BV[0])


def test_more_users_than_the_memory_holds_are_drawn_from_at_random(monkeypatch, caplog):
    num_ids = int(DATASET.histories.macro.lengths.max() + DATASET.histories.micro.lengths.max())
    monkeypatch.setattr(labels, "_EVIDENCE_BYTES", 10 * labels.evidence_bytes(width=8, num_categories=6 + 6, num_ids=num_ids))
    rows = labels._rows(fresh(), DATASET, NETWORK, seed=0)
    assert len(rows) == 10
    assert (DATASET.split_B[rows] != SPLITS.index("test")).all()
    assert rows.tolist() == labels._rows(fresh(), DATASET, NETWORK, seed=0).tolist() == sorted(rows)
    assert rows.tolist() != labels._rows(fresh(), DATASET, NETWORK, seed=1).tolist()
    assert "labels are learned from 10 of 46 users" in caplog.text


@pytest.mark.parametrize(
    ("limit", "drawn"),
    [(6, [2, 2, 2, 0]), (9, [2, 3, 4, 0]), (20, [2, 3, 10, 5])],
    ids=["equal parts", "the rest to the label that more have", "then whoever is left"],
)
def test_of_more_users_than_the_memory_holds_a_label_that_few_have_gets_its_part(limit, drawn):
    label_of = np.repeat([0, 1, 2, 3], [2, 3, 10, 15])  # the last have no label
    is_labelled = label_of[:, None] == np.arange(3)
    rows = labels._drawn(is_labelled, limit, seed=0)
    assert rows.tolist() == sorted(rows)
    assert np.bincount(label_of[rows], minlength=4).tolist() == drawn
