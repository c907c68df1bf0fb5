"""The figures of every round, from the raw rounds of a record: the benchmarks take their medians, the page tells how far apart they lie.

A ratio is taken within a round, where both sides met the same machine. Nothing heavy is imported: the page is made from here.
"""

import math
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

AS_INSTALLED = "recbole_as_installed"
_PEERS = ("rectools", "replay")
_SYSTEMS = ("mfn", *_PEERS, "recbole")

EXPONENTS = (
    "the loss scores all items up to 262,144, and beyond them a sample of 1,024, which makes a step cheaper and memory grow otherwise; "
    "exponents of train and peak_rss are between the two largest points of one kind of loss, the others between the two largest"
)
ONE_MORE_DAY = (
    "one more day: its ingest and its validation alone; the dataset, which a training builds anew of all its days "
    "(etl_dataset_rows_per_s), is not in it"
)
_OF_SCALE = ("prepare_s", "train_ms_per_user", "rank_ms_per_user", "peak_rss_gib")
_OF_THE_LOSS = ("train_ms_per_user", "peak_rss_gib")

Figures = dict[str, list[float]]


def typical(by_round: Figures) -> dict[str, float | None]:
    """Median of every figure, but the mean where a round is a seed; None where nothing was measured."""
    centre = {key: statistics.fmean if key.startswith(("ndcg10", "atlas")) else statistics.median for key in by_round}
    return {key: centre[key](values) if values else None for key, values in by_round.items()}


def by_round(record: Mapping[str, Any]) -> Figures:
    """Of the figures that the record's benchmark takes in rounds; nothing of a benchmark that runs once."""
    benchmark = benchmark_of(record)
    return _OF[benchmark](record["rounds"]) if benchmark in _OF else {}


def benchmark_of(record: Mapping[str, Any]) -> str:
    """The module that wrote it."""
    return record["command"].split()[2].removeprefix("benchmarks.")


