"""The training run: epochs of Adam at a constant rate, validation after each, a checkpoint after each, the best weights kept.

In the default preset the epochs teach the encoders what comes next, a moving average of the weights is what is validated and kept, and
the labels are learned after the last epoch (``labels.py``). In the paper preset every epoch teaches all tasks at once.
Activity and attribute labels are learned from users of the train split alone; the next item from every user's history up to
the held-out events (leave-one-out).

A seed fixes a run: every epoch seeds the generators from (seed, epoch), and on a CPU only deterministic kernels run, so a run
that goes on from the checkpoint of any epoch ends in the same weights, bit for bit (same machine, same number of threads). CUDA
kernels that add in any order keep GPU runs from that.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.utils.deterministic
from numpy.typing import NDArray
from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.batching import batches, collate
from mfn_core.data.dataset import Dataset
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.errors import PermanentError
from mfn_core.model.builder import build_network, num_category_rows
from mfn_core.model.bundle import save_bundle
from mfn_core.model.losses import Losses, joint_loss, sequence_loss
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.training import BUNDLE, RESULT
from mfn_core.training.averaging import WeightAverage
from mfn_core.training.blending import fit_blend
from mfn_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mfn_core.training.device import pick_device, pick_precision
from mfn_core.training.encoders import read_encoders
from mfn_core.training.feed import feed
from mfn_core.training.graphs import ResidentSteps
from mfn_core.training.labels import learn_labels
from mfn_core.training.lessons import digest, learnable_rows, train_labels
from mfn_core.training.progress import Progress, Stop, TrainingResult
from mfn_core.training.ranks import ALONE, NOBODY, Ranks
from mfn_core.training.resident import ResidentHistories, fits
from mfn_core.training.sampling import sampling_of
from mfn_core.training.step import Adam
from mfn_core.training.validation import Validation, score, window_lengths

_LOSS_NAMES = ("total", "next_item", "next_app", "activity", "attribute", "mutual_information")
_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_PER_EPOCH = 32, 256, 48
_WINDOW = 100  # steps between two looks at the losses: each look makes the host wait for the device
_SECONDS_BETWEEN_REPORTS = 5.0
_log = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    network_config: NetworkConfig,
    config: TrainingConfig,
    folder: Path,
    report: Callable[[Progress], None],
    encoders: Path | None = None,
    ranks: Ranks = ALONE,
) -> TrainingResult:
    """Train to the end, going on from the folder's checkpoint where there is one.

    Args:
        dataset: histories, labels and splits.
        network_config: the network.
        config: optimization and stopping.
        folder: gets ``checkpoint.pt``, and in the end ``bundle/`` (the best weights) and ``result.json``.
        report: told every few seconds, and after every epoch once its checkpoint is on disk; a run that goes on from a
            checkpoint tells its epoch again.
        encoders: folder of a finished run that differs in the labels alone; its encoders are taken over, and its epochs count as this
            run's. Default preset only.
        ranks: the processes that train together, of which this is the first; the others call ``follow``.

    Returns:
        How it went; the same as ``result.json``.

    Raises:
        ArtifactError: the folder's checkpoint, or the encoders, are of other data or settings.
        ConfigError: the device is not there.
        InsufficientDataError: there is nothing to learn from.
        PermanentError: the loss is no longer finite.
    """
    # The bundle and the checkpoint record the width itself: what an empty field means may change.
    network_config = network_config.model_copy(update={"width": network_config.encoder_width})
    run = _Run(dataset, network_config, config, folder, report, ranks)
    if encoders is not None:
        run.take_over(encoders)
    with _deterministic(run.device):
        return run.to_the_end()


def follow(dataset: Dataset, network_config: NetworkConfig, config: TrainingConfig, folder: Path, ranks: Ranks) -> None:
    """Take this process's part in the training of the first process, whose arguments these are, until its encoders are trained.

    Raises:
        As ``train``.
    """
    network_config = network_config.model_copy(update={"width": network_config.encoder_width})
    run = _Run(dataset, network_config, config, folder, lambda _: None, ranks)
    with _deterministic(run.device):
        run.follow()


class _Run:
    """One run: its network, its optimizer, its clock and its history of epochs."""

    def __init__(
        self,
        dataset: Dataset,
        network_config: NetworkConfig,
        config: TrainingConfig,
        folder: Path,
        report: Callable[[Progress], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self.device = pick_device(config.device)
        self._ranks = ranks
        self._dataset, self._network_config, self._config = dataset, network_config, config
        self._folder, self._report = folder, report
        self._precision = pick_precision(config.precision, self.device)
        self._rows = learnable_rows(dataset)
        self._lengths = window_lengths(dataset.histories, network_config)[self._rows]
        self._batch_size = _batch_size(config, network_config, len(self._rows))
        self._num_steps = -(-len(self._rows) // self._batch_size)
        self._activity_B, self._attributes_BA = train_labels(dataset)
        self._is_paper = network_config.preset == "paper"
        self._validation = Validation(dataset, network_config, config)
        _seed_generators(config.seed, 0)
        _tell_shared_rows(dataset.vocabularies, network_config)
        self._network = build_network(network_config, dataset.vocabularies, dataset.attribute_classes)
        self._counted: frozenset[str] = frozenset()
        if isinstance(self._network, MacroMicroFusionNetwork):
            self._network.count(dataset.histories, dataset.held_out_B, may_return=not config.mask_seen)
            self._counted = self._network.counted_names  # as large as the items' tables, and the same in all epochs: never copied
        self._network.to(self.device)
        self._sampling, tables = sampling_of(self._network, dataset, config, self.device, ranks)
        self._average = WeightAverage(self._network, 0.0 if self._is_paper else config.averaging, tables)
        self._adam = Adam(self._network, config, self._average, tables, ranks)
        self._resident_steps = self._resident()
        self._data_digest = digest(dataset)
        self._identity: dict[str, Any] = {
            "dataset": self._data_digest,
            **network_config.model_dump(mode="json"),
            **config.model_dump(mode="json"),
            # The two keep moments and averages in another order.
            "table updates": "by the row, as one process on a CPU makes them" if tables else "dense",
        }
        self._best_network: dict[str, Tensor] = {}
        self._history: list[Progress] = []
        self._seconds_before = 0.0
        self._encoders_stopped: Stop | None = None
        self._started = self._last_report = time.monotonic()
        self._resume()

    def take_over(self, folder: Path) -> None:
        """Have the encoders of a finished run, in place of training them."""
        trained = read_encoders(folder, self._data_digest, self._network_config, self._config)
        self._best_network = {**self._network.state_dict(), **trained.weights}
        self._history = list(trained.result.history)
        self._seconds_before, self._encoders_stopped = trained.result.encoder_seconds, trained.result.stopped

    def to_the_end(self) -> TrainingResult:
        """Epochs until a limit is met, then the bundle and the result."""
        if self._history:
            _log.info("going on from the checkpoint of epoch %d", self._history[-1].epoch)
            self._report(self._history[-1])  # whoever listened may have died before hearing of it
        while (stopped := self._ranks.told(self._encoders_stopped or self._stopped())) is None:
            self._epoch(len(self._history) + 1)
        self._network.load_state_dict(self._best_network)
        encoder_seconds = self._seconds()
        result = self._result(stopped, self._learn_labels(encoder_seconds), encoder_seconds)
        save_bundle(
            self._folder / BUNDLE,
            self._network.cpu(),
            self._network_config,
            self._dataset.vocabularies,
            self._dataset.attribute_classes,
            self._facts(result),
        )
        _write_json(self._folder / RESULT, result.to_json())
        return result

    def follow(self) -> None:
        """Take part in the epochs of the first process until it stops; it has all that there is to keep."""
        epoch = len(self._history)
        while self._ranks.told(None) is None:
            epoch += 1
            self._learn(epoch, time.monotonic())

    def _losses(self, batch: Batch, num_targets: int | None = None) -> Losses:
        share = self._ranks.share(batch)
        if isinstance(self._network, MacroMicroFusionNetwork):
            return sequence_loss(self._network, batch, self._config, self._sampling, num_targets, share)
        return joint_loss(self._network, batch, self._config, self._sampling, num_targets, share)

    def _step(self, batch: Batch, num_targets: int | None = None) -> Tensor:
        """One step of Adam; the losses, in the order of their names. With ``num_targets`` nothing waits for the device."""
        with self._autocast():
            losses = self._losses(batch, num_targets)
        self._adam.step(losses.total)
        return self._ranks.summed(torch.stack([getattr(losses, name).detach().float() for name in _LOSS_NAMES]))

    def _steps(self, order: Iterator[NDArray[np.int64]]) -> Iterator[Tensor]:
        """A step for each batch of positions in the rows; the losses, valid until the next."""
        if self._resident_steps is None:
            yield from map(self._step, feed(self._collate, map(self._ranks.own, order), self.device))
        else:
            yield from self._resident_steps([self._rows[positions] for positions in order])

    def _resident(self) -> ResidentSteps | None:
        """Steps on a GPU that holds all histories; None: batches are collated on the host, as with several processes."""
        if self.device.type != "cuda" or not self._ranks.is_alone or not fits(self._dataset, self.device):
            return None
        labels = (self._activity_B, self._attributes_BA)
        histories = ResidentHistories(self._dataset, self._network_config, *labels, self.device, latest_macro=self._is_paper)
        return ResidentSteps(histories, self._step, self.device)

    def _learn_labels(self, encoder_seconds: float) -> dict[str, float]:
        """Teach the readers; every figure of the finished network."""
        last = self._history[-1]
        if isinstance(self._network, MacroMicroFusionNetwork):

            def tick(step: int, num_steps: int) -> None:
                if self._is_report_due():
                    self._tell("labels", last.epoch, step, num_steps, last.losses, last.users_per_s)

            # In float32, as evaluation and serving compute; and autocast would keep its copies of the weights across the steps.
            learn_labels(self._network, self._dataset, self._network_config, self._config, tick, encoder_seconds)
        # In float32 too, whatever the epochs were measured in.
        return self._validation.measure(self._network, lambda _: None, labels=True)

    def _resume(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint = load_checkpoint(self._folder, self._identity)
        if checkpoint is None:
            return
        self._network.load_state_dict(checkpoint.network)
        self._adam.load_state_dict(checkpoint.optimizer)
        self._average.load_state_dict(checkpoint.average)
        self._best_network = checkpoint.best_network
        self._history = list(checkpoint.history)
        self._seconds_before = checkpoint.seconds

    def _stopped(self) -> Stop | None:
        if not self._history:
            return None
        last = self._history[-1]
        if last.epoch >= self._config.max_epochs:
            return "max_epochs"
        if last.epoch - last.best_epoch >= self._config.patience:
            return "patience"
        return "max_minutes" if self._seconds() >= self._config.max_minutes * 60 else None

    def _epoch(self, epoch: int) -> None:
        began = time.monotonic()
        losses = self._learn(epoch, began)
        users_per_s = len(self._rows) / (time.monotonic() - began)

        def tick(step: int) -> None:
            if self._is_report_due():
                self._tell("validation", epoch, step, self._validation.num_steps(labels=self._is_paper), losses, users_per_s)

        with self._autocast(), self._average.applied():
            answers = self._validation.answers(self._network, tick)
            if isinstance(self._network, MacroMicroFusionNetwork):
                fit_blend(self._network.blend, answers)
            figures = self._validation.measure(self._network, tick, labels=self._is_paper, answers=answers)
            reached = score(figures)
            best = self._best(epoch, reached)
            if best[0] == epoch:
                self._best_network = {
                    name: tensor if name in self._counted else tensor.to("cpu", copy=True)
                    for name, tensor in self._network.state_dict().items()
                }
        progress = Progress(
            phase="epoch",
            epoch=epoch,
            max_epochs=self._config.max_epochs,
            step=self._num_steps,
            num_steps=self._num_steps,
            losses=losses,
            validation=figures,
            score=reached,
            best_epoch=best[0],
            best_score=best[1],
            users_per_s=users_per_s,
            seconds_left=self._seconds_left(epoch),
        )
        self._history.append(progress)
        self._save()
        self._last_report = time.monotonic()
        self._report(progress)

    def _learn(self, epoch: int, began: float) -> dict[str, float]:
        """One pass over the users; the mean losses."""
        _seed_generators(self._config.seed, epoch, self._ranks.rank)
        self._network.train()
        window = torch.zeros(_WINDOW, len(_LOSS_NAMES), device=self.device)
        totals = np.zeros(len(_LOSS_NAMES))
        read = 0
        order = batches(self._lengths, self._batch_size, seed=self._config.seed, epoch=epoch, shuffle=True)
        for step, losses in enumerate(self._steps(order), start=1):
            self._average.update()
            window[step - read - 1] = losses
            is_due = self._is_report_due()
            if step - read == _WINDOW or step == self._num_steps or is_due:
                totals += self._checked(window[: step - read].double().cpu().numpy(), epoch, read)
                read = step
            if is_due and step < self._num_steps:
                users_per_s = min(step * self._batch_size, len(self._rows)) / (time.monotonic() - began)
                self._tell("training", epoch, step, self._num_steps, _named(totals / step), users_per_s)
        self._check_weights(epoch)
        return _named(totals / self._num_steps)

    def _collate(self, positions: NDArray[np.int64]) -> Batch:
        is_user_B = positions != NOBODY
        batch = collate(
            self._dataset.histories,
            self._rows[positions],
            prefix="train",
            held_out_B=self._dataset.held_out_B,
            max_macro_length=self._network_config.max_macro_length,
            max_micro_length=self._network_config.max_micro_length,
            activity_B=self._activity_B,
            attributes_BA=self._attributes_BA,
            query_time=self._dataset.cut,
            latest_macro=self._is_paper,
        )
        return batch if is_user_B.all() else batch.only(torch.from_numpy(is_user_B))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._precision is torch.bfloat16)

    def _checked(self, losses_SN: NDArray[np.float64], epoch: int, steps_before: int) -> NDArray[np.float64]:
        """Sums over the steps of a window.

        Raises:
            PermanentError: a loss is infinite or no number.
        """
        broken = np.flatnonzero(~np.isfinite(losses_SN).all(axis=1))
        if len(broken):
            values = ", ".join(f"{name}={value:.6g}" for name, value in zip(_LOSS_NAMES, losses_SN[broken[0]], strict=True))
            raise PermanentError(
                f"training diverged in epoch {epoch}, step {steps_before + broken[0] + 1} of {self._num_steps}: {values}; {self._remedy()}"
            )
        return losses_SN.sum(axis=0)

    def _check_weights(self, epoch: int) -> None:
        """The loss of a step is of the weights before it: what the last step of an epoch broke shows in the weights alone.

        Raises:
            PermanentError: a weight is infinite or no number.
        """
        largest = {name: torch.linalg.vector_norm(weights.detach(), torch.inf) for name, weights in self._network.named_parameters()}
        broken = [name for name, value in largest.items() if not value.isfinite()]
        if broken:
            raise PermanentError(
                f"training diverged in epoch {epoch}, step {self._num_steps} of {self._num_steps}: {len(broken)} of {len(largest)} weights "
                f"are not finite, {broken[0]} among them; {self._remedy()}"
            )

    def _remedy(self) -> str:
        return (
            f"learning_rate={self._config.learning_rate:g} and gradient_clip={self._config.gradient_clip:g}: "
            f"lower one of them, or set precision=float32"
        )

    def _best(self, epoch: int, now: float | None) -> tuple[int, float | None]:
        """Epoch and score of the best weights. Without a score the latest are the best."""
        last = self._history[-1] if self._history else None
        if last is None or now is None or last.best_score is None or now > last.best_score:
            return epoch, now
        return last.best_epoch, last.best_score

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _seconds_left(self, epochs_done: float) -> float:
        """At most this many seconds are left, at the pace so far: by the epochs to go and by ``max_minutes``."""
        seconds = self._seconds()
        by_epochs = seconds / epochs_done * (self._config.max_epochs - epochs_done)
        return min(by_epochs, max(self._config.max_minutes * 60 - seconds, 0.0))

    def _is_report_due(self) -> bool:
        return time.monotonic() - self._last_report >= _SECONDS_BETWEEN_REPORTS

    def _tell(
        self,
        phase: Literal["training", "validation", "labels"],
        epoch: int,
        step: int,
        num_steps: int,
        losses: dict[str, float],
        users_per_s: float,
    ) -> None:
        last = self._history[-1] if self._history else None
        progress = Progress(
            phase=phase,
            epoch=epoch,
            max_epochs=self._config.max_epochs,
            step=step,
            num_steps=num_steps,
            losses=losses,
            validation={},
            score=None,
            best_epoch=last.best_epoch if last else 0,
            best_score=last.best_score if last else None,
            users_per_s=users_per_s,
            seconds_left=self._seconds_left(epoch - 1 + step / num_steps if phase == "training" else epoch),
        )
        self._last_report = time.monotonic()
        self._report(progress)

    def _save(self) -> None:
        save_checkpoint(
            self._folder,
            Checkpoint(
                identity=self._identity,
                network=self._network.state_dict(),
                optimizer=self._adam.state_dict(),
                average=self._average.state_dict(),
                best_network=self._best_network,
                history=tuple(self._history),
                seconds=self._seconds(),
            ),
        )

    def _result(self, stopped: Stop, figures: dict[str, float], encoder_seconds: float) -> TrainingResult:
        last = self._history[-1]
        return TrainingResult(
            data=self._data_digest,
            stopped=stopped,
            epochs=last.epoch,
            best_epoch=last.best_epoch,
            best_score=last.best_score,
            validation=figures,
            num_parameters=sum(parameter.numel() for parameter in self._network.parameters()),
            num_users=len(self._rows),
            device=self.device.type,
            precision=str(self._precision).removeprefix("torch."),
            seconds=self._seconds(),
            encoder_seconds=encoder_seconds,
            users_per_s=float(np.median([progress.users_per_s for progress in self._history])),
            history=tuple(self._history),
        )

    def _facts(self, result: TrainingResult) -> dict[str, Any]:
        return {
            "tasks": list(self._dataset.tasks),
            "cut": self._dataset.cut,
            "horizon_days": self._dataset.horizon_days,
            "mask_seen": self._config.mask_seen,
            "best_epoch": result.best_epoch,
            "validation": result.validation,
        }


def _batch_size(config: TrainingConfig, network_config: NetworkConfig, num_users: int) -> int:
    """The setting, else the source's 256; in the default preset fewer where few users would make few steps an epoch."""
    if config.batch_size is not None:
        return config.batch_size
    if network_config.preset == "paper":
        return _LARGEST_BATCH
    return int(np.clip(2 ** round(np.log2(num_users / _STEPS_PER_EPOCH)), _SMALLEST_BATCH, _LARGEST_BATCH))


