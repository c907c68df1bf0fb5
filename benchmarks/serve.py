"""How long one user's answer takes: ``python -m benchmarks.serve`` writes benchmarks/results/serve.json.

A network of both views, untrained, is logged as the task ``register`` logs it and loaded as a pyfunc model, as every server of MLflow does.
Requests of one user each, with raw histories; the answers come from the process that holds the model, so the way over HTTP is not in them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.record import in_process, write
from benchmarks.synthetic import Size, write_dataset
from mfn_core.config import NetworkConfig
from mfn_core.data.dataset import Dataset
from mfn_core.data.sequences import raw_columns
from mfn_core.inference.serving import answer
from mfn_core.schema import LOGS, USER_ID

_IMPORTS = ("mlflow", "tasks.tracking.models", "mfn_core.inference.predictor")
_WARM_UP = 20


def main() -> None:
    options = _parser().parse_args()
    timed = in_process(measure, options.requests, options.items, options.events, options.threads, imports=_IMPORTS)
    milliseconds: dict[str, list[float]] = timed.value
    figures: dict[str, float | None] = {}
    for name, values in milliseconds.items():
        figures[f"serve_p50_ms{name}"] = statistics.median(values)
        figures[f"serve_p99_ms{name}"] = float(np.quantile(values, 0.99))
    write(
        "serve",
        figures | {"serve_peak_rss_gib": timed.peak_rss_gib},
        {f"milliseconds{name}": [round(value, 3) for value in values] for name, values in milliseconds.items()},
        ("torch", "mlflow", "pandas", "pyarrow"),
        [
            f"{options.requests} requests of one user, {options.events} events in either view, {options.items} items, ten answered, "
            f"{options.threads} threads; serve_*_ms: the pyfunc model; _core: mfn_core.inference.serving.answer alone"
        ],
    )


def measure(requests: int, items: int, events: int, threads: int) -> dict[str, list[float]]:
    """Milliseconds of every request: to the loaded model (""), and to the core ("_core")."""
    import mlflow
    import torch

    from mfn_core.inference.predictor import Predictor
    from mfn_core.model.builder import build_network
    from mfn_core.model.bundle import save_bundle
    from tasks.settings import Settings
    from tasks.tracking import models, runs

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="mfn-serve-") as scratch:
        dataset = Dataset.open(write_dataset(Path(scratch) / "dataset", Size(users=2 * requests, events=events, items=items)))
        config, bundle = NetworkConfig(), Path(scratch) / "bundle"
        network = build_network(config, dataset.vocabularies, dataset.attribute_classes)
        network.count(dataset.histories, dataset.held_out_B, may_return=False)
        save_bundle(bundle, network, config, dataset.vocabularies, dataset.attribute_classes, {})
        settings = Settings(var=Path(scratch) / "var")
        run_id = runs.open_run(settings, "benchmark", {}, {})
        model = mlflow.pyfunc.load_model(f"models:/{models.log_model(settings, run_id, 'benchmark', bundle)}")
        as_of = datetime.fromtimestamp(dataset.cut, UTC).isoformat()
        frames = [_request(dataset, row) for row in range(requests)]
        predictor = Predictor.load(bundle, "cpu")
        return {
            "": _milliseconds(lambda frame: model.predict(frame, params={"as_of": as_of}), frames),
            "_core": _milliseconds(partial(answer, predictor, as_of=as_of), frames),
        }


def _milliseconds(respond: Callable[[pd.DataFrame], Any], frames: list[pd.DataFrame]) -> list[float]:
    for frame in frames[:_WARM_UP]:
        respond(frame)
    found: list[float] = []
    for frame in frames:
        began = time.perf_counter()
        respond(frame)
        found.append((time.perf_counter() - began) * 1000)
    return found


def _request(dataset: Dataset, row: int) -> pd.DataFrame:
    """One user's raw histories."""
    cells: dict[str, Any] = {USER_ID: dataset.histories.user_ids[row]}
    for view in LOGS:
        histories = getattr(dataset.histories, view)
        events = slice(histories.offsets[row], histories.offsets[row + 1])
        names = raw_columns(view)
        cells[names["ids"]] = getattr(dataset.vocabularies, f"{view}_id").decode(histories.ids[events]).tolist()
        cells[names["categories"]] = getattr(dataset.vocabularies, f"{view}_category").decode(histories.categories[events]).tolist()
        cells[names["times"]] = [datetime.fromtimestamp(int(second), UTC).isoformat() for second in histories.times[events]]
    return pd.DataFrame([cells])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=40, help="per view, in the mean")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
