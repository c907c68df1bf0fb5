"""Train SASRec, GRU4Rec or BERT4Rec with RecBole on our atomic files, and rank the held-out items by our own rules.

    .venv-bench/bin/python -m benchmarks.recbole.run --data <dataset> --model SASRec --out <folder>

RecBole's are the data loading, the rows of training, the network, the loss, the optimizer, the early stopping and the scores
(``full_sort_predict``). Ours are the split, the ranks, and the figure that stops early: NDCG@10 of the validation targets.
"""

import argparse
import contextlib
import copy
import itertools
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data import data_preparation
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from benchmarks.recbole import atomic_files
from benchmarks.recbole.atomic_files import HeldOut
from mfn_core.data.dataset import Dataset
from mfn_core.metrics import ranking_metrics
from mfn_core.schema import SPLITS, MaskSeen
from tasks.comparison.recbole import SECONDS
from tasks.held_out import held_out_rows

LEARNING_RATES = (1e-3, 3e-4)
WIDTHS = (64, 128)
DROPOUTS = {"SASRec": (0.5, 0.2), "GRU4Rec": (0.3, 0.5), "BERT4Rec": (0.2, 0.5)}  # RecBole's default first
DECISIVE = "ndcg@10"

Settings = dict[str, float]


def grid(model: str) -> list[Settings]:
    """What tuning tries, RecBole's defaults first."""
    combinations = itertools.product(LEARNING_RATES, WIDTHS, DROPOUTS[model])
    return [{"learning_rate": rate, "width": width, "dropout": dropout} for rate, width, dropout in combinations]


def in_recbole_words(model: str, settings: Settings) -> dict[str, float]:
    """The settings by the names that the model has for them; a Transformer's inner layer is 4, a GRU's state 2 times as wide."""
    width, dropout = settings["width"], settings["dropout"]
    common = {"learning_rate": settings["learning_rate"]}
    if model == "GRU4Rec":
        return common | {"embedding_size": width, "hidden_size": 2 * width, "dropout_prob": dropout}
    return common | {"hidden_size": width, "inner_size": 4 * width, "hidden_dropout_prob": dropout, "attn_dropout_prob": dropout}


class OurSplit(SequentialDataset):
    """RecBole's rows, one for each prefix of a history, split as our dataset is."""

    ours: Dataset

    def leave_one_out(self, group_by: str, leave_one_mode: str) -> list[SequentialDataset]:
        """Training, validation and test rows. RecBole's own split differs for histories of three events, see ``atomic_files.export``."""
        rows = numbers(self, group_by)[self.inter_feat[group_by].numpy()]
        positions = self.inter_feat[self.time_field].numpy().astype(np.int64)
        split = atomic_files.split_of_targets(self.ours, rows, positions)
        return [self.copy(self.inter_feat[np.flatnonzero(split == number)]) for number in range(len(SPLITS))]


class OutOfTimeError(Exception):
    """The minutes of a trial are over."""


