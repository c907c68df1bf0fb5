"""What early stopping watches, measured with networks whose answers are known."""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.model.builder import build_network
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import UNKNOWN
from mfn_core.training.validation import Validation, score
from tests.factories import app_log, dataset_of, item_log

USERS = "abcdef"
ITEMS = [(user, item, "c", f"2026-05-0{day}T00:00:00") for user in USERS for day, item in enumerate("xyxzw", start=1)]
SPLIT = dict(zip(USERS, ["train", "test", "validation", "validation", "validation", "validation"], strict=True))


def dataset(**labels):
    return dataset_of(app_log([]), item_log(ITEMS), users=USERS, split=SPLIT, **labels)


@dataclass
class KnownNetwork:
    """Answers by the row of the user, and asks for one item in particular."""

    activity: dict[int, float]
    wanted_item: int = 2

    def eval(self):
        return self

    def parameters(self):
        return iter([torch.zeros(1)])

    def __call__(self, batch):
        logits = torch.tensor([self.activity.get(row, 0.0) for row in batch.rows_B.tolist()])
        colour = torch.stack([-logits, logits], dim=1)
        return SimpleNamespace(activity_logits_B=logits, attribute_logits=[colour] * batch.attributes_BA.shape[1] or [colour])

    def unblended_ranking_scores(self, batch):
        num_users = len(batch.rows_B)
        wanted_BD = torch.eye(6)[self.wanted_item].repeat(num_users, 1)
        return ItemScores.plain(wanted_BD, torch.eye(6), torch.zeros(6)), ()

    def blend(self, own, gains):
        return own


def measure(data, network, **settings):
    config = TrainingConfig(evaluation_batch_size=2, device="cpu", **settings)
    return Validation(data, NetworkConfig(), config).measure(network, lambda step: None, labels=True)


def item(data, token):
    return 2 + data.vocabularies.micro_id.tokens.to_pylist().index(token)


def test_activity_is_measured_on_labelled_validation_users_alone():
    # rows 2 to 5 are validation users; f has no label; a and b would spoil the figure
    data = dataset(activity={"a": 1, "b": 1, "c": 0, "d": 1, "e": 0}, attributes={"colour": {"c": "blue", "d": "red"}})
    figures = measure(data, KnownNetwork({0: -9.0, 1: -9.0, 2: 0.1, 3: 0.3, 4: 0.2, 5: 9.0}))
    assert figures["activity_auc"] == 1.0


def test_attributes_are_measured_each_and_in_the_mean():
    data = dataset(attributes={"colour": {"a": "blue", "c": "red", "d": "blue", "e": "blue", "f": "red"}})
    # blue is class 0, red class 1; scores of red: c .3 (red), d .1, e .5, f .4 (red): 2 of 4 pairs are right
    figures = measure(data, KnownNetwork({2: 0.3, 3: 0.1, 4: 0.5, 5: 0.4}))
    assert figures["attribute_colour_auc"] == figures["attribute_auc"] == 0.5


def test_a_label_that_validation_users_do_not_vary_in_is_left_out():
    data = dataset(activity={"a": 0, "c": 1, "d": 1}, attributes={"colour": {"a": "blue", "b": "red"}})
    assert measure(data, KnownNetwork({})).keys() == {"hr@10", "ndcg@10"}


def test_the_second_last_item_of_every_user_is_ranked():
    data = dataset()
    figures = measure(data, KnownNetwork({}, wanted_item=item(data, "z")))
    assert figures == {"hr@10": 1.0, "ndcg@10": 1.0}


@pytest.mark.parametrize(("mask_seen", "rank"), [("on", 0.5), ("off", 2.0)])
def test_seen_items_are_left_out_of_the_ranking_as_set(mask_seen, rank):
    # x is asked for; target z ties with w, and with y unless y is masked as seen along with x
    data = dataset()
    figures = measure(data, KnownNetwork({}, wanted_item=item(data, "x")), mask_seen=mask_seen)
    assert figures["ndcg@10"] == pytest.approx(float(1 / torch.log2(torch.tensor(rank + 2))))


