"""SASRec of RecBole by ``benchmarks.recbole``: its rows are the prefixes of the histories, a target each.

.venv-bench/bin/python -m benchmarks.peers.recbole_sasrec --data <dataset> --out recbole.json
"""

import argparse
import contextlib
import itertools
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from benchmarks.peers.program import DROPOUT, ENDLESS, FEED_FORWARD_FACTOR, LEARNING_RATE, Meter, parser, ranked, write
from benchmarks.recbole.run import OurTrainer, in_recbole_words, network, prepare
from mfn_core.data.dataset import Dataset

_MODEL = "SASRec"


class TimeIsUpError(Exception):
    """The seconds are over."""


class MeteredTrainer(OurTrainer):
    """RecBole's trainer, which tells a meter of each step and stops when its seconds are over."""

    meter: Meter

    def _some(self, train_data: Any) -> Iterator[Interaction]:
        for interaction in train_data:
            if self.meter.step(len(interaction), len(interaction)):
                raise TimeIsUpError
            yield interaction


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    meter = Meter(options.seconds)
    ours = Dataset.open(options.data)
    facts: dict[str, Any] = {}
    asked = argparse.Namespace(**vars(options), model=_MODEL, epochs=ENDLESS, patience=ENDLESS, mask_seen=True)
    out = options.out.resolve()
    # RecBole writes TensorBoard files into the working directory.
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        config, (train_data, _, test_data) = prepare(asked, ours, Path(scratch))
        settings = {"learning_rate": LEARNING_RATE, "width": options.width, "dropout": DROPOUT}
        shape = {"n_layers": options.layers, "n_heads": options.heads, "inner_size": FEED_FORWARD_FACTOR * options.width}
        for name, value in (in_recbole_words(_MODEL, settings) | shape).items():
            config[name] = value
        init_seed(options.seed, reproducibility=False)
        model = network(_MODEL, config, train_data)
        torch.autograd.set_detect_anomaly(options.as_installed)
        trainer = MeteredTrainer(config, model, ours, ENDLESS, float("inf"), mask_seen=True)
        trainer.meter = meter
        with contextlib.suppress(TimeIsUpError):
            for epoch in itertools.count():
                trainer._train_epoch(train_data, epoch)
        facts |= meter.figures() | {"epochs": meter.epochs(len(train_data.dataset))}
        if options.rank:
            began = time.perf_counter()
            ranks_B = trainer.ranks(test_data, "test")
            facts |= ranked(ranks_B, time.perf_counter() - began)
    options.out = out
    write(options, facts, ("recbole", "torch", "numpy"))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning, module="recbole")
    arguments = parser(__doc__)
    arguments.add_argument(
        "--as-installed", action="store_true", help="with the anomaly detection of torch, which importing RecBole's models switches on"
    )
    main(arguments.parse_args())
