"""What the measured programs share: their options, the clock of the steps, the sequences, and the JSON they write.

Standard library and NumPy alone, for any environment has these.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.ranking import figures, ranks

LEARNING_RATE = 1e-3
DROPOUT = 0.2
FEED_FORWARD_FACTOR = 1  # as wide as the model: RecTools and RePlay have no other
RANKING_BATCH = 512
ENDLESS = 1_000_000  # epochs: the budget of seconds ends the training
TRAIN, VALIDATION, TEST = 0, 1, 2

Ints = NDArray[np.int64]

_WARM_UP_STEPS, _FEWEST_STEPS = 3, 5


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of all programs; whoever has options of its own adds them."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sequences", type=Path, help="what benchmarks.peers.sequences wrote; read by the peers without mfn_core")
    options.add_argument("--data", type=Path, help="folder of the dataset that it was written from; read by the others")
    options.add_argument("--width", type=int, default=128)
    options.add_argument("--layers", type=int, default=2)
    options.add_argument("--heads", type=int, default=2)
    options.add_argument("--max-length", type=int, default=200, help="latest events that a model reads")
    options.add_argument("--batch-size", type=int, default=128, help="rows per step: users, and prefixes where RecBole makes the rows")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seconds", type=float, default=20, help="of training; preparation and evaluation are not counted")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    options.add_argument("--rank", action="store_true", help="rank the test targets of all users when the seconds are over")
    options.add_argument("--out", type=Path, required=True, help="the JSON")
    return options


class Meter:
    """The clock of a training: told when a step begins, it knows when the seconds are over and how fast the steps were.

    From the start of a step to the start of the next passes all that a step costs: batch, forward, backward, optimizer, and what the
    library does around them. The first steps are warm-up and count in the budget alone.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.perf_counter()
        self._times: list[float] = []
        self._rows: list[int] = []
        self._targets: list[int] = []

    def step(self, rows: int, targets: int) -> bool:
        """Begin a step, unless the seconds are over: True.

        Args:
            rows: of the batch.
            targets: positions that are no padding and have a target that the loss of this step counts.
        """
        self._times.append(time.perf_counter())
        self._rows.append(rows)
        self._targets.append(targets)
        return len(self._times) > _WARM_UP_STEPS + _FEWEST_STEPS and self._times[-1] - self._times[0] >= self._seconds

    @property
    def prepare_seconds(self) -> float:
        """From the making of this clock to the first step."""
        return self._times[0] - self._began

    def figures(self) -> dict[str, float]:
        """Rates over the steps between warm-up and end."""
        counted = slice(_WARM_UP_STEPS, -1)
        seconds = self._times[-1] - self._times[_WARM_UP_STEPS]
        return {
            "targets_per_s": sum(self._targets[counted]) / seconds,
            "rows_per_s": sum(self._rows[counted]) / seconds,
            "steps": len(self._times) - 1,
            "train_seconds": self._times[-1] - self._times[0],
            "prepare_seconds": self.prepare_seconds,
            "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }

    def epochs(self, rows_per_epoch: int) -> float:
        """Passes over the rows so far."""
        return sum(self._rows[:-1]) / rows_per_epoch


@dataclass(frozen=True)
class Sequences:
    """The events of all users, a user's in turn and oldest first; the one before the last and the last are held out.

    An event of an item that the vocabulary lacks is left out, as in ``benchmarks.recbole.atomic_files``; held out, its item is -1.
    """

    users: Ints  # row of the dataset
    items: Ints  # from 0, most frequent first
    positions: Ints  # in the history
    parts: Ints  # TRAIN, VALIDATION or TEST
    num_items: int

    @classmethod
    def read(cls, path: Path) -> "Sequences":
        """Read what ``write`` wrote."""
        with np.load(path) as arrays:
            return cls(*(arrays[name] for name in ("users", "items", "positions", "parts")), int(arrays["num_items"]))

    def write(self, path: Path) -> None:
        """Write a file of NumPy: a Parquet file would ask for pyarrow, which the environment of RecTools lacks."""
        with path.open("wb") as file:
            np.savez(file, **vars(self))

    def training(self) -> "Sequences":
        """The training events of the users that have two of them or more: one input and one target."""
        is_training = self.parts == TRAIN
        counts_U = np.bincount(self.users[is_training], minlength=int(self.users.max()) + 1)
        return self._only(is_training & (counts_U[self.users] >= 2))

    def asked(self) -> "Sequences":
        """All that the users with a test target did before it."""
        return self._only((self.parts != TEST) & (self.items >= 0) & np.isin(self.users, self.users[self.parts == TEST]))

    def targets(self) -> tuple[Ints, Ints]:
        """Users with a test target, in rising order, and the targets."""
        is_test = self.parts == TEST
        return self.users[is_test], self.items[is_test]

    def rows(self) -> tuple[Ints, list[Ints]]:
        """Users and their items."""
        users, starts = np.unique(self.users, return_index=True)
        return users, np.split(self.items, starts[1:])

    def _only(self, chosen: NDArray[np.bool_]) -> "Sequences":
        columns = (self.users, self.items, self.positions, self.parts)
        return Sequences(*(column[chosen] for column in columns), self.num_items)


class Ranking:
    """Ranks of all test targets, batch by batch; a user who is never scored has its target behind every item."""

    def __init__(self, sequences: Sequences) -> None:
        self.asked = sequences.asked()
        self._users, self._target_B = sequences.targets()
        self.ranks_B = np.full(len(self._users), float(sequences.num_items))

    def take(self, users: Ints, scores_BN: NDArray[np.float32]) -> None:
        """Rank the targets of some users by their scores of all items, which are written over; see ``ranks``."""
        first, stop = np.searchsorted(self.asked.users, users), np.searchsorted(self.asked.users, users, side="right")
        rows = np.repeat(np.arange(len(users)), stop - first)
        met = np.concatenate([self.asked.items[slice(*each)] for each in zip(first, stop, strict=True)])
        place = np.searchsorted(self._users, users)
        self.ranks_B[place] = ranks(scores_BN, self._target_B[place], (rows, met))


def ranked(ranks_B: NDArray[np.floating], seconds: float) -> dict[str, float]:
    """What the JSON says of a ranking that took so long."""
    return figures(ranks_B) | {"ranked_users": len(ranks_B), "eval_users_per_s": len(ranks_B) / seconds}


def write(options: argparse.Namespace, facts: dict[str, Any], libraries: tuple[str, ...]) -> None:
    """Write the JSON; the files are left out of the options."""
    kept = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    versions = {"python": sys.version.split()[0], **{name: version(name).split("+")[0] for name in libraries}}
    options.out.write_text(json.dumps({**facts, "options": kept, "versions": versions}, indent=1) + "\n", encoding="utf-8")
