"""The task evaluate: a finished evaluation is found again, and its evidence is in the MLflow run once."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mfn_core.errors import ConfigError
from tasks import storage
from tasks.evaluate import evaluate, labelled_facts
from tasks.tracking.runs import require_run
from tests.factories import app_log, dataset_of, item_log
from tests.tasks.registry import CONFIG, store_inputs, store_training

PLOTS = {
    "activity": ["activity_calibration.png", "activity_figures.png", "activity_roc_pr.png"],
    "attribute": ["attribute_colour_figures.png", "attribute_colour_roc_pr.png"],
    "recommendation": ["recommendation_ranking.png"],
}
PORTRAIT = ["alignment_atlas.png", "embedding_map.png", "learning_curves.png"]


@pytest.fixture
def inputs(registry):
    dataset = store_inputs(registry)
    return dataset, store_training(registry, dataset)


@pytest.fixture
def client(registry):
    from mlflow import MlflowClient

    return MlflowClient(registry.tracking)


@pytest.mark.parametrize(
    ("task", "figures"),
    [
        ("activity", ["auc", "accuracy", "precision", "recall", "f1", "ece", "brier"]),
        ("attribute", ["auc", "accuracy", "precision", "recall", "f1", "ece", "brier"]),
        ("recommendation", ["hr@5", "hr@10", "ndcg@5", "ndcg@10"]),
    ],
)
def test_an_evaluation_states_figures_intervals_baseline_and_n(registry, inputs, task, figures):
    made = evaluate(registry, CONFIG, *inputs, task)
    json.dumps(made, allow_nan=False)
    for facts in labelled_facts(made["facts"]).values():
        assert list(facts["metrics"]) == list(facts["intervals"]) == list(facts["baseline"]) == figures
        assert facts["n"] > 0


def test_scores_are_kept_one_row_per_user(registry, inputs):
    made = evaluate(registry, CONFIG, *inputs, "activity")
    scores = pq.read_table(storage.join(made["uri"], "scores.parquet"))
    assert scores.column_names == ["user_id", "label", "score"]
    assert len(scores) == made["rows"]["users"] == made["facts"]["n"]


def test_a_second_run_finds_the_first_and_doubles_nothing(registry, inputs, client):
    first = evaluate(registry, CONFIG, *inputs, "activity")
    assert evaluate(registry, CONFIG, *inputs, "activity") == first
    run_id = require_run(registry, "f" * 64)
    assert len(client.get_metric_history(run_id, "test/activity/auc")) == 1


def test_figures_and_baselines_are_in_the_run(registry, inputs, client):
    made = evaluate(registry, CONFIG, *inputs, "attribute")
    logged = client.get_run(require_run(registry, "f" * 64)).data.metrics
    assert logged["test/attribute/colour/accuracy"] == made["facts"]["metrics"]["colour"]["accuracy"]
    assert logged["baseline/attribute/colour/accuracy"] == made["facts"]["baseline"]["colour"]["accuracy"]
    assert logged["test/attribute/colour/ece"] == made["facts"]["metrics"]["colour"]["ece"]
    assert logged["test/attribute/colour/brier"] == made["facts"]["metrics"]["colour"]["brier"]


def test_plots_are_in_the_run_and_the_first_task_draws_the_models_portrait(registry, inputs, client):
    for task in PLOTS:
        evaluate(registry, CONFIG, *inputs, task)
    run_id = require_run(registry, "f" * 64)
    logged = [file.path.removeprefix("plots/") for file in client.list_artifacts(run_id, "plots")]
    assert sorted(logged) == sorted([*PORTRAIT, *(name for names in PLOTS.values() for name in names)])


def test_slices_are_in_the_run_as_rows_and_as_a_table(registry, inputs, client, tmp_path):
    for task in PLOTS:
        evaluate(registry, CONFIG, *inputs, task)
    run_id = require_run(registry, "f" * 64)
    logged = Path(client.download_artifacts(run_id, "slices", str(tmp_path)))
    assert sorted(file.name for file in logged.iterdir()) == sorted(f"{task}.{kind}" for task in PLOTS for kind in ("json", "md"))
    for task in PLOTS:
        rows = json.loads((logged / f"{task}.json").read_text())["rows"]
        assert list(rows[0]) == ["task", "label", "slice", "n", "metric", "value", "low", "high"]
        assert {row["task"] for row in rows} == {task}
        assert "| all |" in (logged / f"{task}.md").read_text()


def test_the_slice_of_all_users_repeats_the_evaluation(registry, inputs):
    made = evaluate(registry, CONFIG, *inputs, "recommendation")
    rows = json.loads((storage.local_folder(made["uri"], registry.scratch) / "slices" / "recommendation.json").read_text())["rows"]
    everybody = {row["metric"]: row["value"] for row in rows if row["slice"] == "all"}
    assert everybody == made["facts"]["metrics"]


def test_one_view_only_is_drawn_without_an_atlas(registry, client):
    items = [(f"u{n}", f"i{(n + step) % 5}", "news", f"2026-05-0{step + 1}T09:00:00") for n in range(20) for step in range(4)]
    dataset = store_inputs(registry, dataset_of(app_log([]), item_log(items), users=[f"u{n}" for n in range(20)]))
    evaluate(registry, CONFIG, dataset, store_training(registry, dataset), "recommendation")
    logged = [file.path for file in client.list_artifacts(require_run(registry, "f" * 64), "plots")]
    assert logged == ["plots/embedding_map.png", "plots/learning_curves.png", "plots/recommendation_ranking.png"]


def test_a_task_that_the_dataset_leaves_out_is_refused(registry):
    users = [f"u{n}" for n in range(20)]
    items = [(user, f"i{step}", "news", f"2026-05-0{step + 1}T09:00:00") for user in users for step in range(4)]
    dataset = store_inputs(registry, dataset_of(app_log([]), item_log(items), users=users))
    with pytest.raises(ConfigError, match="activity cannot be evaluated"):
        evaluate(registry, CONFIG, dataset, store_training(registry, dataset), "activity")
