"""The page of comparisons says what the records say of the main metrics."""

from benchmarks.comparisons import PAGE, page, records


def row(model, mean, difference=None, verdict=None, metric="auc") -> dict:
    between = {"users_low": mean - 0.1, "users_high": mean + 0.1}
    told = {"difference": difference, "difference_low": None, "difference_high": None, "verdict": verdict}
    if difference is not None:
        told |= {"difference_low": difference - 0.01, "difference_high": difference + 0.01}
    return {"model": model, "task": "activity", "label": "activity", "metric": metric, "mean": mean, "seeds": 2} | between | told


RECORD = {
    "created_at": "2026-11-25T04:05:06+00:00",
    "rows": [
        row("mfn", 0.8),
        row("logistic", 0.7, 0.1, "better"),
        row("lightgbm_counts", 0.81, -0.01, "no difference"),
        row("mfn", 0.5, metric="accuracy"),
    ],
}


def test_a_main_metric_stands_beside_the_best_of_the_others_and_how_many_it_is_better_than():
    assert page({"toys": RECORD}).splitlines()[-7:] == [
        "## [toys](../benchmarks/results/compare-toys.md)",
        "",
        "2 seeds, 2026-11-25",
        "",
        "| metric | the network | best other model | the network minus it | better than | no difference | worse than |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| activity auc | 0.8000 (0.7000 to 0.9000) | lightgbm_counts 0.8100 | -0.0100 (-0.0200 to 0.0000) | 1 | 1 | 0 |",
    ]


def test_a_figure_without_a_rival_stands_alone():
    assert page({"toys": RECORD | {"rows": [row("mfn", 0.8)]}}).endswith("| activity auc | 0.8000 (0.7000 to 0.9000) |  |  | 0 | 0 | 0 |\n")


def test_the_page_in_the_repository_is_that_of_its_records():
    assert PAGE.read_text(encoding="utf-8") == page(records()), "run make bench-report"
