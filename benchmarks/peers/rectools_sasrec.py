"""SASRec of RecTools, trained by its own ``fit`` with ``loss="softmax"``: the full cross-entropy at every position.

    .venv-rectools/bin/python -m benchmarks.peers.rectools_sasrec --sequences sequences.npz --out rectools.json

RecTools' are the data preparation, the batches, the network, the loss, Adam and the Lightning trainer, and of the evaluation the states
of users and items. The ranks are made by ``ranking.py``: ``recommend`` cannot say at which rank a target stands.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from benchmarks.peers.program import (
    DROPOUT,
    ENDLESS,
    LEARNING_RATE,
    RANKING_BATCH,
    Meter,
    Ranking,
    Sequences,
    parser,
    ranked,
    write,
)

_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


class Metered(Callback):
    """Tells the meter of each step and stops the trainer, which takes that one step more, when the seconds are over."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __deepcopy__(self, memo: dict[int, object]) -> "Metered":
        """RecTools trains with a copy of its trainer; the meter stays the same."""
        return self

    def on_train_batch_start(self, trainer: Trainer, model: object, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Begin a step."""
        if not trainer.should_stop and self._meter.step(len(batch["x"]), int(((batch["x"] != 0) & (batch["y"] != 0)).sum())):
            trainer.should_stop = True


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    seed_everything(options.seed)
    meter = Meter(options.seconds)
    sequences = Sequences.read(options.sequences)
    training = interactions(sequences.training())
    model = SASRecModel(
        n_blocks=options.layers,
        n_heads=options.heads,
        n_factors=options.width,
        dropout_rate=DROPOUT,
        session_max_len=options.max_length,
        batch_size=options.batch_size,
        lr=LEARNING_RATE,
        loss="softmax",
        recommend_batch_size=RANKING_BATCH,
        get_trainer_func=lambda: Trainer(
            accelerator="cpu",
            devices=1,
            precision=_PRECISIONS[options.precision],
            max_epochs=ENDLESS,
            min_epochs=0,
            callbacks=[Metered(meter)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        ),
    )
    model.fit(Dataset.construct(training))
    facts = meter.figures() | {"epochs": meter.epochs(training[Columns.User].nunique())}
    if options.rank:
        began = time.perf_counter()
        ranking = Ranking(sequences)
        score(model, ranking, sequences.num_items)
        facts |= ranked(ranking.ranks_B, time.perf_counter() - began)
    write(options, facts, ("rectools", "torch", "pytorch-lightning", "numpy"))


def interactions(sequences: Sequences) -> pd.DataFrame:
    """The table that RecTools reads; its times are the positions."""
    return pd.DataFrame(
        {
            Columns.User: sequences.users,
            Columns.Item: sequences.items,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(sequences.positions, unit="s"),
        }
    )


def score(model: SASRecModel, ranking: Ranking, num_items: int) -> None:
    """Give the ranking the scores of all users; -inf for items that RecTools has never trained on."""
    asked = interactions(ranking.asked)
    prepared = model.data_preparator.transform_dataset_u2i(Dataset.construct(asked), asked[Columns.User].unique())
    loader = model.data_preparator.get_dataloader_recommend(prepared, RANKING_BATCH)
    user_BD, item_ND = model.lightning_model._get_user_item_embeddings(loader, "cpu")
    users = prepared.user_id_map.external_ids.astype(np.int64)
    items = model.data_preparator.get_known_item_ids().astype(np.int64)
    known_ND = item_ND[model.data_preparator.get_known_items_sorted_internal_ids()]
    for start in range(0, len(users), RANKING_BATCH):
        rows = slice(start, start + RANKING_BATCH)
        scores_BN = np.full((len(users[rows]), num_items), -np.inf, np.float32)
        scores_BN[:, items] = (user_BD[rows] @ known_ND.T).numpy()
        ranking.take(users[rows], scores_BN)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(parser(__doc__).parse_args())
