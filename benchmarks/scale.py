"""How time and memory grow with users, events, items and categories: ``python -m benchmarks.scale`` writes benchmarks/results/scale.json.

One size grows at a time, the others stay. Every point is a process of its own: it makes ready what a training needs, takes some
steps of the product's loop, and ranks the last items of some users. A figure's exponent is the slope of its logarithm over that of
the size, between points whose loss is of one kind: 0 is no growth, 1 in proportion.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.record import in_process, write
from benchmarks.rounds import EXPONENTS, of_scale, typical
from benchmarks.synthetic import Size, write_dataset

_BASE = Size(users=4_000, events=40, items=10_000, categories=20)
_POINTS = {
    "users": (4_000, 16_000, 64_000),
    "events": (20, 80, 180),
    "items": (10_000, 100_000, 1_000_000),
    "categories": (10, 40, 160),
}
_RANKED_USERS = 1_024


def main() -> None:
    options = _parser().parse_args()
    points: dict[str, list[dict[str, Any]]] = {}
    for name in options.sizes.split(","):
        points[name] = []
        for value in _POINTS[name]:
            points[name].append({name: value} | _measured(replace(_BASE, **{name: value}), options))
            print(points[name][-1], flush=True)
    write(
        "scale",
        typical(of_scale(points)),
        points,
        ("torch", "numpy", "pyarrow"),
        [
            f"where it does not grow: {asdict(_BASE)}; {options.threads} threads, {options.steps} steps, the defaults else",
            "prepare: the dataset opened, counts and tables of transitions made, up to the first step; rank: full ranking in float32",
            "peak_rss: of the whole process, libraries included; a point without figures ended as its row says",
            EXPONENTS,
        ],
    )


def _measured(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mfn-scale-") as scratch:
        folder = in_process(write_dataset, Path(scratch) / "dataset", size).value
        try:
            timed = in_process(measure, str(folder), options.threads, options.steps)
        except Exception as error:  # a wall is what this benchmark looks for: it is a result, named in the record
            return {"ended": f"{type(error).__name__}: {error}"[:300]}
        return timed.value | {"peak_rss_gib": round(timed.peak_rss_gib, 3)}


def measure(folder: str, threads: int, steps: int) -> dict[str, float]:
    """Figures of one dataset."""
    from mfn_core.training import worker

    worker._keep_freed_memory()
    import numpy as np
    import torch

    from benchmarks.stepping import SteppedLearner, seconds_per_user
    from mfn_core.config import NetworkConfig, TrainingConfig
    from mfn_core.data.dataset import Dataset
    from mfn_core.data.held_out import HELD_OUT_EVENTS
    from mfn_core.inference.predictor import Predictor
    from mfn_core.model.bundle import Bundle
    from mfn_core.training.lessons import digest

    torch.set_num_threads(threads)
    began = time.perf_counter()
    dataset = Dataset.open(Path(folder))
    network_config = NetworkConfig()
    learner = SteppedLearner(dataset, network_config, TrainingConfig(device="cpu"))
    digest(dataset)  # by which a run knows its checkpoint
    prepare = time.perf_counter() - began
    train = seconds_per_user(learner, steps)
    predictor = Predictor(Bundle(learner.network, network_config, dataset.vocabularies, dict(dataset.attribute_classes), {}), "cpu")
    rows = np.flatnonzero(dataset.held_out_B == HELD_OUT_EVENTS)[:_RANKED_USERS]
    began = time.perf_counter()
    predictor.rank_targets(dataset.histories, rows, dataset.held_out_B, prefix="test")
    rank = (time.perf_counter() - began) / len(rows)
    sampler = learner.sampling.items
    return {
        "prepare_s": round(prepare, 3),
        "train_ms_per_user": round(train * 1000, 4),
        "rank_ms_per_user": round(rank * 1000, 4),
        "negatives": sampler.num_negatives if sampler else 0,  # 0: the loss scores all items
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(_POINTS), help="which to let grow, by commas")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