def of_atlas(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """A round is a seed."""
    return {f"atlas_{part}_planted_spearman": _values(rounds, part) for part in rounds[0] if part != "seed"}


def of_audit(rounds: Sequence[Mapping[str, float]]) -> Figures:
    return {
        "audit_s": _values(rounds, "mfn"),
        "audit_duckdb_s": _values(rounds, "duckdb"),
        "audit_time_vs_duckdb": [each["mfn"] / each["duckdb"] for each in rounds],
    }


def of_eval(rounds: Mapping[str, Any]) -> Figures:
    """The faster of RePlay's two ways is that of the round."""
    ranking, scoring = rounds["ranking_users_per_s"], rounds["scoring_seconds"]
    scored_users = rounds.get("scored_users", 10_000)  # in the record of 2026-11-28 the notes alone say it
    return {
        "eval_users_per_s_vs_replay": [each["mfn"] / max(each["replay_ranks"], each["replay_top"]) for each in ranking],
        **{f"eval_users_per_s_{name}": _values(ranking, name) for name in ranking[0]},
        "score_time_vs_forward": [each["score"] / each["forward_with_item_scores"] for each in scoring],
        "score_time_vs_forward_without_item_scores": [each["score"] / each["forward"] for each in scoring],
        "score_users_per_s": [scored_users / each["score"] for each in scoring],
    }


def of_scale(points: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figures:
    """Every point, measured once, and the exponents between them."""
    found: Figures = {}
    for size, measured in points.items():
        for figure in _OF_SCALE:
            found[f"scale_{size}_exponent_{figure}"] = _exponent(size, figure, [point for point in measured if figure in point])
            found |= {f"scale_{size}_{point[size]}_{figure}": [point[figure]] if figure in point else [] for point in measured}
    return found


def _exponent(size: str, figure: str, points: Sequence[Mapping[str, Any]]) -> list[float]:
    """Slope of the logarithm over that of the size: from all items scored to a sample of them it would be no growth of anything."""
    pairs = [pair for pair in pairwise(points) if figure not in _OF_THE_LOSS or len({*map(_negatives, pair)}) == 1]
    return [math.log(large[figure] / small[figure]) / math.log(large[size] / small[size]) for small, large in pairs[-1:]]


def _negatives(point: Mapping[str, Any]) -> int:
    """A step's; 0: all items. The record of 2026-11-28 does not say: its loss sampled 1,024 beyond 262,144 items."""
    return point.get("negatives", 1024 if point.get("items", 0) > 262_144 else 0)


def of_step(rounds: Any) -> Figures:
    """None on a GPU, where every way to take a step is timed once."""
    if isinstance(rounds, Mapping):
        return {}
    named = {"fraction": "mfn_step_fraction_{}_roofline", "users_per_s": "mfn_step_users_per_s_{}", "peak_tflops": "roofline_tflops_{}"}
    precisions = ("fp32", "bf16")
    return {figure.format(name): _values(rounds, f"{key}_{name}") for name in precisions for key, figure in named.items()}


def of_train(rounds: Mapping[str, Any]) -> Figures:
    """Of speed, or of accuracy after equal time; empty lists of the systems that did not take part."""
    runs = rounds["runs"]
    return _accuracies(runs) if "ndcg10" in rounds else _speeds(rounds["targets_per_s"], runs)


def _speeds(rounds: Sequence[Mapping[str, float]], runs: Mapping[str, Any]) -> Figures:
    """A system is as fast as the fastest of its ways in that round."""
    fastest = [_best_of_systems({name: value for name, value in each.items() if name != AS_INSTALLED}) for each in rounds]
    in_float32 = [_best_of_systems({name: value for name, value in each.items() if not name.endswith("bfloat16")}) for each in rounds]
    found = {f"train_targets_per_s_{system}": [each[system] for each in fastest if system in each] for system in _SYSTEMS}
    found |= {
        "train_targets_per_s_vs_best_peer": _ratios(fastest, _PEERS),
        "train_targets_per_s_vs_best_peer_float32": _ratios(in_float32, _PEERS),
        "train_targets_per_s_vs_recbole": _ratios(fastest, ("recbole",)),
    }
    if AS_INSTALLED in runs:
        as_installed = [{**best, "recbole": each[AS_INSTALLED]} for best, each in zip(fastest, rounds, strict=True)]
        found["train_targets_per_s_vs_recbole_as_installed"] = _ratios(as_installed, ("recbole",))
    for figure in ("targets_per_s", "rows_per_s", "peak_rss_gib"):
        found |= {f"train_{figure}_{name}": _values(each, figure) for name, each in runs.items()}
    return found


def _accuracies(runs: Mapping[str, Any]) -> Figures:
    """A system is as accurate as the way with the highest mean over the seeds: by seed, noise would choose the way."""
    scores = {name: _values(each, "ndcg10") for name, each in runs.items()}
    best: Figures = {}
    for name, values in scores.items():
        best[_system(name)] = max(best.get(_system(name), values), values, key=statistics.fmean)
    peers = [best[system] for system in _PEERS if system in best]
    found = {f"ndcg10_equal_time_{system}": best.get(system, []) for system in _SYSTEMS}
    is_compared = "mfn" in best and peers
    found["ndcg10_minus_best_peer_equal_time"] = [*map(operator.sub, best["mfn"], max(peers, key=statistics.fmean))] if is_compared else []
    found |= {f"ndcg10_equal_time_{name}": values for name, values in scores.items()}
    users = {name: _values(each, "eval_users_per_s") for name, each in runs.items()}
    fastest = [_best_of_systems(dict(zip(users, each, strict=True))) for each in zip(*users.values(), strict=True)]
    found["eval_users_per_s_vs_replay_equal_time"] = _ratios(fastest, ("replay",))
    found |= {f"eval_users_per_s_{name}": values for name, values in users.items()}
    found |= {f"epochs_equal_time_{name}": _values(each, "epochs") for name, each in runs.items()}
    for name in (name for name in runs if _system(name) == "mfn"):
        found[f"ndcg10_equal_time_{name}_alone"] = _values(runs[name], "ndcg10_alone")
        found[f"finish_seconds_{name}"] = _values(runs[name], "finish_seconds")
    return found


def _system(way: str) -> str:
    return way.split("_")[0]


def _best_of_systems(by_way: Mapping[str, float]) -> dict[str, float]:
    """The highest figure of each system's ways."""
    best: dict[str, float] = {}
    for name, value in by_way.items():
        best[_system(name)] = max(value, best.get(_system(name), value))
    return best


def _ratios(best: Sequence[Mapping[str, float]], systems: Sequence[str]) -> list[float]:
    """Ours to the best of others, in every round that has both."""
    others = [[each[system] for system in systems if system in each] for each in best]
    return [each["mfn"] / max(theirs) for each, theirs in zip(best, others, strict=True) if "mfn" in each and theirs]


def _values(rounds: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [each[key] for each in rounds]


_OF: Mapping[str, Callable[[Any], Figures]] = {
    "atlas": of_atlas,
    "audit": of_audit,
    "eval": of_eval,
    "scale": of_scale,
    "step": of_step,
    "train": of_train,
}
