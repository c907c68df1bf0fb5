"""Is the candidate worse than the champion? Paired on the same users."""

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from mfn_core.evaluation.comparison import compare


def ranking(ranks, users=None):
    users = [f"u{number}" for number in range(len(ranks))] if users is None else users
    return pa.table({"user_id": users, "rank": np.array(ranks, np.float32)})


def verdict(champion, candidate):
    (compared,) = compare("recommendation", ranking(champion), ranking(candidate), samples=200)
    return compared.verdict


def test_a_candidate_that_ranks_every_target_lower_is_worse():
    assert verdict([0] * 40, [9] * 40) == "worse"


def test_a_candidate_that_ranks_every_target_higher_is_better():
    assert verdict([9] * 40, [0] * 40) == "better"


def test_the_same_model_makes_no_difference():
    assert verdict([0, 3, 20, 7], [0, 3, 20, 7]) == "no difference"


def test_a_difference_within_the_noise_is_none():
    assert verdict([0, 9] * 20, [9, 0] * 19 + [9, 1]) == "no difference"


def test_only_common_users_are_compared_in_whatever_order():
    champion = ranking([0, 5, 99], ["b", "a", "only-champion"])
    candidate = ranking([5, 0, 99], ["a", "b", "only-candidate"])
    (compared,) = compare("recommendation", champion, candidate, samples=100)
    assert (compared.n, compared.difference) == (2, 0.0)


def test_users_whose_ids_differ_in_a_trailing_nul_are_two():
    (compared,) = compare("recommendation", ranking([0, 9], ["a", "a\0"]), ranking([9, 0], ["a\0", "a"]), samples=100)
    assert (compared.n, compared.difference) == (2, 0.0)


def test_one_long_user_id_does_not_give_every_other_its_length():
    ranks = [0] * 1000
    table = ranking(ranks, ["x" * 20_000, *(f"u{number}" for number in range(999))])
    tracemalloc.start()
    compare("recommendation", table, table, samples=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # 1,000 ids of 20,000 characters of four bytes are 80 MB


def test_users_are_drawn_by_their_ids_whatever_the_order_of_the_rows():
    ranks, users = np.arange(60) % 13, [f"{'é' if number % 2 else 'z'}{number}" for number in range(60)]
    shuffled = np.random.default_rng(5).permutation(60)
    (straight,) = compare("recommendation", ranking(ranks, users), ranking(ranks[::-1], users), samples=100)
    mixed = ranking(ranks[::-1], users).take(shuffled)
    (again,) = compare("recommendation", ranking(ranks, users).take(shuffled[::-1]), mixed, samples=100)
    assert again == straight


def test_pairing_finds_a_small_but_steady_loss_that_wide_intervals_would_hide():
    ranks = np.arange(40) % 10
    (compared,) = compare("recommendation", ranking(ranks), ranking(ranks + 0.5), samples=200)
    assert compared.verdict == "worse"
    assert compared.difference == pytest.approx(compared.candidate - compared.champion)


def test_of_many_labels_that_are_judged_together_each_must_be_surer():
    champion, candidate = [0] * 9 + [99] * 2 + [5] * 29, [99] * 9 + [0] * 2 + [5] * 29  # difference -.175, standard error .078
    (alone,) = compare("recommendation", ranking(champion), ranking(candidate), samples=2000)
    (among_many,) = compare("recommendation", ranking(champion), ranking(candidate), samples=2000, num_together=22)
    assert (alone.verdict, among_many.verdict) == ("worse", "no difference")
    assert (alone.level, among_many.level) == (0.95, pytest.approx(1 - 0.05 / 22))
    assert among_many.difference == alone.difference


def test_attributes_are_compared_one_by_one_where_both_models_know_them():
    def scores(names):
        rows = [(f"u{n}", name, n % 2, [0.5, 0.5]) for name in names for n in range(10)]
        users, attributes, labels, probabilities = zip(*rows, strict=True)
        return pa.table(
            {"user_id": users, "attribute": attributes, "label": labels, "probabilities": pa.array(probabilities, pa.list_(pa.float32()))}
        )

    compared = compare("attribute", scores(["gender", "age"]), scores(["age", "city"]), samples=100)
    assert [(each.label, each.metric, each.verdict) for each in compared] == [("age", "auc", "no difference")]


def test_one_class_only_cannot_be_compared():
    scores = pa.table({"user_id": ["a", "b"], "label": [1, 1], "score": [0.2, 0.9]})
    (compared,) = compare("activity", scores, scores, samples=100)
    assert (compared.verdict, compared.difference, compared.low) == ("undefined", None, None)


def test_a_comparison_is_json_without_nan():
    (compared,) = compare("recommendation", ranking([1, 2]), ranking([2, 1]), samples=100)
    json.dumps(compared.to_json(), allow_nan=False)
