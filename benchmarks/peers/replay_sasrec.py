"""SASRec of RePlay by its present API: ``replay.nn.sequential.SasRec`` in ``replay.nn.lightning``, fed by ``ParquetModule``.

    .venv-replay/bin/python -m benchmarks.peers.replay_sasrec --sequences sequences.npz --out replay.json

RePlay's are the batches, their transforms, the network, the loss, Adam and the scores. Of its losses these are a softmax over the whole
catalogue: ``CE`` and ``CEWeighted``, which compute the scores of padding too; ``LogInCE``, which leaves padding out, but adds 1e-6 to the
probability before the logarithm; and ``CESampled`` with all items as negatives, which leaves padding out and is exact. The last is the
default: as fast as ``CE`` where histories fill the window, and twice as fast where they are short. ``--bucket-size`` encodes users of like
length together without their common padding, which RePlay can in float32 alone.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.data.nn.parquet.parquet_module import ParquetModule
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import TorchTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.loss import CE, CESampled, LogInCE
from replay.nn.sequential import LengthBucketedQueryEncoder, SasRec
from replay.nn.transform.template import make_default_sasrec_transforms

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

TOP_ITEMS = 10
_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
_USER, _ITEM = "user_id", "item_id"


class Metered(lightning.Callback):
    """Tells the meter of each step and stops the trainer, which takes that one step more, when the seconds are over.

    RePlay learns the first event of a short history from padding; that target is not counted.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_train_batch_start(self, trainer: lightning.Trainer, module: LightningModule, batch: dict[str, Any], batch_idx: int) -> None:
        """Begin a step."""
        is_target = batch["target_padding_mask"].squeeze(-1) & batch["padding_mask"]
        if not trainer.should_stop and self._meter.step(len(is_target), int(is_target.sum())):
            trainer.should_stop = True


class Ranked(lightning.Callback):
    """Gives the ranking the scores of each batch, as RePlay's own callbacks take them."""

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    def on_predict_batch_end(
        self, trainer: lightning.Trainer, module: LightningModule, outputs: dict[str, Any], batch: dict[str, Any], *_: int
    ) -> None:
        """Take the scores in."""
        self._ranking.take(batch[_USER].numpy(), outputs["logits"].float().numpy())


class AllItems(torch.nn.Module):
    """Makes every item a negative of ``CESampled``."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.register_buffer("items", torch.arange(num_items))

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with negatives."""
        return batch | {"negative_labels": self.items}


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    lightning.seed_everything(options.seed)
    meter = Meter(options.seconds)
    sequences = Sequences.read(options.sequences)
    with tempfile.TemporaryDirectory() as scratch:
        module = LightningModule(network(options, sequences.num_items), OptimizerFactory(learning_rate=LEARNING_RATE))
        training = sequences.training()
        trainer(options, max_epochs=ENDLESS, min_epochs=0, callbacks=[Metered(meter)]).fit(
            module, data(options, training, "train", Path(scratch))
        )
        facts = meter.figures() | {"epochs": meter.epochs(len(np.unique(training.users)))}
        if options.rank:
            began = time.perf_counter()
            ranking = Ranking(sequences)
            answer = Ranked(ranking) if options.answer == "ranks" else TorchTopItemsCallback(TOP_ITEMS, _USER)
            predictor = trainer(options, callbacks=[answer])
            predictor.predict(module, data(options, ranking.asked, "predict", Path(scratch)), return_predictions=False)
            facts |= ranked(ranking.ranks_B, time.perf_counter() - began)
    write(options, facts, ("replay-rec", "torch", "lightning", "numpy"))


def network(options: argparse.Namespace, num_items: int) -> SasRec:
    """What ``SasRec.from_params`` makes, with the loss that is asked for."""
    model = SasRec.from_params(
        schema(num_items, options.width),
        embedding_dim=options.width,
        num_heads=options.heads,
        num_blocks=options.layers,
        max_sequence_length=options.max_length,
        dropout=DROPOUT,
    )
    if options.bucket_size:
        model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, options.bucket_size)
    losses = {"CE": lambda: CE(ignore_index=num_items), "LogInCE": lambda: LogInCE(num_items), "CESampled": CESampled}
    return SasRec(model.body, losses[options.loss]())


def schema(num_items: int, width: int) -> TensorSchema:
    """One feature: the item."""
    return TensorSchema(
        [
            TensorFeatureInfo(
                _ITEM,
                FeatureType.CATEGORICAL,
                is_seq=True,
                feature_hint=FeatureHint.ITEM_ID,
                feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, _ITEM)],
                cardinality=num_items,
                padding_value=num_items,
                embedding_dim=width,
            )
        ]
    )


def data(options: argparse.Namespace, sequences: Sequences, stage: str, folder: Path) -> ParquetModule:
    """RePlay's loader of a file with a row for each user; when training, of one event more than is read, the last target."""
    path = folder / f"{stage}.parquet"
    users, items = sequences.rows()
    pq.write_table(pa.table({_USER: users, _ITEM: items}), path)
    is_training = stage == "train"
    transforms = make_default_sasrec_transforms(schema(sequences.num_items, options.width))
    if is_training and options.loss == "CESampled":
        transforms["train"].append(AllItems(sequences.num_items))
    return ParquetModule(
        batch_size=options.batch_size if is_training else RANKING_BATCH,
        metadata={stage: {_USER: {}, _ITEM: {"shape": options.max_length + is_training, "padding": sequences.num_items}}},
        transforms={stage: transforms[stage]},
        **{f"{stage}_path": str(path)},
    )


def trainer(options: argparse.Namespace, **more: Any) -> lightning.Trainer:
    """Lightning's trainer without what a measurement does not need."""
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        precision=_PRECISIONS[options.precision],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        **more,
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    options = parser(__doc__)
    options.add_argument("--loss", choices=("CE", "LogInCE", "CESampled"), default="CESampled")
    options.add_argument("--bucket-size", type=int, default=0, help="rows of like length that RePlay encodes together; 0: all rows at once")
    options.add_argument("--answer", choices=("ranks", "top"), default="ranks", help="top: its own best items, seen ones too")
    main(options.parse_args())
