"""The figures of every round, from literal raw rounds."""

import pytest

from benchmarks import rounds
from benchmarks.train import WAYS


def test_the_middle_is_the_median_of_rounds_and_the_mean_of_seeds():
    by_round = {"audit_s": [1.0, 9.0, 2.0], "train_targets_per_s_replay": []}
    by_round |= {"ndcg10_equal_time_mfn": [0.0, 0.0, 0.75], "atlas_affinity_planted_spearman": [0.5, 0.5, 0.125]}
    assert rounds.typical(by_round) == {
        "audit_s": 2.0,
        "train_targets_per_s_replay": None,
        "ndcg10_equal_time_mfn": 0.25,
        "atlas_affinity_planted_spearman": 0.375,
    }


def test_the_command_says_whose_rounds_they_are():
    record = {"name": "try", "rounds": [{"mfn": 3.0, "duckdb": 2.0}]}
    told = rounds.by_round(record | {"command": "python -m benchmarks.audit --name try"})
    assert told == {"audit_s": [3.0], "audit_duckdb_s": [2.0], "audit_time_vs_duckdb": [1.5]}
    assert rounds.by_round(record | {"command": "python -m benchmarks.serve"}) == {}


def test_a_round_of_the_atlas_is_a_seed():
    by_round = rounds.of_atlas([{"seed": 0, "alignment": 0.25, "affinity": 0.5}, {"seed": 1, "alignment": 0.75, "affinity": 0.5}])
    assert by_round == {"atlas_alignment_planted_spearman": [0.25, 0.75], "atlas_affinity_planted_spearman": [0.5, 0.5]}


def test_replay_is_as_fast_as_the_faster_of_its_ways_in_that_round():
    raw = {
        "ranking_users_per_s": [
            {"mfn": 60.0, "mfn_default": 40.0, "replay_ranks": 20.0, "replay_top": 30.0},
            {"mfn": 60.0, "mfn_default": 50.0, "replay_ranks": 40.0, "replay_top": 30.0},
        ],
        "scoring_seconds": [{"score": 6.0, "forward": 3.0, "forward_with_item_scores": 4.0}],
        "scored_users": 12,
    }
    told = rounds.of_eval(raw)
    assert told["eval_users_per_s_vs_replay"] == [2.0, 1.5]
    assert told["eval_users_per_s_mfn_default"] == [40.0, 50.0]
    assert (told["score_time_vs_forward"], told["score_time_vs_forward_without_item_scores"]) == ([1.5], [2.0])
    assert told["score_users_per_s"] == [2.0]


def growth(*points):
    measured = [{"items": items, "train_ms_per_user": train, "rank_ms_per_user": rank} | more for items, train, rank, more in points]
    return rounds.of_scale({"items": [*measured, {"items": 10**9, "ended": "MemoryError"}]})


def test_an_exponent_is_the_slope_between_the_largest_points_of_one_kind_of_loss():
    told = growth((10, 2.0, 9.0, {"negatives": 0}), (100, 200.0, 9.0, {"negatives": 0}), (1000, 2.0, 90.0, {"negatives": 8}))
    assert told["scale_items_exponent_train_ms_per_user"] == pytest.approx([2.0])
    assert told["scale_items_exponent_rank_ms_per_user"] == pytest.approx([1.0]), "the ranking knows no loss"
    assert told["scale_items_1000_rank_ms_per_user"] == [90.0]
    assert told["scale_items_1000000000_rank_ms_per_user"] == told["scale_items_exponent_prepare_s"] == []


def test_two_points_with_sampled_items_have_an_exponent_of_their_own():
    told = growth((10, 7.0, 1.0, {"negatives": 0}), (100, 2.0, 1.0, {"negatives": 8}), (1000, 20.0, 1.0, {"negatives": 8}))
    assert told["scale_items_exponent_train_ms_per_user"] == pytest.approx([1.0])


def test_points_that_do_not_say_it_sampled_beyond_262_144_items():
    assert growth((262_144, 9.0, 1.0, {}), (1_000_000, 2.0, 1.0, {}))["scale_items_exponent_train_ms_per_user"] == []


