"""Our own training in SASRec's role: the item view alone, run as ``mfn_core.training.worker`` runs it.

    .venv/bin/python -m benchmarks.peers.mfn_sasrec --data <dataset> --out mfn.json

The steps are those of the product, in its loop: feed, autocast, loss, clipping, optimizer, moving average. Validation and checkpoints
between the epochs are left out, as the peers run without them. After the last step the average is taken and its blend with the tables of
counts fitted on the validation items, as after each epoch of the product; ``finish_seconds`` says how long that took, ``ndcg10_alone``
what the network reaches without the tables.
"""

import argparse
import contextlib
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import DROPOUT, FEED_FORWARD_FACTOR, LEARNING_RATE, Meter, parser, ranked, write
from benchmarks.peers.ranking import figures
from mfn_core.training import worker


def main(options: argparse.Namespace) -> None:
    worker._keep_freed_memory()
    # Imported late, as the worker does: memory is allocated by the rules above from the first tensor on.
    import torch

    from mfn_core.config import NetworkConfig, TrainingConfig
    from mfn_core.data.batch import Batch
    from mfn_core.data.batching import HELD_OUT_EVENTS
    from mfn_core.data.dataset import Dataset
    from mfn_core.inference.predictor import Predictor
    from mfn_core.model.bundle import Bundle
    from mfn_core.model.losses import Losses
    from mfn_core.schema import UNKNOWN
    from mfn_core.training import loop
    from mfn_core.training.blending import fit_blend

    class TimeIsUpError(Exception):
        """The seconds are over."""

    class MeteredRun(loop._Run):
        """The run of the product, which tells a meter of each step and stops when its seconds are over."""

        meter: Meter

        def _losses(self, batch: Batch, num_targets: int | None = None) -> Losses:
            if self.meter.step(len(batch.rows_B), int((batch.targets_BL > UNKNOWN).sum())):
                raise TimeIsUpError
            return super()._losses(batch, num_targets)

        def train(self) -> None:
            """Epochs without validation until the seconds are over."""
            with loop._deterministic(self.device), contextlib.suppress(TimeIsUpError):
                for epoch in itertools.count(1):
                    self._learn(epoch, time.monotonic())

        def finished(self) -> Predictor:
            """The predictor of the averaged and blended network."""
            with loop._deterministic(self.device), self._autocast(), self._average.applied():
                fit_blend(self._network.blend, self._validation.answers(self._network))
                weights = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
            self._network.load_state_dict(weights)
            bundle = Bundle(self._network, self._network_config, self._dataset.vocabularies, dict(self._dataset.attribute_classes), {})
            return Predictor(bundle, "cpu")

    torch.set_num_threads(options.threads)
    meter = Meter(options.seconds)
    dataset = Dataset.open(options.data)
    network_config = NetworkConfig(
        views=("micro",),
        width=options.width,
        num_layers=options.layers,
        num_heads=options.heads,
        feed_forward_factor=options.feed_forward_factor,
        dropout=DROPOUT,
        max_micro_length=options.max_length,
        max_macro_length=1,  # the view that is left out would be padded to this length
    )
    config = TrainingConfig(
        seed=options.seed,
        batch_size=options.batch_size,
        learning_rate=LEARNING_RATE,
        max_epochs=10_000,
        device="cpu",
        precision=options.precision,
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = MeteredRun(dataset, network_config, config, Path(scratch), lambda _: None)
        run.meter = meter
        run.train()
    facts: dict[str, Any] = meter.figures() | {"epochs": meter.epochs(len(run._rows))}
    if options.rank:
        began = time.perf_counter()
        predictor = run.finished()
        rows = (dataset.held_out_B == HELD_OUT_EVENTS).nonzero()[0]
        facts["finish_seconds"] = time.perf_counter() - began
        began = time.perf_counter()
        rank = partial(predictor.rank_targets, dataset.histories, rows, dataset.held_out_B, prefix="test")
        facts |= ranked(rank(), time.perf_counter() - began)
        run._network.blend.shares_K.zero_()
        run._network.blend.popularity_share.zero_()
        facts["ndcg10_alone"] = figures(rank())["ndcg10"]
    write(options, facts, ("torch", "numpy"))


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--feed-forward-factor", type=int, default=FEED_FORWARD_FACTOR, help="4: what the product has by default")
    main(options.parse_args())
