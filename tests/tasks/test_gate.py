"""The gate: champion and candidate on the same test users, each reading with its own vocabulary."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.data.dataset import Dataset
from mfn_core.data.fitting import encode_again
from mfn_core.data.vocabulary import Vocabulary
from mfn_core.errors import ArtifactError, TransientError
from mfn_core.evaluation.evaluator import score
from mfn_core.inference.predictor import Predictor
from mfn_core.schema import FIRST_KNOWN, UNKNOWN
from tasks import storage
from tasks.evaluate import SCORES_FILE, evaluate
from tasks.gate import gate
from tasks.settings import Settings
from tasks.tracking.registry import CHAMPION, PREVIOUS, delete_alias, set_alias
from tests.factories import patterned_dataset
from tests.tasks.registry import CONFIG, make_champion, store_inputs, store_training

TASKS = ("activity", "attribute", "recommendation")


@dataclass(frozen=True)
class World:
    """A champion, and a candidate of the same weights but another fingerprint."""

    settings: Settings
    dataset: dict[str, Any]
    champion: dict[str, Any]
    twin: dict[str, Any]
    evaluations: list[dict[str, Any]]

    def judge(self, evaluations=None, dataset=None, config=CONFIG):
        return gate(self.settings, config, dataset or self.dataset, self.twin, evaluations or self.evaluations)


@pytest.fixture(scope="module")
def world(shared_registry):
    dataset = store_inputs(shared_registry)
    champion, twin = (store_training(shared_registry, dataset, letter, seed=0) for letter in "ce")
    make_champion(shared_registry, champion)
    evaluations = [evaluate(shared_registry, CONFIG, dataset, twin, task) for task in TASKS]
    return World(shared_registry, dataset, champion, twin, evaluations)


def with_ranks(evaluations, rank, folder):
    """The evaluations of a model that gives every held-out item one rank."""
    scores = pq.read_table(storage.join(evaluations[2]["uri"], SCORES_FILE))
    pq.write_table(scores.set_column(1, "rank", pa.array(np.full(len(scores), rank, np.float32))), folder / SCORES_FILE)
    return [*evaluations[:2], evaluations[2] | {"uri": str(folder)}]


def champion_with(monkeypatch, **facts):
    """Another fact or two in the champion's bundle."""
    load = Predictor.load

    def changed(*asked):
        predictor = load(*asked)
        predictor.bundle.facts.update(facts)
        return predictor

    monkeypatch.setattr(Predictor, "load", changed)


def renumbered(dataset):
    """The same dataset with the item vocabulary in reverse order."""
    items = dataset.vocabularies.micro_id
    backwards = Vocabulary.fit(items.tokens, np.arange(1, len(items.tokens) + 1))
    vocabularies = replace(dataset.vocabularies, micro_id=backwards)
    return replace(dataset, histories=encode_again(dataset.histories, dataset.vocabularies, vocabularies), vocabularies=vocabularies)


def with_one_item(dataset, item):
    """The same dataset, in which every item event is of one item."""
    micro = dataset.histories.micro
    return replace(dataset, histories=replace(dataset.histories, micro=replace(micro, ids=np.full_like(micro.ids, item))))


def test_the_first_model_passes(registry):
    verdict = gate(registry, CONFIG, {"uri": "", "kind": "dataset", "digest": ""}, {"digest": "f" * 64}, [])
    assert (verdict["passed"], verdict["reason"], verdict["champion"]) == (True, "there is no champion yet", None)


def test_where_the_champion_was_lost_the_verdict_says_that_nothing_was_compared(registry):
    make_champion(registry, store_training(registry, store_inputs(registry)))
    set_alias(registry, PREVIOUS, 1)
    delete_alias(registry, CHAMPION)
    verdict = gate(registry, CONFIG, {"uri": "", "kind": "dataset", "digest": ""}, {"digest": "e" * 64}, [])
    assert (verdict["passed"], verdict["champion"], verdict["reason"]) == (
        True,
        None,
        "compared with nothing: model mfn has lost its champion: the last of its versions to be promoted is 1 (previous), and none has the "
        "alias champion. Trigger mfn_promote with version=1, or with that of another which passed the gate",
    )


def test_a_champion_that_cannot_be_read_is_named_with_the_ways_out(world, monkeypatch):
    def fail(*_):
        raise ArtifactError("bundle.json cannot be read")

    monkeypatch.setattr(Predictor, "load", fail)
    with pytest.raises(
        ArtifactError, match=r"champion version 1 of mfn cannot be read: bundle.json.*mfn_promote.*delete the alias champion"
    ):
        world.judge()


def test_a_champion_that_cannot_be_fetched_now_is_not_to_be_demoted(world, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("the server hung up")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fail)
    with pytest.raises(TransientError, match=r"version 1: models:/mfn/1/artifacts/bundle cannot be fetched now"):
        world.judge()


def test_the_champion_itself_passes(world):
    verdict = gate(world.settings, CONFIG, world.dataset, world.champion, world.evaluations)
    assert (verdict["passed"], verdict["reason"]) == (True, "version 1 is the champion itself")


def test_a_model_with_the_champions_weights_makes_no_difference_in_any_task(world):
    verdict = world.judge()
    assert verdict["passed"]
    found = [(each["task"], each["difference"], each["verdict"]) for each in verdict["comparisons"]]
    assert found == [(task, 0.0, "no difference") for task in TASKS]


def test_a_model_that_is_worse_in_one_task_does_not_pass_and_the_reason_says_where(world, tmp_path):
    verdict = world.judge(with_ranks(world.evaluations, 19, tmp_path))
    assert not verdict["passed"]
    assert "worse than champion version 1: recommendation ndcg@10" in verdict["reason"]


