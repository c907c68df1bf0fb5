"""The page of comparisons says what the records say, whomever it favours."""

import pytest

from benchmarks.comparisons import PAGE, page, records

HEADS = (
    "| metric | the network | best other by the main metric | the network minus it | p over seeds "
    "| better than | no difference | worse than |"
)


def row(model, mean, difference=None, verdict=None, metric="auc", half=0.01, p=None) -> dict:
    between = {"users_low": mean - 0.1, "users_high": mean + 0.1}
    told = {"difference": difference, "difference_low": None, "difference_high": None, "verdict": verdict, "p": p}
    if difference is not None:
        told |= {"difference_low": difference - half, "difference_high": difference + half}
    return {"model": model, "task": "activity", "label": "activity", "metric": metric, "mean": mean, "seeds": 2} | between | told


def record(*rows, permutation=()) -> dict:
    return {"created_at": "2026-11-25T04:05:06+00:00", "permutation": list(permutation), "rows": list(rows)}


def lines(rows, under):
    """The lines of the table under a heading, without its head."""
    found = page({"toys": record(*rows)}).split(f"{under}\n")[1].split("\n#")[0].splitlines()
    return [line for line in found if line.startswith("| ")][2:]


def of_toys(*rows):
    return lines(rows, "[toys](../benchmarks/results/compare-toys.md)")


def lost(*rows):
    return lines(rows, "## Where another model is better")


ROWS = (
    row("mfn", 0.8),
    row("logistic", 0.7, 0.1, "better"),
    row("lightgbm_counts", 0.81, -0.01, "no difference", p=0.03),
    row("mfn", 0.5, metric="accuracy"),
)


def test_a_main_metric_stands_beside_the_best_of_the_others_both_its_tests_and_how_many_it_is_better_than():
    assert page({"toys": record(*ROWS)}).splitlines()[-7:] == [
        "### [toys](../benchmarks/results/compare-toys.md)",
        "",
        "2 seeds, 2026-11-25",
        "",
        HEADS,
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| activity auc | 0.8000 (0.7000 to 0.9000) | lightgbm_counts 0.8100 | -0.0100 (-0.0200 to 0.0000) | 0.0300 | 1 | 1 | 0 |",
    ]


def test_a_figure_without_a_rival_stands_alone():
    assert of_toys(row("mfn", 0.8)) == ["| activity auc | 0.8000 (0.7000 to 0.9000) |  |  |  | 0 | 0 | 0 |"]


def test_calibration_is_that_of_the_best_by_the_main_metric_and_of_no_other():
    calibration = (
        row("mfn", 0.2, metric="brier"),
        row("logistic", 0.1, 0.1, "worse", metric="brier", p=0.00001),
        row("lightgbm_counts", 0.3, -0.1, "better", metric="brier", p=0.5),
        row("lightgbm_items", 0.4, -0.2, "better", metric="brier"),
    )
    assert of_toys(*ROWS, *calibration)[1:] == [
        "| activity brier | 0.2000 (0.1000 to 0.3000) | lightgbm_counts 0.3000 | -0.1000 (-0.1100 to -0.0900) | 0.5000 | 2 | 0 | 1 |"
    ]


def test_a_model_of_the_same_scores_is_not_the_best_other_one_but_counts():
    same = row("concatenation", 0.8, 0.0, "no difference", half=0.0)
    assert of_toys(row("mfn", 0.8), same, row("logistic", 0.7, 0.1, "better")) == [
        "| activity auc | 0.8000 (0.7000 to 0.9000) | logistic 0.7000 | +0.1000 (0.0900 to 0.1100) |  | 1 | 1 | 0 |"
    ]
    # Level in the mean and not in the interval: other scores, and the best.
    assert "| concatenation 0.8000 |" in of_toys(row("mfn", 0.8), same | {"difference_high": 0.1}, row("logistic", 0.7, 0.1, "better"))[0]


def test_every_metric_on_which_another_model_is_better_is_listed():
    recall, brier = row("logistic", 0.7, -0.1, "worse", metric="recall"), row("logistic", 0.1, 0.1, "worse", metric="brier", p=0.00001)
    assert lost(*ROWS, recall, brier) == [
        "| toys | activity | activity | recall | logistic | -0.1000 | -0.1100 to -0.0900 |  |",
        "| toys | activity | activity | brier | logistic | +0.1000 | 0.0900 to 0.1100 | < 0.0001 |",
    ]


def test_where_no_other_model_is_better_the_page_says_none():
    assert lost(*ROWS) == ["| toys | none |  |  |  |  |  |  |"]


def test_figures_are_counted_by_whom_they_favour():
    undefined = row("logistic", 0.7, metric="precision")
    told = page({"toys": record(*ROWS, row("logistic", 0.7, -0.1, "worse", metric="recall"), undefined)})
    assert "before the network: 1 of the 4\nfigures" in told
    assert "In 1 the network is better, in 1 there is no difference; undefined are 1." in told


# A record of before, in whose eyes the gain of .1 vanished because that of .05 reaches zero.
TEST = {"task": "activity", "label": "activity", "metric": "auc", "gain": [0.1, 0.01, 0.19], "shuffled_gain": [0.05, -0.04, 0.14]}


@pytest.mark.parametrize(
    ("difference", "told"),
    [(0.05, "+0.0500 (-0.0100 to 0.1100) | 0.4000 | not told apart"), (0.07, "+0.0700 (0.0100 to 0.1300) | 0.4000 | vanishes")],
)
def test_the_permutation_test_is_judged_by_real_minus_shuffled_whatever_the_record_said(difference, told):
    shuffled = row("shuffled_macro", 0.75, difference, half=0.06, p=0.4)
    gains = "+0.1000 (0.0100 to 0.1900) | +0.0500 (-0.0400 to 0.1400)"
    found = page({"toys": record(*ROWS, shuffled, permutation=[TEST | {"verdict": "vanishes"}])}).splitlines()
    assert f"| toys | activity auc | {gains} | {told} |" in found


def test_the_page_in_the_repository_is_that_of_its_records():
    assert PAGE.read_text(encoding="utf-8") == page(records()), "run make bench-report"
