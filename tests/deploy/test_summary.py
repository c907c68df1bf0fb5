"""summary.json and the table hold what the tasks returned, and nothing else."""

from deploy.local.in_process import Output
from deploy.local.summary import measurements, summary, table

ACTIVITY = {
    "facts": {
        "task": "activity",
        "n": 200,
        "metrics": {"auc": 0.75, "f1": None},
        "intervals": {"auc": [0.7, 0.8], "f1": None},
        "baseline": {"auc": 0.5, "f1": 0.0},
        "undefined": {"f1": "nobody is positive"},
    }
}
ATTRIBUTE = {
    "facts": {
        "task": "attribute",
        "n": {"gender": 190},
        "metrics": {"gender": {"auc": 0.625}},
        "intervals": {"gender": {"auc": [0.5, 0.75]}},
        "baseline": {"gender": {"auc": 0.5}},
        "undefined": {"gender": {}},
    }
}
DATASET = {
    "rows": {"users": 2000, "apps": 120},
    "facts": {"cut_time": "2026-06-15T00:00:00+00:00", "horizon_days": 14, "skipped": {"recommendation": "there are no item logs"}},
}
REGISTERED = {"name": "mfn", "version": 3, "aliases": ["candidate"], "run_id": "abc"}
OUTPUTS = {"train": Output("mfn_train", "manual__1", (), 61.04)}


def test_the_summary_has_the_promised_form() -> None:
    made = summary(measurements([ACTIVITY, ATTRIBUTE]), DATASET, REGISTERED, ["champion"], OUTPUTS)

    assert made == {
        "downstream": {
            "activity": {"auc": 0.75, "f1": None, "n": 200, "baseline": {"auc": 0.5, "f1": 0.0}},
            "attribute": {"gender": {"auc": 0.625, "n": 190, "baseline": {"auc": 0.5}}},
        },
        "skipped": {"recommendation": "there are no item logs"},
        "model": {"name": "mfn", "version": 3, "aliases": ["champion"]},
        "dataset": {"users": 2000, "apps": 120, "cut": "2026-06-15T00:00:00+00:00", "horizon": 14},
        "runs": {"mlflow": "abc", "airflow": {"mfn_train": "manual__1"}},
        "seconds": {"train": 61.0},
    }


def test_the_table_shows_each_figure_beside_its_baseline() -> None:
    assert table(measurements([ACTIVITY, ATTRIBUTE])).splitlines() == [
        "downstream task     n  figure      model  95 % interval   baseline",
        "------------------------------------------------------------------",
        "activity          200  auc         0.750  0.700 to 0.800     0.500",
        "                       f1      undefined                     0.000",
        "attribute gender  190  auc         0.625  0.500 to 0.750     0.500",
    ]
