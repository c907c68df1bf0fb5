"""Our own training in SASRec's role: the item view alone, run as ``mfn_core.training.worker`` runs it.

    .venv/bin/python -m benchmarks.peers.mfn_sasrec --data <dataset> --out mfn.json

The steps are those of the product, in its loop: feed, autocast, loss, clipping, optimizer, moving average. Validation and checkpoints
between the epochs are left out, as the peers run without them. After the last step the average is taken and its blend with the tables of
counts fitted on the validation items, as after each epoch of the product; ``finish_seconds`` says how long that took, ``ndcg10_alone``
what the network reaches without the tables.
"""

import argparse
import time
from functools import partial
from typing import Any

from benchmarks.peers.program import DROPOUT, FEED_FORWARD_FACTOR, LEARNING_RATE, Meter, parser, ranked, write
from benchmarks.peers.ranking import figures
from mfn_core.training import worker


def main(options: argparse.Namespace) -> None:
    worker._keep_freed_memory()
    # Imported late, as the worker does: memory is allocated by the rules above from the first tensor on.
    import torch

    from benchmarks.peers.metered_learner import MeteredLearner
    from mfn_core.config import NetworkConfig, TrainingConfig
    from mfn_core.data.dataset import Dataset
    from mfn_core.data.held_out import HELD_OUT_EVENTS

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
        mask_seen="on",  # as all peers rank
    )
    learner = MeteredLearner(dataset, network_config, config, meter)
    learner.train()
    facts: dict[str, Any] = meter.figures() | {"epochs": meter.epochs(len(learner.rows))}
    if options.rank:
        began = time.perf_counter()
        predictor = learner.finished()
        rows = (dataset.held_out_B == HELD_OUT_EVENTS).nonzero()[0]
        facts["finish_seconds"] = time.perf_counter() - began
        began = time.perf_counter()
        rank = partial(predictor.rank_targets, dataset.histories, rows, dataset.held_out_B, prefix="test")
        facts |= ranked(rank(), time.perf_counter() - began)
        learner.network.blend.shares_K.zero_()
        learner.network.blend.popularity_share.zero_()
        facts["ndcg10_alone"] = figures(rank())["ndcg10"]
    write(options, facts, ("torch", "numpy"))


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--feed-forward-factor", type=int, default=FEED_FORWARD_FACTOR, help="4: what the product has by default")
    main(options.parse_args())