def test_a_step_has_its_share_of_the_roofline_in_either_precision():
    raw = [{"fraction_fp32": 0.5, "users_per_s_fp32": 9.0, "peak_tflops_fp32": 2.0, "gflop_per_user_fp32": 7.0}]
    raw[0] |= {"fraction_bf16": 0.25, "users_per_s_bf16": 8.0, "peak_tflops_bf16": 3.0}
    assert rounds.of_step(raw) == {
        "mfn_step_fraction_fp32_roofline": [0.5],
        "mfn_step_users_per_s_fp32": [9.0],
        "roofline_tflops_fp32": [2.0],
        "mfn_step_fraction_bf16_roofline": [0.25],
        "mfn_step_users_per_s_bf16": [8.0],
        "roofline_tflops_bf16": [3.0],
    }


def test_on_a_gpu_every_way_is_timed_once():
    assert rounds.of_step({"full_b256_graph": {"users_per_s": 7.0}}) == {}


def speeds(*each):
    """Two figures of memory and rows beside the targets of every round."""
    runs = {name: [{"targets_per_s": one[name], "rows_per_s": 1.0, "peak_rss_gib": 0.5} for one in each] for name in each[0]}
    return rounds.of_train({"targets_per_s": list(each), "runs": runs})


def test_training_is_held_against_the_fastest_way_of_the_peers_in_that_round():
    told = speeds(
        {"mfn_float32": 20.0, "mfn_bfloat16": 60.0, "rectools_bfloat16": 20.0, "replay_float32": 10.0},
        {"mfn_float32": 50.0, "mfn_bfloat16": 40.0, "rectools_bfloat16": 10.0, "replay_float32": 20.0},
    )
    assert told["train_targets_per_s_mfn"] == [60.0, 50.0]
    assert told["train_targets_per_s_vs_best_peer"] == [3.0, 2.5]
    assert told["train_targets_per_s_vs_best_peer_float32"] == [2.0, 2.5]
    assert (told["train_targets_per_s_vs_recbole"], told["train_targets_per_s_recbole"]) == ([], [])
    assert told["train_peak_rss_gib_mfn_float32"] == [0.5, 0.5]
    assert "train_targets_per_s_vs_recbole_as_installed" not in told


def test_recbole_as_installed_is_a_ratio_of_its_own():
    told = speeds({"mfn_bfloat16": 60.0, "recbole_float32": 6.0, "recbole_as_installed": 20.0})
    assert told["train_targets_per_s_vs_recbole"] == [10.0]
    assert told["train_targets_per_s_vs_recbole_as_installed"] == [3.0]


def ranked(*ndcg10):
    return [{"ndcg10": each, "eval_users_per_s": 10 * each, "epochs": 1.0, "ndcg10_alone": 0.1, "finish_seconds": 2.0} for each in ndcg10]


def test_accuracy_is_that_of_the_way_that_is_best_over_the_seeds():
    runs = {"mfn_bfloat16": ranked(0.5, 0.75), "replay_float32": ranked(0.0, 0.6), "replay_buckets": ranked(0.5, 0.125)}
    told = rounds.of_train({"ndcg10": [], "runs": runs | {"rectools_float32": ranked(0.125, 0.125)}})
    assert told["ndcg10_equal_time_replay"] == [0.5, 0.125]
    assert told["ndcg10_minus_best_peer_equal_time"] == [0.0, 0.625]
    assert told["ndcg10_equal_time_recbole"] == []
    assert told["eval_users_per_s_vs_replay_equal_time"] == [1.0, 1.25], "speed: of the fastest way of the seed"
    assert told["ndcg10_equal_time_mfn_bfloat16_alone"] == [0.1, 0.1]


def test_without_a_peer_there_is_no_difference():
    told = rounds.of_train({"ndcg10": [], "runs": {"mfn_bfloat16": ranked(0.5)}})
    assert told["ndcg10_minus_best_peer_equal_time"] == []


def test_a_way_begins_with_the_name_of_its_system():
    assert {name: rounds._system(name) for name in WAYS} == {name: way.system for name, way in WAYS.items()}
