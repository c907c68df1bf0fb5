"""How fast users are ranked and scored: full ranking beside RePlay, and batch scoring beside the bare forward pass.

    python -m benchmarks.eval       # 50,000 simulated users, 10,000 items: benchmarks/results/eval.json

Ranking: SASRec's role, hardly trained (what a network learnt does not change its speed), every user's last item ranked among all items.
RePlay is measured with our ranks of its scores, and with its own best ten, which need no rank and leave seen items in; the faster of the
two in a round is its figure. Feed-forward layers are as wide as the model, as RePlay has them; ``mfn_default`` has the product's, four
times as wide.
Scoring: what ``mfn_score`` does from the logs, which it sorts, to the Parquet file, with the whole network of two views.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import Timed, call, in_process, interleaved, write
from benchmarks.rounds import of_eval, typical
from benchmarks.synthetic import Size, write_dataset
from mfn_core.config import NetworkConfig
from mfn_core.data.dataset import Dataset
from mfn_core.data.held_out import HELD_OUT_EVENTS
from mfn_core.schema import EVENT_TIME, SEQ_NO, USER_ID

_ROOT = Path(__file__).resolve().parents[1]
_RANKERS = {
    "mfn": (".venv", "mfn_sasrec", ()),
    "mfn_default": (".venv", "mfn_sasrec", ("--feed-forward-factor", "4")),
    "replay_ranks": (".venv-replay", "replay_sasrec", ()),
    "replay_top": (".venv-replay", "replay_sasrec", ("--answer", "top")),
}
_PREDICTOR_IMPORTS = ("mfn_core.inference.predictor", "tasks.score")


def main() -> None:
    options = _parser().parse_args()
    if missing := [each for each, _, _ in _RANKERS.values() if not (_ROOT / each / "bin" / "python").exists()]:
        sys.exit(f"missing: {', '.join(sorted(set(missing)))}; make bench-peers-env")
    with tempfile.TemporaryDirectory(prefix="mfn-eval-") as scratch:
        folder = write_dataset(Path(scratch) / "dataset", Size(users=options.users, events=options.events, items=options.items))
        quarter = write_dataset(Path(scratch) / "quarter", Size(options.users // 4, options.events, options.items))
        few = write_dataset(Path(scratch) / "few", Size(options.scored_users, options.events, options.items))
        ranking = interleaved({name: partial(_rank, folder, name, options) for name in _RANKERS}, options.rounds)
        memory = {name: in_process(ranking_growth, str(each), options.threads) for name, each in (("quarter", quarter), ("all", folder))}
        scoring = _scoring(few, options)
    rounds = {"ranking_users_per_s": ranking, "scoring_seconds": scoring, "scored_users": options.scored_users}
    write(
        "eval",
        {
            **typical(of_eval(rounds)),
            "eval_peak_rss_gib_quarter_of_users": memory["quarter"].peak_rss_gib,
            "eval_peak_rss_gib": memory["all"].peak_rss_gib,
            "eval_rss_growth_mib": memory["all"].value,
        },
        rounds,
        ("torch", "numpy", "pyarrow", "duckdb"),
        [
            f"{options.users} users, {options.events} events, {options.items} items, {options.threads} threads, "
            "128 users a batch, RePlay 512; "
            f"scoring: {options.scored_users} users, {options.events} events in either view, ten items each",
            "forward: collated batches through the network; with item scores: and the scores of all items for each user",
            "memory: the process that opens the dataset, counts its transitions and ranks; a quarter of the users beside all",
            "growth: of the peak in one process, from the ranking of a quarter of the users to the ranking of all",
        ],
    )


def _rank(folder: Path, name: str, options: argparse.Namespace) -> float:
    """Users ranked a second by one system, after as few steps of training as its program takes."""
    environment, program, more = _RANKERS[name]
    sequences, out = folder.with_name("sequences.npz"), folder.with_name("run.json")
    python = str(_ROOT / environment / "bin" / "python")
    if not sequences.exists():
        call([sys.executable, "-m", "benchmarks.peers.sequences", "--data", str(folder), "--out", str(sequences)], options.threads)
    files = ["--data", str(folder), "--sequences", str(sequences), "--out", str(out)]
    given = ["--seconds", "1", "--max-length", str(options.max_length), "--threads", str(options.threads), "--rank"]
    call([python, "-m", f"benchmarks.peers.{program}", *files, *given, *more], options.threads)
    return json.loads(out.read_text(encoding="utf-8"))["eval_users_per_s"]


def ranking_growth(folder: str, threads: int) -> float:
    """Rank the last items of a quarter of the users, then of all, by an untrained network of both views; MiB that the second took more."""
    dataset = Dataset.open(Path(folder))
    predictor = _predictor(dataset, threads)
    rows = np.flatnonzero(dataset.held_out_B == HELD_OUT_EVENTS)
    peaks: list[int] = []
    for some in (rows[: len(rows) // 4], rows):
        predictor.rank_targets(dataset.histories, some, dataset.held_out_B, prefix="test")
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return (peaks[1] - peaks[0]) / 1024


def _scoring(folder: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    logs = folder.with_name("logs.parquet")
    pq.write_table(_events(Dataset.open(folder)), logs)

    def seconds(function: Callable[..., float], *arguments: Any) -> float:
        timed: Timed = in_process(function, *arguments, imports=_PREDICTOR_IMPORTS)
        return timed.value

    rivals = {
        "score": partial(seconds, score_seconds, str(folder), str(logs), options.threads),
        "forward": partial(seconds, forward_seconds, str(folder), options.threads, False),
        "forward_with_item_scores": partial(seconds, forward_seconds, str(folder), options.threads, True),
    }
    return interleaved(rivals, options.rounds)


def score_seconds(folder: str, logs: str, threads: int) -> float:
    """From the logs to the file of scores, as ``tasks.score.score`` goes; model and manifests are not counted."""
    from tasks import engine, score
    from tasks.dag_configs import ScoreConfig
    from tasks.settings import Settings

    dataset = Dataset.open(Path(folder))
    predictor = _predictor(dataset, threads)
    as_of = date.fromordinal(date(1970, 1, 1).toordinal() + dataset.cut // 86_400)
    work: Any = SimpleNamespace(version=SimpleNamespace(number=1), as_of=as_of, query_time=dataset.cut)
    out = Path(logs).with_name("scores.parquet")
    with engine.connect(Settings(var=Path(logs).parent / "var")) as connection:
        began = time.perf_counter()
        tally = score._write(out, score._pieces(engine.read_parquet(connection, [logs])), predictor, work, ScoreConfig())
        seconds = time.perf_counter() - began
    assert tally.users == len(dataset), "every user is scored"
    return seconds


def forward_seconds(folder: str, threads: int, with_item_scores: bool) -> float:
    """The network's forward pass alone, over batches that are collated already."""
    import torch

    from mfn_core.model.ranking import _blocks
    from tasks.dag_configs import ScoreConfig

    dataset = Dataset.open(Path(folder))
    predictor = _predictor(dataset, threads)
    rows = np.arange(len(dataset))
    batches = [each for _, each in predictor._batches(dataset.histories, rows, "full", ScoreConfig().batch_size, query_time=dataset.cut)]
    began = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            outputs = predictor._network(batch)
            if with_item_scores:
                for _ in _blocks(predictor._network.last_item_scores(outputs.encoded, batch), users_adjacent=False):
                    pass
    return time.perf_counter() - began


