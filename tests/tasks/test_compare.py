"""The comparison of models: what is computed once and never again, and how it is told."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from mfn_core.data.dataset import Dataset
from mfn_core.errors import ArtifactError, InsufficientDataError
from mfn_core.evaluation.evaluator import score
from mfn_core.inference.predictor import Predictor
from tasks import compare, manifest, storage
from tasks.comparison import lineup, measuring, statistics
from tasks.comparison.lineup import RECBOLE
from tasks.comparison.recbole import SECONDS
from tasks.dag_configs import CompareConfig
from tasks.manifest import Manifest
from tests.factories import patterned_dataset, store_dataset
from tests.tasks.comparisons import SMALL


def test_a_network_of_the_form_that_cannot_be_built_stops_no_comparison_of_others(registry):
    with pytest.raises(InsufficientDataError):  # not ConfigError: the store is empty, and that is what is missing
        compare.plan(registry, CompareConfig(num_heads=3, models=("bigram",)))


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
    assert list(told["figures"]) == ["activity", "attribute", "recommendation"]
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
    found = lineup.line_up(config, ("micro",), ("activity", "attribute", "recommendation"), {})
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
    assert "- Rivals: settings tried, the best on validation kept: popularity 0, bigram 1. With fewer than two nothing was chosen." in lines


def test_how_many_settings_were_tried_is_told_as_it_was():
    results = [
        {"model": "mfn", "tuning": {"trials": 0, "why": "not tuned"}},
        {"model": "logistic", "tuning": {"activity": {"trials": 8}, "trials": {"trials": 8}}},  # a label may have any name
        {"model": "sasrec", "tuning": {"trials": 4, "settings": {}}},
        {"model": "sasrec", "tuning": {"trials": 1, "settings": {}}},
        {"model": "lightgbm_items", "tuning": {}},  # left out of every label
    ]
    assert measuring.settings_tried(results) == {"logistic": [8], "sasrec": [1, 4]}


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
