"""Figures of a comparison of models, by hand."""

import json
import math

import pyarrow as pa
import pytest

from mfn_core.errors import ArtifactError
from tasks.comparison import presentation, statistics
from tasks.comparison.statistics import rows_of

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


# The permutation test.


def test_the_permutation_test_has_both_gains_over_one_view_and_the_difference_of_the_networks():
    hit, miss = 0, 20
    scores = {
        "mfn": {0: ranked(*[hit] * 40)},
        "shuffled_macro": {0: ranked(*[hit] * 20, *[miss] * 20)},
        "micro_only": {0: ranked(*[miss] * 40)},
    }
    ours, theirs = (table("recommendation", scores, reference=name) for name in ("mfn", "shuffled_macro"))
    asked = ((ours, "micro_only"), (theirs, "micro_only"), (ours, "shuffled_macro"))
    (found,) = statistics.permutation_rows(*([row(rows, model, "hr@10")] for rows, model in asked))
    assert (found["task"], found["label"], found["metric"]) == ("recommendation", "recommendation", "hr@10")
    assert [found[key][0] for key in ("gain", "shuffled_gain", "difference")] == [1.0, 0.5, 0.5]
    assert found["difference"] == [
        0.5,
        row(ours, "shuffled_macro", "hr@10").difference_low,
        row(ours, "shuffled_macro", "hr@10").difference_high,
    ]
    assert found["verdict"] == "told apart"


@pytest.mark.parametrize(
    ("gain", "shuffled_gain", "difference", "verdict"),
    [
        ((0.2, 0.1, 0.3), (0.0, -0.1, 0.1), (0.2, 0.1, 0.3), "vanishes"),
        # One gain is beyond zero and the other is not, yet the two do not differ beyond chance.
        ((0.3, 0.1, 0.5), (0.1, -0.1, 0.3), (0.2, -0.1, 0.5), "not told apart"),
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), "not told apart"),
        ((0.5, 0.4, 0.6), (0.2, 0.1, 0.3), (0.3, 0.2, 0.4), "told apart"),
        ((0.5, 0.4, 0.6), (-0.2, -0.3, -0.1), (0.7, 0.6, 0.8), "told apart"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), (-0.3, -0.4, -0.2), "told apart"),
        ((0.1, -0.1, 0.3), (-0.2, -0.3, -0.1), (0.3, 0.2, 0.4), "no gain"),
        ((0.2, 0.1, 0.3), (0.0, -0.1, 0.1), (0.2, None, None), None),
    ],
)
def test_a_gain_vanishes_only_where_it_differs_from_one_that_is_none(gain, shuffled_gain, difference, verdict):
    assert statistics.permutation_verdict("auc", gain, shuffled_gain, difference) == verdict


def test_a_gain_in_calibration_is_below_zero():
    gain, none = (-0.2, -0.3, -0.1), (0.0, -0.1, 0.1)
    assert statistics.permutation_verdict("brier", gain, none, gain) == "vanishes"


def test_the_best_model_stands_first_in_a_panel():
    rows = table("activity", {"mfn": {0: ONE_PAIR_WRONG}, "flat": {0: CONSTANT}, "rival": {0: PERFECT}})
    assert [each.model for each in presentation.panels(rows)[("activity", "auc")]] == ["rival", "mfn", "flat"]