def _predictor(dataset: Dataset, threads: int) -> Any:
    import torch

    from mfn_core.inference.predictor import Predictor
    from mfn_core.model.builder import build_network
    from mfn_core.model.bundle import Bundle

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = NetworkConfig()
    network = build_network(config, dataset.vocabularies, dataset.attribute_classes)
    network.count(dataset.histories, dataset.held_out_B, may_return=False)
    return Predictor(Bundle(network, config, dataset.vocabularies, dict(dataset.attribute_classes), {}), "cpu")


def _events(dataset: Dataset) -> pa.Table:
    """Both views as one log, in the columns of ``tasks.score``."""
    tables: list[pa.Table] = []
    for view in ("macro", "micro"):
        histories = getattr(dataset.histories, view)
        users = np.repeat(dataset.histories.user_ids, histories.lengths)
        columns = {
            USER_ID: pa.array(users, pa.string()),
            EVENT_TIME: pa.array(histories.times * 1_000_000).cast(pa.timestamp("us", "UTC")),
            SEQ_NO: pa.array(np.zeros(len(users), np.int64)),
            "view": pa.array([view] * len(users)),
            "id": pa.array(getattr(dataset.vocabularies, f"{view}_id").decode(histories.ids), pa.string()),
            "category": pa.array(getattr(dataset.vocabularies, f"{view}_category").decode(histories.categories), pa.string()),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50_000, help="to rank")
    parser.add_argument("--scored-users", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=40, help="per user and view, in the mean")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--max-length", type=int, default=50, help="latest events that the ranking networks read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