def test_the_score_is_the_mean_over_the_tasks_that_were_measured():
    every_figure = {"activity_auc": 0.8, "attribute_colour_auc": 0.1, "attribute_auc": 0.6, "ndcg@10": 0.1, "hr@10": 0.9}
    assert score(every_figure) == pytest.approx(0.5)
    assert score({"ndcg@10": 0.1, "hr@10": 0.9}) == pytest.approx(0.1)
    assert score({}) is None


def test_without_labels_only_the_next_item_is_measured():
    data = dataset(activity={"c": 0, "d": 1})
    validation = Validation(data, NetworkConfig(), TrainingConfig(evaluation_batch_size=2, device="cpu"))
    steps = []
    figures = validation.measure(KnownNetwork({}), steps.append, labels=False)
    assert set(figures) == {"hr@10", "ndcg@10"}
    assert steps == [1, 2, 3]
    assert (validation.num_steps(labels=False), validation.num_steps(labels=True)) == (3, 4)


def test_labels_are_read_from_ids_of_before_the_windows_too():
    # c opened two apps on other days; the network reads one event of either view, its readers of labels know the ids of 1,000.
    apps = [("c", "p", "k", "2026-05-01T00:00:00"), ("c", "q", "k", "2026-05-02T00:00:00")]
    data = dataset_of(app_log(apps), item_log(ITEMS), users=USERS, split=SPLIT, attributes={"colour": {"c": "blue", "d": "red"}})
    met = {}

    class Recording(KnownNetwork):
        def __call__(self, batch):
            met.update(zip(batch.rows_B.tolist(), batch.macro_met_BM.tolist(), strict=True))
            return super().__call__(batch)

    config = NetworkConfig(max_macro_length=1, max_micro_length=1)
    Validation(data, config, TrainingConfig(device="cpu")).measure(Recording({}), lambda _: None, labels=True)
    assert set(met[USERS.index("c")]) - {0} == {2, 3}


def test_items_that_the_vocabulary_lacks_throughout_measure_nothing():
    data = dataset(attributes={"colour": {"a": "blue", "b": "red"}})
    unknown = dataclasses.replace(data.histories.micro, ids=np.full_like(data.histories.micro.ids, UNKNOWN))
    strange = dataclasses.replace(data, histories=dataclasses.replace(data.histories, micro=unknown))
    assert measure(strange, KnownNetwork({})) == {}


def test_answers_at_hand_are_not_asked_for_again():
    data = dataset()
    validation = Validation(data, NetworkConfig(), TrainingConfig(evaluation_batch_size=2, device="cpu"))
    answers = validation.answers(KnownNetwork({}, wanted_item=item(data, "z")))
    steps = []
    assert validation.measure(KnownNetwork({}, wanted_item=item(data, "x")), steps.append, labels=False, answers=answers)["hr@10"] == 1
    assert steps == []


def test_an_answer_is_blended_by_the_network_as_it_is_now():
    data = dataset()
    network = build_network(NetworkConfig(width=8, num_layers=1), data.vocabularies, {}).eval()
    with torch.no_grad():
        network.items.bias[item(data, "z")] = -50.0  # by itself, the network says anything but z
    validation = Validation(data, NetworkConfig(), TrainingConfig(evaluation_batch_size=2, device="cpu"))
    answers = validation.answers(network)
    network.successors.successors_NM[:, 0] = item(data, "z")  # everything is followed by z
    network.successors.gains_NM[:, 0] = 1000.0
    assert validation.measure(network, lambda _: None, labels=False, answers=answers)["ndcg@10"] < 1  # gains were told before
    answers = validation.answers(network)
    assert validation.measure(network, lambda _: None, labels=False, answers=answers)["ndcg@10"] == 1
    network.blend.shares_K.zero_()
    assert validation.measure(network, lambda _: None, labels=False, answers=answers)["ndcg@10"] < 1
