"""Does the gain of the macro view vanish once it is another user's?"""

import json

import numpy as np
import pyarrow as pa
import pytest

from mfn_core.evaluation.permutation import permutation_test


def ranking(rank, users=40):
    return pa.table({"user_id": [f"u{number}" for number in range(users)], "rank": np.full(users, rank, np.float32)})


def attributes(*names, users=20, right=True):
    rows = [(f"u{n}", name, n % 2, [0.9, 0.1] if (n % 2 == 0) == right else [0.1, 0.9]) for name in names for n in range(users)]
    user_ids, attribute, label, probabilities = zip(*rows, strict=True)
    return pa.table(
        {"user_id": user_ids, "attribute": attribute, "label": label, "probabilities": pa.array(probabilities, pa.list_(pa.float32()))}
    )


@pytest.mark.parametrize(
    ("micro_only", "both_views", "shuffled", "verdict"),
    [
        (5, 0, 5, "vanishes"),
        (5, 0, 9, "vanishes"),
        (5, 0, 3, "remains"),
        (5, 5, 5, "no gain"),
        (5, 7, 0, "no gain"),
    ],
    ids=["shuffled is as good", "shuffled is worse", "shuffled still gains", "nothing gained", "something lost"],
)
def test_the_verdict(micro_only, both_views, shuffled, verdict):
    (result,) = permutation_test("recommendation", ranking(micro_only), ranking(both_views), ranking(shuffled), samples=100)
    assert result.verdict == verdict


def test_gains_are_over_the_item_log_alone():
    # ndcg@10: rank 0 gives 1, rank 2 gives 1/2, rank 6 gives 1/3
    (result,) = permutation_test("recommendation", ranking(2), ranking(0), ranking(6), samples=100)
    assert (result.gain.champion, result.gain.candidate, result.gain.difference) == (0.5, 1.0, 0.5)
    assert (result.shuffled_gain.champion, result.shuffled_gain.candidate) == pytest.approx((1 / 2, 1 / 3))
    assert result.gain.n == result.shuffled_gain.n == 40


def test_attributes_are_tested_one_by_one_where_all_three_models_know_them():
    wrong = attributes("age", "gender", "city", right=False)
    results = permutation_test("attribute", wrong, attributes("gender", "age"), attributes("age", right=False), samples=100)
    assert [(each.gain.label, each.verdict) for each in results] == [("age", "vanishes")]


def test_one_class_only_cannot_be_tested():
    scores = pa.table({"user_id": ["a", "b"], "label": [1, 1], "score": [0.2, 0.9]})
    (result,) = permutation_test("activity", scores, scores, scores, samples=100)
    assert result.verdict == "undefined"


def test_a_result_is_json_without_nan():
    (result,) = permutation_test("recommendation", ranking(5), ranking(0), ranking(5), samples=100)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (content["verdict"], content["gain"]["difference"] > 0, content["shuffled_gain"]["difference"]) == ("vanishes", True, 0)