@pytest.mark.parametrize(("kept", "lost"), [((1, 2), "activity"), ((0, 2), "attribute colour"), ((0, 1), "recommendation")])
def test_a_model_that_no_longer_answers_what_the_champion_answers_does_not_pass(world, kept, lost):
    verdict = world.judge([world.evaluations[which] for which in kept])
    assert not verdict["passed"]
    assert f"champion version 1 also answers {lost}, which this model was not trained for" in verdict["reason"]
    assert "delete the alias champion in MLflow and clear this task" in verdict["reason"]


def test_the_champion_is_ranked_by_the_rule_of_the_dataset_though_it_knows_no_item_that_returns(world, monkeypatch):
    asked = []

    def recorded(*given, mask_seen, **options):
        asked.append(mask_seen)
        return score(*given, mask_seen=mask_seen, **options)

    everybody_returns = with_one_item(Dataset.open(Path(world.dataset["uri"])), FIRST_KNOWN)
    monkeypatch.setattr("tasks.gate.Dataset.open", lambda folder: everybody_returns)
    monkeypatch.setattr("tasks.gate._as_read_by", lambda predictor, data: with_one_item(data, UNKNOWN))
    monkeypatch.setattr("tasks.gate.score", recorded)
    world.judge()
    assert asked == [False, False, False]


def test_a_better_model_passes(world, tmp_path):
    verdict = world.judge(with_ranks(world.evaluations, 0, tmp_path))
    assert verdict["passed"]
    assert verdict["comparisons"][2]["verdict"] == "better"


def test_the_verdict_is_json(world):
    json.dumps(world.judge(), allow_nan=False)


def test_the_champion_reads_a_dataset_of_other_ids_with_its_own_vocabulary(world):
    old = patterned_dataset(120)
    new = renumbered(old)
    assert (new.histories.micro.ids != old.histories.micro.ids).any()
    stored = store_inputs(world.settings, new, letter="9")
    assert [each["difference"] for each in world.judge(dataset=stored)["comparisons"]] == [0.0, 0.0, 0.0]


def test_another_split_seed_is_a_caveat(world):
    (caveat,) = world.judge(config=CONFIG.model_copy(update={"split_seed": 5}))["caveats"]
    assert caveat == "the champion was trained with split_seed=0, not 5: it has seen labels of these test users"


def test_a_champion_of_later_data_is_a_caveat(world):
    earlier = patterned_dataset(120)
    stored = store_inputs(world.settings, replace(earlier, facts=replace(earlier.facts, cut=earlier.cut - 86_400)), letter="8")
    (caveat,) = world.judge(dataset=stored)["caveats"]
    assert "the champion was trained on later data" in caveat


def test_another_horizon_than_the_champions_is_a_caveat(world):
    longer = patterned_dataset(120)
    stored = store_inputs(world.settings, replace(longer, facts=replace(longer.facts, horizon_days=14)), letter="6")
    assert world.judge(dataset=stored)["caveats"] == [
        "the champion tells who is active within 7 days, this model within 14: activity is compared by the labels of 14 days, and "
        "activity_probability would change its meaning; mfn_promote leaves that to a person"
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("off", "the champion leaves out what a user has met, this model recommends it too"),
        ("on", "the champion recommends what a user has met, this model leaves it out"),
    ],
)
def test_another_rule_of_recommendation_than_the_champions_is_a_caveat(world, monkeypatch, rule, said):
    champion_with(monkeypatch, mask_seen=rule == "off")
    assert world.judge(config=CONFIG.model_copy(update={"mask_seen": rule}))["caveats"] == [
        f"{said}: both are ranked by the rule of this model, and top_items would change its meaning; mfn_promote leaves that to a person"
    ]


def test_where_recommendation_is_not_compared_its_rule_is_no_caveat(world, monkeypatch):
    champion_with(monkeypatch, mask_seen=False)
    assert world.judge(world.evaluations[:2])["caveats"] == []


def test_the_more_labels_are_compared_the_surer_a_verdict_must_be(world, monkeypatch):
    asked = []
    monkeypatch.setattr("tasks.gate.compare", lambda *_, num_together, samples, **__: asked.append((num_together, samples)) or [])
    world.judge(config=CONFIG.model_copy(update={"bootstrap_samples": 250}))
    world.judge(world.evaluations[:2], config=CONFIG.model_copy(update={"bootstrap_samples": 250}))
    assert asked == [(3, 300)] * 3 + [(2, 250)] * 2  # activity, colour and recommendation; then without recommendation


def test_a_champion_that_learned_no_activity_has_no_other_horizon(world, monkeypatch):
    champion_with(monkeypatch, horizon_days=None)
    assert world.judge()["caveats"] == []


def test_a_label_that_cannot_be_compared_is_a_caveat(world, monkeypatch):
    monkeypatch.setattr("tasks.gate.compare", lambda *_, **__: [])
    assert world.judge()["caveats"] == [
        f"{name} is not compared: its test users have no labels, or of one class" for name in ("activity", "colour", "recommendation")
    ]


def test_a_task_that_the_champion_does_not_do_is_a_caveat(world):
    other = world.evaluations[0] | {"facts": {"task": "attribute"}}
    dataset = patterned_dataset(120)
    renamed = replace(dataset, facts=replace(dataset.facts, attribute_classes={"shape": dataset.attribute_classes["colour"]}))
    verdict = world.judge([other], dataset=store_inputs(world.settings, renamed, letter="7"))
    assert verdict["caveats"] == ["attribute is not compared: the champion does not do it"]
