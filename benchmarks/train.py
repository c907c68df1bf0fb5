"""How fast SASRec is trained here and elsewhere: supervised targets a second, each system in its own environment.

    python -m benchmarks.train --data <dataset>                                     # speed: benchmarks/results/train.json
    python -m benchmarks.train --data <dataset> --equal-time --seconds 600 --seeds 3  # accuracy: train-equal-time.json

Same events, width, feed-forward width, layers, heads, length and users a step; full cross-entropy over all items at every position, Adam,
dropout. What else makes a system slow or fast is its own: precision where it offers one, padding, batches, loss. A system that has several
ways is measured in each, and its figure is that of the fastest way of each round; with ``--equal-time`` that of the most accurate way. One
of our ways has feed-forward layers of four times the width, as the product has them by default.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.record import call, interleaved, write
from benchmarks.rounds import AS_INSTALLED, of_train, typical

_ROOT = Path(__file__).resolve().parents[1]
_PASSED_ON = ("width", "layers", "heads", "max_length", "threads", "seconds")
_LIBRARIES = ("torch", "numpy")

Runs = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Way:
    """A system, and one of its ways to train."""

    system: str
    environment: str
    arguments: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Of its environment."""
        return _ROOT / self.environment / "bin" / "python"


_BFLOAT16 = ("--precision", "bfloat16")
WAYS = {
    "mfn_float32": Way("mfn", ".venv"),
    "mfn_bfloat16": Way("mfn", ".venv", _BFLOAT16),
    "mfn_default_bfloat16": Way("mfn", ".venv", (*_BFLOAT16, "--feed-forward-factor", "4")),
    "rectools_float32": Way("rectools", ".venv-rectools"),
    "rectools_bfloat16": Way("rectools", ".venv-rectools", _BFLOAT16),
    "replay_float32": Way("replay", ".venv-replay"),
    "replay_buckets": Way("replay", ".venv-replay", ("--bucket-size", "32")),  # fails in bfloat16
    "replay_bfloat16": Way("replay", ".venv-replay", _BFLOAT16),
    "recbole_float32": Way("recbole", ".venv-bench"),
    AS_INSTALLED: Way("recbole", ".venv-bench", ("--as-installed",)),
}


def main() -> None:
    options = _parser().parse_args()
    chosen = options.ways.split(",")
    if missing := sorted({WAYS[name].environment for name in chosen if not WAYS[name].python.exists()}):
        sys.exit(f"missing: {', '.join(missing)}; make bench-peers-env")
    with tempfile.TemporaryDirectory(prefix="mfn-train-") as scratch:
        # In a process of its own: a child's peak memory starts at that of the process which starts it.
        sequences = Path(scratch) / "sequences.npz"
        call([sys.executable, "-m", "benchmarks.peers.sequences", "--data", str(options.data), "--out", str(sequences)], options.threads)
        measure = equal_time if options.equal_time else speed
        measure(options, chosen, partial(_run, options, sequences))


def speed(options: argparse.Namespace, chosen: Sequence[str], run: Callable[..., dict[str, Any]]) -> None:
    """Targets a second, rounds in turn."""
    rounds, runs = _rounds(chosen, options.rounds, "targets_per_s", run)
    raw = {"targets_per_s": rounds, "runs": runs}
    write(options.name or "train", typical(of_train(raw)), raw, _LIBRARIES, _notes(options, runs))


def equal_time(options: argparse.Namespace, chosen: Sequence[str], run: Callable[..., dict[str, Any]]) -> None:
    """NDCG@10 of the test targets after as many seconds of training, a seed each round; and the speed of the ranking."""
    rounds, runs = _rounds(chosen, options.seeds, "ndcg10", partial(run, "--rank"))
    raw = {"ndcg10": rounds, "runs": runs}
    notes = [
        *_notes(options, runs),
        "the weights are those of the last step, ours averaged; nothing is chosen by validation, and the seconds hold no evaluation",
        "ours then fits its blend with the tables of counts on the validation items, beyond the seconds: finish_seconds; alone: without it",
        "the ranking reads all events before the test target, that of validation too; eval_users_per_s is states, scores and ranks",
    ]
    write(options.name or "train-equal-time", typical(of_train(raw)), raw, _LIBRARIES, notes)


def _rounds(chosen: Sequence[str], number: int, figure: str, run: Callable[..., dict[str, Any]]) -> tuple[list[dict[str, float]], Runs]:
    """One figure of every way and round, and all that the runs said. A round has its own seed."""
    runs: Runs = {name: [] for name in chosen}

    def once(name: str) -> float:
        runs[name].append(run("--seed", str(len(runs[name])), way=WAYS[name]))
        return runs[name][-1][figure]

    return interleaved({name: partial(once, name) for name in chosen}, number), runs


def _run(options: argparse.Namespace, sequences: Path, *more: str, way: Way) -> dict[str, Any]:
    out = sequences.with_name("run.json")
    given = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in _PASSED_ON]
    batch_size = options.recbole_batch_size if way.system == "recbole" else options.batch_size
    files = ["--data", str(options.data.resolve()), "--sequences", str(sequences), "--out", str(out)]
    program = [str(way.python), "-m", f"benchmarks.peers.{way.system}_sasrec"]
    call([*program, *files, *given, f"--batch-size={batch_size}", *way.arguments, *more], options.threads)
    return json.loads(out.read_text(encoding="utf-8"))


def _notes(options: argparse.Namespace, runs: Runs) -> list[str]:
    versions = {library: number for each in runs.values() for library, number in each[0]["versions"].items() if library != "python"}
    named = ", ".join(f"{name} {versions[name]}" for name in ("rectools", "replay-rec", "recbole") if name in versions)
    return [
        f"dataset {options.data.name}; width {options.width}, {options.layers} layers, {options.heads} heads, {options.max_length} events, "
        f"{options.batch_size} users a step (RecBole: {options.recbole_batch_size} prefixes), {options.threads} threads, "
        f"{options.seconds:g} s of training a run; {named}",
        "feed-forward layers as wide as the model, as RecTools and RePlay have them; mfn_default: four times as wide, as the product's",
        "RePlay's loss is CESampled with all items as negatives: the full softmax, at the target positions alone; CE computes padding too",
        "RecBole trains a row for each prefix of a history: a target a row; it computes in float32",
        "RecBole without torch's anomaly detection, which its module SINE sets for every model; as_installed: with it",
        "a target is a position that is no padding and has one in the loss; the steps are timed from start to start, batches included",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of a dataset, as build_dataset writes it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of training, a run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128, help="users a step")
    parser.add_argument("--recbole-batch-size", type=int, default=512, help="prefixes a step")
    parser.add_argument("--ways", default=",".join(WAYS), help="which to measure, by commas")
    parser.add_argument("--equal-time", action="store_true", help="measure NDCG@10 after the seconds instead of speed")
    parser.add_argument("--seeds", type=int, default=3, help="of --equal-time")
    parser.add_argument("--name", help="of the record")
    return parser


if __name__ == "__main__":
    main()