def _tell_shared_rows(vocabularies: Vocabularies, config: NetworkConfig) -> None:
    """Say which share of a view's events is of categories that have no row of their own."""
    for view, categories in (("app", vocabularies.macro_category), ("item", vocabularies.micro_category)):
        shared = categories.counts[num_category_rows(categories, config.max_categories) :]
        if len(shared):
            _log.warning(
                "the %d rarest of %d %s categories, %.1f %% of the view's events, share one row to labels and alignment: max_categories=%d",
                len(shared),
                len(categories.tokens),
                view,
                100 * shared.sum() / categories.counts.sum(),
                config.max_categories,
            )


def _seed_generators(seed: int, epoch: int, rank: int = 0) -> None:
    entropy = [seed, epoch, rank] if rank else [seed, epoch]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


@contextmanager
def _deterministic(device: torch.device) -> Generator[None]:
    """On a CPU, only kernels that add in a fixed order: ``index_put_`` and its like race otherwise."""
    switches: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), switches.fill_uninitialized_memory
    torch.use_deterministic_algorithms(device.type == "cpu")
    switches.fill_uninitialized_memory = False  # it would write every new tensor twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        switches.fill_uninitialized_memory = before[1]


def _named(losses: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(_LOSS_NAMES, losses.tolist(), strict=True))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
    os.replace(aside, path)