class OurTrainer(Trainer):
    """RecBole's trainer with our validation figure, a limit of time, and the best weights kept in memory."""

    def __init__(self, config: Config, model: torch.nn.Module, ours: Dataset, rows_per_epoch: int, seconds: float, mask_seen: bool) -> None:
        super().__init__(config, model)
        self.ours = ours
        self.batches_per_epoch = max(1, rows_per_epoch // config["train_batch_size"])
        self.deadline = time.monotonic() + seconds
        self.mask_seen = mask_seen
        self.best_state: dict[str, torch.Tensor] = {}
        self.best_epoch = -1

    def ranks(self, loader: Any, split: HeldOut) -> NDArray[np.float32]:
        """Rank of every held-out user's target; a user without a known item before it gets what constant scores would give."""
        held_out = held_out_rows(self.ours)
        place = np.full(len(self.ours), -1)
        place[held_out] = np.arange(len(held_out))
        ranks_B = np.full(len(held_out), np.nan, np.float32)
        for rows, scores_BN in self.scores(loader):
            ranks_B[place[rows]] = atomic_files.target_ranks(self.ours, rows, scores_BN, split=split, mask_seen=self.mask_seen)
        unasked = np.flatnonzero(np.isnan(ranks_B))
        constant_BN = torch.zeros(1, 1).expand(len(unasked), len(self.ours.vocabularies.micro_id))
        ranks_B[unasked] = atomic_files.target_ranks(self.ours, held_out[unasked], constant_BN, split=split, mask_seen=self.mask_seen)
        return ranks_B

    @torch.no_grad()
    def scores(self, loader: Any) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """Users and their scores, both in the dataset's numbers."""
        users, items = numbers(loader.dataset, "user_id"), numbers(loader.dataset, "item_id")
        self.model.eval()
        for interaction, *_ in loader:
            said_BN = self.model.full_sort_predict(interaction.to(self.device))
            scores_BN = torch.full((len(said_BN), len(self.ours.vocabularies.micro_id)), atomic_files.NOT_KNOWN)
            scores_BN[:, items[1:]] = said_BN[:, 1:].cpu()
            yield users[interaction["user_id"].cpu().numpy()], scores_BN

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, Any]]:
        figures = ranking_metrics(self.ranks(valid_data, "validation"))
        assert figures[DECISIVE] is not None
        return figures[DECISIVE], figures

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        return super()._train_epoch(self._some(train_data), epoch_idx, loss_func, show_progress)

    def _some(self, train_data: Any) -> Iterator[Interaction]:
        for interaction in itertools.islice(train_data, self.batches_per_epoch):
            # BERT4Rec divides by the number of masked events, the first of a history not counted: a small batch may have none.
            if "MASK_INDEX" in interaction.interaction and not (interaction["MASK_INDEX"] > 0).any():
                continue
            yield interaction
            if time.monotonic() > self.deadline:
                return

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        # RecBole pickles its config into the file, which torch.load refuses to read back since 2.6.
        self.best_state = copy.deepcopy(self.model.state_dict())
        self.best_epoch = epoch

    def stop_in_time(self, epoch_idx: int, valid_score: float) -> None:
        """For RecBole's ``callback_fn``, which is called after each validation."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError


@dataclass(frozen=True)
class Trial:
    """One setting, trained."""

    settings: Settings
    validation: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float
    ranks_B: NDArray[np.float32]  # of the test targets

    def facts(self) -> dict[str, Any]:
        """All but the ranks."""
        return {name: value for name, value in vars(self).items() if name != "ranks_B"}


def numbers(dataset: SequentialDataset, field: str) -> NDArray[np.int64]:
    """Our number of each of RecBole's; -1 for its padding."""
    return np.array([-1, *(int(token) for token in dataset.field2id_token[field][1:])])


def network(model: str, config: Config, train_data: Any) -> torch.nn.Module:
    """RecBole's network, on its device, to be trained without torch's anomaly detection.

    Finding a model imports all of RecBole's, and the module SINE sets the detection for whoever trains after: slower, with the same result.
    """
    made = get_model(model)(config, train_data.dataset).to(config["device"])
    torch.autograd.set_detect_anomaly(False)
    return made


def train(options: argparse.Namespace, settings: Settings, config: Config, loaders: tuple[Any, Any, Any], ours: Dataset) -> Trial:
    """Train one setting until it stops getting better, or its minutes are over."""
    started = time.monotonic()
    train_data, valid_data, test_data = loaders
    for name, value in in_recbole_words(options.model, settings).items():
        config[name] = value
    init_seed(options.seed, reproducibility=True)
    train_data.generator.manual_seed(options.seed)  # a trial is the same whatever was tried before it
    model = network(options.model, config, train_data)
    trainer = OurTrainer(config, model, ours, options.rows_per_epoch, 60 * options.minutes, options.mask_seen)
    with contextlib.suppress(OutOfTimeError):
        trainer.fit(train_data, valid_data, verbose=False, callback_fn=trainer.stop_in_time)
    model.load_state_dict(trainer.best_state)
    return Trial(
        settings=settings,
        validation=trainer.best_valid_result,
        best_epoch=trainer.best_epoch + 1,
        epochs=len(trainer.train_loss_dict),
        seconds=round(time.monotonic() - started, 1),
        ranks_B=trainer.ranks(test_data, "test"),
    )


