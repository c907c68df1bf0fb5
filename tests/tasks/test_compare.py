"""The comparison of models: who is in it, figures by hand, what is computed once and never again, and how it is told."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from mfn_core.data.dataset import Dataset
from mfn_core.errors import ArtifactError, ConfigError, InsufficientDataError
from mfn_core.evaluation.evaluator import score
from mfn_core.inference.predictor import Predictor
from tasks import compare, manifest, storage
from tasks.comparison import lineup, measuring, presentation, statistics
from tasks.comparison.lineup import NETWORKS, RECBOLE, train_config
from tasks.comparison.recbole import SECONDS
from tasks.comparison.statistics import rows_of
from tasks.dag_configs import CompareConfig
from tasks.manifest import Manifest
from tasks.rivals import RIVALS
from tests.factories import patterned_dataset, store_dataset
from tests.models import TINY

ALL_TASKS = ("activity", "attribute", "recommendation")
BOTH, ONE = ("macro", "micro"), ("micro",)
SMALL = CompareConfig(
    **TINY.model_dump(exclude={"preset"}),
    seeds=2,
    trials=1,
    max_epochs=1,
    head_epochs=1,
    bootstrap_samples=100,
    device="cpu",
    batch_size=32,
)


# Who is compared.


def names(config, views=BOTH, tasks=ALL_TASKS, skipped=None):
    found = lineup.line_up(config, views, tasks, skipped or {})
    return list(dict.fromkeys(item["model"] for item in found.items)), found.left_out


def test_everybody_is_compared_on_both_views_and_all_tasks_but_recbole_that_did_not_run():
    there, left_out = names(CompareConfig())
    assert there == [*NETWORKS, *RIVALS]
    assert left_out == dict.fromkeys(RECBOLE, "recbole_scores names no folder; run RecBole on the dataset first")


def test_all_models_of_a_seed_come_before_the_next_seed():
    found = lineup.line_up(CompareConfig(models=("bigram", "mfn"), seeds=2, seed=7), BOTH, ALL_TASKS, {})
    assert [(item["model"], item["seed"]) for item in found.items] == [("mfn", 7), ("bigram", 7), ("mfn", 8), ("bigram", 8)]


def test_on_one_view_a_network_that_would_equal_another_is_left_out_with_the_reason():
    there, left_out = names(CompareConfig(models=tuple(NETWORKS)), views=ONE)
    assert there == ["mfn", "paper", "no_gate"]
    assert left_out == {
        "macro_only": "there is no macro view",
        "micro_only": "the same network as mfn: micro is the only view",
        "concatenation": "micro is the only view: there is nothing to concatenate",
        "no_alignment": "micro is the only view: there is nothing to align",
        "no_mutual_information": "micro is the only view: the views cannot inform of one another",
        "shuffled_macro": "micro is the only view: there is no other view that could gain from it",
    }


def test_a_part_that_the_form_takes_away_is_not_taken_away_twice():
    _, left_out = names(CompareConfig(models=("mfn", "no_mutual_information"), mutual_information_weight=0))
    assert left_out == {"no_mutual_information": "the same network as mfn: the form sets what it changes"}


def test_a_rival_of_tasks_that_the_dataset_leaves_out_is_left_out_with_their_reasons():
    skipped = {"activity": "too short", "attribute": "no users table"}
    there, left_out = names(CompareConfig(models=("bigram", "logistic")), tasks=("recommendation",), skipped=skipped)
    assert (there, left_out) == (["bigram"], {"logistic": "activity: too short; attribute: no users table"})


def test_the_form_names_every_model():
    described = str(CompareConfig.model_fields["models"].description)
    assert set(lineup.MODELS) <= set(re.findall(r"\w+", described))


def test_a_misspelt_model_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ConfigError, match="unknown model 'bigrams', did you mean 'bigram'"):
        lineup.check(CompareConfig(models=("bigrams",)))
    with pytest.raises(ConfigError, match=r"unknown model 'x'\. Known are mfn, paper"):
        lineup.check(CompareConfig(models=("x",)))


def test_the_form_may_not_set_what_the_networks_differ_in():
    with pytest.raises(ConfigError, match="gate=False: the compared networks differ in gate"):
        lineup.check(CompareConfig(gate=False))


def test_a_form_of_which_a_chosen_network_cannot_be_built_is_refused_before_any_work():
    with pytest.raises(
        ConfigError,
        match=r"paper: num_heads=8 does not divide width=200 .* The width of paper is the source's, whatever the form says: change "
        "num_heads, or leave paper out of models",
    ):
        lineup.check(CompareConfig(num_heads=8))
    with pytest.raises(ConfigError, match=r"mfn: num_heads=3 does not divide width=128 into heads of an even width; change either\.$"):
        lineup.check(CompareConfig(num_heads=3, models=("mfn",)))


def test_a_network_that_is_not_chosen_may_be_one_that_cannot_be_built():
    lineup.check(CompareConfig(num_heads=8, models=("mfn", "bigram")))


def test_a_network_of_the_form_that_cannot_be_built_stops_no_comparison_of_others(registry):
    with pytest.raises(InsufficientDataError):  # not ConfigError: the store is empty, and that is what is missing
        compare.plan(registry, CompareConfig(num_heads=3, models=("bigram",)))


def test_a_network_is_that_of_the_form_with_its_own_change_and_seed():
    plain, without = (train_config(SMALL, name, 3) for name in ("mfn", "no_alignment"))
    assert (plain.width, plain.seed, plain.max_epochs, plain.alignment) == (8, 3, 1, True)
    assert without == plain.model_copy(update={"alignment": False})


def test_the_paper_network_has_the_width_of_the_source_whatever_the_form_says():
    assert (train_config(SMALL, "paper", 0).preset, train_config(SMALL, "paper", 0).encoder_width) == ("paper", 200)


# Figures. Users a to d; a and b are active.


def activity(*scores, users="abcd", labels=(1, 1, 0, 0)):
    return pa.table({"user_id": list(users), "label": pa.array(labels, pa.int8()), "score": pa.array(scores, pa.float32())})


def ranked(*ranks, users=None, popular=None):
    users = users or [f"u{n:03d}" for n in range(len(ranks))]
    popular = popular or [5.0] * len(ranks)
    return pa.table({"user_id": users, "rank": pa.array(ranks, pa.float32()), "baseline_rank": pa.array(popular, pa.float32())})


PERFECT = activity(0.9, 0.8, 0.2, 0.1)
ONE_PAIR_WRONG = activity(0.9, 0.3, 0.4, 0.1)
CONSTANT = activity(0.5, 0.5, 0.5, 0.5)


def row(rows, model, metric, label=None):
    (found,) = [each for each in rows if (each.model, each.metric) == (model, metric) and label in (None, each.label)]
    return found


def table(task, scores, reference="mfn", samples=200):
    return rows_of(task, scores, dict.fromkeys(scores, 1.5), reference=reference, samples=samples)


@pytest.fixture(scope="module")
def two_seeds():
    return table("activity", {"mfn": {0: PERFECT, 1: ONE_PAIR_WRONG}, "flat": {0: CONSTANT, 1: CONSTANT}})


def test_the_mean_is_over_seeds_and_its_interval_that_of_student(two_seeds):
    auc = row(two_seeds, "mfn", "auc")
    half = 12.706 * 0.125  # t of one degree of freedom times the standard error of 1 and 0.75
    assert (auc.mean, auc.by_seed, auc.seeds, auc.n, auc.seconds) == (0.875, {"0": 1.0, "1": 0.75}, 2, 4, 1.5)
    assert (auc.low, auc.high) == pytest.approx((0.875 - half, 0.875 + half), rel=1e-4)


def test_the_difference_is_ours_minus_the_models_and_its_test_is_paired_by_seed(two_seeds):
    auc = row(two_seeds, "flat", "auc")
    assert auc.difference == 0.375
    assert auc.p == pytest.approx(1 - 2 / math.pi * math.atan(3))  # t = 3 with one degree of freedom


def test_a_model_without_chance_has_no_spread_over_seeds(two_seeds):
    auc = row(two_seeds, "flat", "auc")
    assert (auc.mean, auc.low, auc.high) == (0.5, 0.5, 0.5)


def test_we_are_not_compared_with_ourselves(two_seeds):
    auc = row(two_seeds, "mfn", "auc")
    assert (auc.difference, auc.difference_low, auc.difference_high, auc.p, auc.verdict) == (None,) * 5


def test_one_seed_has_no_interval_over_seeds_but_one_over_users():
    hits = row(table("recommendation", {"mfn": {0: ranked(*[0] * 50, *[20] * 50)}}), "mfn", "hr@10")
    assert (hits.mean, hits.low, hits.high) == (0.5, None, None)
    assert (hits.users_low, hits.users_high) == pytest.approx((0.4, 0.6), abs=0.04)  # 1.96 * sqrt(0.25 / 100)


def test_the_bootstrap_draws_the_same_users_for_both_models():
    better, worse = ranked(*[0] * 50, *[20] * 50), ranked(*[0] * 40, *[20] * 60)
    hits = row(table("recommendation", {"mfn": {0: better}, "rival": {0: worse}}), "rival", "hr@10")
    assert hits.difference == pytest.approx(0.1)
    # Only the ten users who differ vary: sd sqrt(0.1 * 0.9 / 100) = 0.03. Unpaired it would be 0.07, and no verdict.
    assert (hits.difference_low, hits.difference_high) == pytest.approx((0.05, 0.16), abs=0.015)
    assert hits.verdict == "better"


def test_the_bootstrap_is_of_the_mean_over_seeds():
    hit, miss = ranked(*[0] * 40), ranked(*[20] * 40)
    hits = row(table("recommendation", {"mfn": {0: hit}, "rival": {0: hit, 1: hit, 2: hit, 3: miss}}), "rival", "hr@10")
    assert (hits.mean, hits.difference, hits.difference_low, hits.difference_high) == (0.75, 0.25, 0.25, 0.25)


def test_the_verdict_is_ours_worse_where_the_whole_interval_is_below_zero():
    rows = table("recommendation", {"mfn": {0: ranked(*[20] * 40)}, "rival": {0: ranked(*[0] * 40)}})
    assert row(rows, "rival", "ndcg@10").verdict == "worse"


def test_the_same_scores_make_no_difference():
    rows = table("recommendation", {"mfn": {0: ranked(*range(40))}, "rival": {0: ranked(*range(40))}})
    found = row(rows, "rival", "ndcg@10")
    assert (found.difference_low, found.difference_high, found.verdict, found.p) == (0.0, 0.0, "no difference", None)


def test_less_of_a_calibration_error_is_better():
    users, labels = [f"u{n:03d}" for n in range(80)], [1, 0] * 40
    sure = activity(*[0.9, 0.1] * 40, users=users, labels=labels)
    unsure = activity(*[0.6, 0.4] * 40, users=users, labels=labels)
    rows = table("activity", {"mfn": {0: sure}, "rival": {0: unsure}})
    assert row(rows, "rival", "brier").difference < 0
    assert [row(rows, "rival", metric).verdict for metric in ("brier", "ece")] == ["better", "better"]


def test_users_may_stand_in_any_order():
    rows = table("activity", {"mfn": {0: PERFECT}, "rival": {0: PERFECT.take([3, 1, 0, 2])}})
    assert row(rows, "rival", "auc").difference_high == 0.0


def test_other_users_are_refused():
    with pytest.raises(ArtifactError, match="rival of seed 0 was asked about 4 users, mfn about 4, 3 of them the same"):
        table("activity", {"mfn": {0: PERFECT}, "rival": {0: activity(0.9, 0.8, 0.2, 0.1, users="abcx")}})


def test_the_same_users_with_other_labels_are_refused():
    with pytest.raises(ArtifactError, match="rival of seed 0 has other values of label than mfn"):
        table("activity", {"mfn": {0: PERFECT}, "rival": {0: activity(0.9, 0.8, 0.2, 0.1, labels=(0, 1, 0, 1))}})


def test_the_same_users_with_other_targets_are_refused():
    with pytest.raises(ArtifactError, match="other values of baseline_rank"):
        table("recommendation", {"mfn": {0: ranked(1, 2)}, "rival": {0: ranked(1, 2, popular=[5.0, 6.0])}})


def test_a_figure_that_users_of_one_class_cannot_give_is_none_and_never_nan():
    rows = table("activity", {"mfn": {0: activity(0.9, 0.8, 0.2, 0.1, labels=(1, 1, 1, 1))}})
    found = row(rows, "mfn", "auc")
    assert (found.mean, found.low, found.users_low, found.verdict) == (None, None, None, None)
    json.dumps([each.to_json() for each in rows], allow_nan=False)


def test_a_label_that_a_model_leaves_out_has_no_row_of_that_model():
    def attributes(*labels):
        columns = {"user_id": list("ab"), "label": pa.array([0, 1], pa.int32()), "probabilities": [[0.9, 0.1], [0.2, 0.8]]}
        return pa.concat_tables([pa.table({**columns, "attribute": [name] * 2}) for name in labels])

    rows = table("attribute", {"mfn": {0: attributes("age", "gender")}, "rival": {0: attributes("gender")}})
    assert {(each.label, each.model) for each in rows} == {("age", "mfn"), ("gender", "mfn"), ("gender", "rival")}


def test_without_ours_figures_stand_alone():
    found = row(table("activity", {"rival": {0: PERFECT}}), "rival", "auc")
    assert (found.mean, found.difference, found.verdict) == (1.0, None, None)


def test_the_permutation_test_tells_a_gain_that_vanishes_from_one_that_remains():
    good, bad = ranked(*[0] * 40), ranked(*[20] * 40)

    def verdict(network, shuffled, one_view):
        scores = {"mfn": {0: network}, "shuffled_macro": {0: shuffled}, "micro_only": {0: one_view}}
        ours = [row(table("recommendation", scores, reference=name), "micro_only", "hr@10") for name in ("mfn", "shuffled_macro")]
        return statistics.permutation_rows(ours[:1], ours[1:])[0]["verdict"]

    assert (verdict(good, bad, bad), verdict(good, good, bad), verdict(bad, bad, bad)) == ("vanishes", "remains", "no gain")


# What is computed once and never again.


@pytest.fixture(scope="module")
def inputs(shared_registry):
    """Manifest of the dataset of a deployment with both views."""
    data = patterned_dataset(120)
    uri = storage.join(shared_registry.store, "datasets", "d" * 16)
    folder = store_dataset(data, storage.local_folder(uri, shared_registry.scratch))
    facts = {"tasks": list(data.tasks), "skipped": data.skipped, "cut_time": "2026-06-01T00:00:00+00:00"}
    made = Manifest(kind="dataset", uri=uri, digest="d" * 64, inputs={"curated/app_logs/dt=2026-05-01": "a" * 64}, facts=facts)
    manifest.write(made, str(folder))
    return made.model_dump(mode="json")


@pytest.fixture
def nothing_is_computed(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("it was measured already")

    monkeypatch.setattr(measuring, "_network", refuse)
    monkeypatch.setattr(measuring, "_rival", refuse)


def item(model, seed=0):
    return {"model": model, "seed": seed}


@pytest.fixture(scope="module")
def network(shared_registry, inputs):
    return compare.measure(shared_registry, SMALL, inputs, item("mfn"))


@pytest.fixture(scope="module")
def rival(shared_registry, inputs):
    return compare.measure(shared_registry, SMALL, inputs, item("logistic"))


def test_a_network_is_trained_as_the_product_trains_and_scored_by_the_predictor_that_serves(shared_registry, inputs, network):
    trained = Path(shared_registry.store) / "training" / network["digest"][:16]
    said = score(
        Predictor.load(trained / "bundle", "cpu"),
        Dataset.open(Path(inputs["uri"])),
        "activity",
        split="test",
        mask_seen=True,
        batch_size=512,
    )
    assert pq.read_table(Path(network["uri"]) / "activity.parquet").equals(said)


def test_a_measured_network_tells_figures_validation_tuning_settings_and_seconds(network):
    told = json.loads((Path(network["uri"]) / "result.json").read_text())
    assert list(told["figures"]) == sorted(ALL_TASKS)
    assert told["figures"]["recommendation"]["recommendation"].keys() == {"hr@5", "hr@10", "ndcg@5", "ndcg@10"}
    assert told["validation"].keys() == {"activity_auc", "attribute_auc", "attribute_colour_auc", "hr@10", "ndcg@10"}
    assert told["tuning"] == {"trials": 0, "why": "not tuned: one setting everywhere"}
    assert (told["settings"]["width"], told["settings"]["seed"]) == (8, 0)
    assert told["seconds"] > 0


def test_a_measured_rival_tells_what_tuning_chose(rival):
    told = json.loads((Path(rival["uri"]) / "result.json").read_text())
    assert told["tuning"].keys() == {"activity", "colour"}
    assert told["tuning"]["activity"]["trials"] == 1
    assert told["validation"]["activity validation_auc"] == told["tuning"]["activity"]["validation_auc"]
    assert sorted(told["figures"]) == ["activity", "attribute"]


def test_a_finished_model_is_found_again(shared_registry, inputs, network, rival, nothing_is_computed):
    assert compare.measure(shared_registry, SMALL, inputs, item("mfn")) == network
    assert compare.measure(shared_registry, SMALL, inputs, item("logistic")) == rival


def test_more_seeds_and_other_intervals_leave_what_is_measured(shared_registry, inputs, network, nothing_is_computed):
    wider = SMALL.model_copy(update={"seeds": 9, "bootstrap_samples": 500, "models": ("mfn",)})
    assert compare.measure(shared_registry, wider, inputs, item("mfn")) == network


def test_more_trials_measure_the_rivals_anew_and_not_the_networks(shared_registry, inputs, network, nothing_is_computed):
    more = SMALL.model_copy(update={"trials": 2})
    assert compare.measure(shared_registry, more, inputs, item("mfn")) == network
    with pytest.raises(pytest.fail.Exception):
        compare.measure(shared_registry, more, inputs, item("logistic"))


def test_a_change_of_the_networks_code_measures_the_networks_anew_and_not_the_rivals(
    shared_registry, inputs, network, rival, nothing_is_computed, monkeypatch
):
    monkeypatch.setattr(manifest, "code_digest", lambda: "c" * 64)
    assert compare.measure(shared_registry, SMALL, inputs, item("logistic")) == rival
    with pytest.raises(pytest.fail.Exception):
        compare.measure(shared_registry, SMALL, inputs, item("mfn"))


def test_a_broken_off_model_leaves_nothing_that_could_be_taken_for_finished(shared_registry, inputs, monkeypatch):
    monkeypatch.setattr(measuring.pq, "write_table", lambda *_: pytest.fail("disk full"))
    with pytest.raises(pytest.fail.Exception):
        compare.measure(shared_registry, SMALL, inputs, item("popularity"))
    monkeypatch.undo()
    assert compare.measure(shared_registry, SMALL, inputs, item("popularity"))["rows"]["recommendation"] > 0


def test_the_permutation_test_trains_and_scores_on_the_app_histories_of_others(shared_registry, inputs, network):
    measured = compare.measure(shared_registry, SMALL, inputs, item("shuffled_macro"))
    job = json.loads((Path(shared_registry.store) / "training" / measured["digest"][:16] / "job.json").read_text())
    shuffled, original = Dataset.open(Path(job["dataset"])), Dataset.open(Path(inputs["uri"]))
    assert (shuffled.histories.micro.ids == original.histories.micro.ids).all()
    assert (shuffled.histories.macro.lengths != original.histories.macro.lengths).any()
    scores, others = (pq.read_table(Path(each["uri"]) / "activity.parquet") for each in (measured, network))
    assert scores["user_id"].equals(others["user_id"])


@pytest.mark.parametrize(("model", "taken"), [("no_gate", True), ("no_mutual_information", True), ("micro_only", False), ("paper", False)])
def test_encoders_are_ours_where_only_the_labels_differ(shared_registry, inputs, network, model, taken, monkeypatch):
    given = []

    def note(*_, encoders):
        given.append(encoders)
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "train_managed", note)
    with pytest.raises(KeyboardInterrupt):
        compare.measure(shared_registry, SMALL, inputs, item(model))
    (encoders,) = given
    assert (encoders.digest if encoders else None) == (network["digest"] if taken else None)


def test_a_network_of_taken_encoders_is_measured_as_any_other(shared_registry, inputs, network):
    measured = compare.measure(shared_registry, SMALL, inputs, item("no_gate"))
    job = json.loads((Path(shared_registry.store) / "training" / measured["digest"][:16] / "job.json").read_text())
    assert Path(job["encoders"]).name == network["digest"][:16]
    # Next items are the encoders' work alone.
    assert measured["facts"]["figures"]["recommendation"] == network["facts"]["figures"]["recommendation"]


# RecBole.


@pytest.fixture
def recbole(tmp_path, inputs, shared_registry):
    """The folder in which two seeds of SASRec are finished, and one of GRU4Rec has no facts yet."""
    popular = compare.measure(shared_registry, SMALL, inputs, item("popularity"))
    scores = pq.read_table(Path(popular["uri"]) / "recommendation.parquet")
    best = scores.set_column(1, "rank", pa.array(np.zeros(len(scores), np.float32)))
    facts = {
        "settings": {"width": 64},
        "validation": {"ndcg@10": 0.5},
        "trials": [{}, {}],
        SECONDS: 12.5,
        "options": {"mask_seen": True, "epochs": 200},
    }
    for seed in (0, 1):
        pq.write_table(best, tmp_path / f"SASRec-{seed}.parquet")
        (tmp_path / f"SASRec-{seed}.json").write_text(json.dumps(facts))
    pq.write_table(best, tmp_path / "GRU4Rec-0.parquet")
    return tmp_path


def test_finished_runs_of_recbole_are_picked_up_seed_by_seed(recbole):
    config = CompareConfig(models=tuple(RECBOLE), recbole_scores=str(recbole), seeds=5)
    found = lineup.line_up(config, ONE, ALL_TASKS, {})
    assert list(found.items) == [item("sasrec", 0), item("sasrec", 1)]
    assert found.left_out["gru4rec"].endswith("holds no GRU4Rec-<seed>.parquet and .json of its seeds; run RecBole on the dataset first")


def test_the_ranks_of_recbole_are_measured_as_anybodys(shared_registry, inputs, recbole):
    config = SMALL.model_copy(update={"recbole_scores": str(recbole)})
    measured = compare.measure(shared_registry, config, inputs, item("sasrec"))
    told = json.loads((Path(measured["uri"]) / "result.json").read_text())
    assert told["figures"]["recommendation"]["recommendation"]["hr@10"] == 1.0
    assert told["tuning"] == {"trials": 2, "settings": {"width": 64}}
    assert told["seconds"] == 12.5


def test_ranks_of_recbole_under_other_rules_are_refused(shared_registry, inputs, recbole):
    config = SMALL.model_copy(update={"recbole_scores": str(recbole), "mask_seen": "off"})
    with pytest.raises(ArtifactError, match="was ranked with seen items left out, and mask_seen=off means the opposite"):
        compare.measure(shared_registry, config, inputs, item("sasrec"))


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (lambda scores: scores.slice(1), r"SASRec-0\.parquet have \d+ users, of whom 1 .* run RecBole on this dataset"),
        (lambda scores: scores.drop(["rank"]), r"SASRec-0\.parquet cannot be read .* run RecBole again"),
    ],
    ids=["of other users", "without ranks"],
)
def test_ranks_of_recbole_that_are_not_of_this_dataset_are_refused(shared_registry, inputs, recbole, damaged, said):
    path = recbole / "SASRec-0.parquet"
    pq.write_table(damaged(pq.read_table(path)), path)
    config = SMALL.model_copy(update={"recbole_scores": str(recbole)})
    with pytest.raises(ArtifactError, match=said):
        compare.measure(shared_registry, config, inputs, item("sasrec"))


# The report.

MODELS = ("mfn", "popularity", "bigram")


@pytest.fixture(scope="module")
def reported(shared_registry, inputs):
    config = SMALL.model_copy(update={"models": (*MODELS, "sasrec")})
    items = compare.line_up(shared_registry, config, inputs)
    measured = [compare.measure(shared_registry, config, inputs, each) for each in items]
    return config, measured, compare.report(shared_registry, config, inputs, measured, {"airflow.dag_id": "mfn_compare"})


def test_a_report_has_every_figure_of_every_model(reported):
    content = json.loads((Path(reported[2]["uri"]) / "comparison.json").read_text())
    assert {(each["model"], each["seeds"]) for each in content["rows"]} == {(name, 2) for name in MODELS}
    assert {each["label"] for each in content["rows"] if each["model"] == "mfn"} == {"activity", "colour", "recommendation"}
    assert {each["metric"] for each in content["rows"] if each["model"] == "bigram"} == {"hr@5", "hr@10", "ndcg@5", "ndcg@10"}
    assert content["left_out"] == {"sasrec": "recbole_scores names no folder; run RecBole on the dataset first"}
    assert content["tuning"]["bigram"]["1"]["tuning"]["recommendation"]["trials"] == 1


def test_a_report_tells_no_place_of_this_machine(shared_registry, reported):
    assert str(shared_registry.var) not in (Path(reported[2]["uri"]) / "comparison.json").read_text()


def test_the_table_has_a_line_for_each_model_and_main_figure(reported):
    lines = (Path(reported[2]["uri"]) / "comparison.md").read_text().splitlines()
    heads = [line for line in lines if line.startswith("## ")]
    assert [head.split(" (")[0] for head in heads] == [
        "## activity: auc",
        "## colour: auc",
        "## recommendation: hr@10",
        "## recommendation: ndcg@10",
    ]
    assert len([line for line in lines if line.startswith("| bigram |")]) == 2
    assert "- Left out: sasrec, because recbole_scores names no folder; run RecBole on the dataset first" in lines


def test_the_run_in_mlflow_has_the_files_and_the_main_figures(shared_registry, reported):
    client = MlflowClient(shared_registry.tracking)
    (run,) = [each for each in client.search_runs(["1"]) if each.data.tags["mlflow.source.name"] == "mfn_compare"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["airflow.dag_id"] == "mfn_compare"
    content = json.loads((Path(reported[2]["uri"]) / "comparison.json").read_text())
    assert run.data.metrics["recommendation/ndcg_at_10/bigram"] == content["figures"]["recommendation/ndcg@10/bigram"]
    files = {file.path for file in client.list_artifacts(run.info.run_id, "comparison")}
    assert {"comparison/comparison.json", "comparison/comparison.md", "comparison/comparison.png"} <= files
    assert reported[2]["facts"]["mlflow"].endswith(run.info.run_id)


def test_a_second_report_computes_nothing_and_doubles_nothing(shared_registry, inputs, reported, monkeypatch):
    monkeypatch.setattr(statistics, "rows_of", lambda *_, **__: pytest.fail("it was computed already"))
    config, measured, first = reported
    assert compare.report(shared_registry, config, inputs, measured, {}) == first
    assert len([each for each in MlflowClient(shared_registry.tracking).search_runs(["1"]) if "compare" in each.info.run_name]) == 1


def test_the_best_model_stands_first_in_a_panel():
    rows = table("activity", {"mfn": {0: ONE_PAIR_WRONG}, "flat": {0: CONSTANT}, "rival": {0: PERFECT}})
    assert [each.model for each in presentation.panels(rows)[("activity", "auc")]] == ["rival", "mfn", "flat"]