def prepare(options: argparse.Namespace, ours: Dataset, folder: Path) -> tuple[Config, tuple[Any, Any, Any]]:
    """RecBole's config and its loaders of training, validation and test rows."""
    atomic_files.export(ours, folder / "exported")
    words = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": options.max_length,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": options.batch_size,
        "eval_batch_size": 512,
        "epochs": options.epochs,
        "stopping_step": options.patience,
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "checkpoint_dir": str(folder),
        "seed": options.seed,
    }
    sys.argv = sys.argv[:1]  # RecBole takes every --name=value of the command line for a setting of its own
    config = Config(model=options.model, dataset="exported", config_dict=words)
    rows = OurSplit(config)
    rows.ours = ours
    return config, data_preparation(config, rows)


def facts_of(options: argparse.Namespace, trials: list[Trial], best: Trial, seconds: float) -> dict[str, Any]:
    """What the JSON says of a run."""
    limits = ("epochs", "minutes", "patience", "rows_per_epoch", "batch_size", "max_length", "mask_seen")
    return {
        "model": options.model,
        "seed": options.seed,
        **best.facts(),
        SECONDS: round(seconds, 1),
        "trials": [trial.facts() for trial in trials],
        "options": {name: getattr(options, name) for name in limits},
        "versions": {name: version(name) for name in ("recbole", "torch")},
    }


def run(options: argparse.Namespace) -> None:
    """Tune on validation, then write the winner's test ranks and its figures."""
    started = time.monotonic()
    ours, out = Dataset.open(options.data), options.out.resolve()
    options.mask_seen = ours.masks_seen(options.mask_seen)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [json.loads(options.settings_of.read_text())["settings"]] if options.settings_of else None
    trials: list[Trial] = []
    # RecBole writes TensorBoard files into the working directory.
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        config, loaders = prepare(options, ours, Path(scratch))
        for settings in chosen or grid(options.model)[: options.trials]:
            trials.append(train(options, settings, config, loaders, ours))
            print(json.dumps(trials[-1].facts()), flush=True)
    best = max(trials, key=lambda trial: trial.validation[DECISIVE])
    stem = f"{options.model}-{options.seed}"
    pq.write_table(atomic_files.scores_table(ours, best.ranks_B, split="test", mask_seen=options.mask_seen), out / f"{stem}.parquet")
    facts = facts_of(options, trials, best, time.monotonic() - started)
    (out / f"{stem}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(f"{stem}, test of {len(best.ranks_B)} users: {ranking_metrics(best.ranks_B)}")


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of a dataset, as build_dataset writes it")
    parser.add_argument("--model", choices=sorted(DROPOUTS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="<model>-<seed>.parquet and .json are written here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trials", type=int, choices=range(1, 9), default=4, help="settings to try on validation; the first are RecBole's defaults"
    )
    parser.add_argument("--settings-of", type=Path, help="the .json of another run: its settings are used and none are tried")
    parser.add_argument("--epochs", type=int, default=200, help="at most, per trial")
    parser.add_argument("--minutes", type=float, default=30, help="at most, per trial")
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better validation figure")
    parser.add_argument("--rows-per-epoch", type=int, default=200_000, help="at most; drawn anew. RecBole has a row for each event")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--max-length", type=int, default=50, help="latest events that a model reads")
    parser.add_argument(
        "--mask-seen",
        choices=get_args(MaskSeen),
        default="auto",
        help="whether to leave out what the user has met; auto: unless many return",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning, module="recbole")  # RecBole names torch's GradScaler by its old place
    run(options_of(sys.argv[1:]))
