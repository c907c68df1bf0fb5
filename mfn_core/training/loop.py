"""The training run: epochs of Adam at a constant rate, validation after each, a checkpoint after each, the best weights kept.

In the default preset the epochs teach the encoders what comes next, a moving average of the weights is what is validated and kept, and
the labels are learned after the last epoch (``labels.py``). In the paper preset every epoch teaches all tasks at once.
Activity and attribute labels are learned from users of the train split alone; the next item from every user's history up to
the held-out events (leave-one-out). An epoch that ``max_minutes`` cut short is validated like any other, and is the last.

A seed fixes a run: every epoch seeds the generators from (seed, epoch), and on a CPU only deterministic kernels run, so a run
that goes on from the checkpoint of any epoch ends in the same weights, bit for bit (same machine, same number of threads). CUDA
kernels that add in any order keep GPU runs from that.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.model.bundle import save_bundle
from mfn_core.training import BUNDLE, RESULT
from mfn_core.training.blending import fit_blend
from mfn_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mfn_core.training.determinism import deterministic
from mfn_core.training.encoders import read_encoders
from mfn_core.training.journal import Journal
from mfn_core.training.labels import learn_labels
from mfn_core.training.learner import Learner
from mfn_core.training.lessons import digest
from mfn_core.training.progress import Progress, Stop, TrainingResult
from mfn_core.training.ranks import ALONE, Ranks
from mfn_core.training.validation import Validation, score

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
    with deterministic(run.device):
        return run.to_the_end()


def follow(dataset: Dataset, network_config: NetworkConfig, config: TrainingConfig, folder: Path, ranks: Ranks) -> None:
    """Take this process's part in the training of the first process, whose arguments these are, until its encoders are trained.

    Raises:
        As ``train``.
    """
    network_config = network_config.model_copy(update={"width": network_config.encoder_width})
    run = _Run(dataset, network_config, config, folder, lambda _: None, ranks)
    with deterministic(run.device):
        run.follow()


class _Run:
    """One run: what it learns, its journal, and the best weights so far."""

    def __init__(
        self,
        dataset: Dataset,
        network_config: NetworkConfig,
        config: TrainingConfig,
        folder: Path,
        report: Callable[[Progress], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self._dataset, self._network_config, self._config = dataset, network_config, config
        self._folder, self._ranks = folder, ranks
        self._learner = Learner(dataset, network_config, config, ranks)
        self.device = self._learner.device
        self._validation = Validation(dataset, network_config, config)
        self._data_digest = digest(dataset)
        self._identity: dict[str, Any] = {
            "dataset": self._data_digest,
            **network_config.model_dump(mode="json"),
            **config.model_dump(mode="json"),
            # The two keep moments and averages in another order.
            "table updates": "by the row, as one process on a CPU makes them" if self._learner.updates_by_row else "dense",
        }
        self._best_network: dict[str, Tensor] = {}
        self._encoders_stopped: Stop | None = None
        self._journal = Journal(config, report)
        self._resume()

    def take_over(self, folder: Path) -> None:
        """Have the encoders of a finished run, in place of training them."""
        trained = read_encoders(folder, self._data_digest, self._network_config, self._config)
        self._best_network = {**self._learner.network.state_dict(), **trained.weights}
        self._journal.go_on(trained.result.history, trained.result.encoder_seconds)
        self._encoders_stopped = trained.result.stopped

    def to_the_end(self) -> TrainingResult:
        """Epochs until a limit is met, then the bundle and the result."""
        if self._journal.history:
            _log.info("going on from the checkpoint of epoch %d", self._journal.history[-1].epoch)
            self._journal.tell_last()  # whoever listened may have died before hearing of it
        while (stopped := self._ranks.told(self._encoders_stopped or self._journal.stopped())) is None:
            self._epoch(len(self._journal.history) + 1)
        self._learner.network.load_state_dict(self._best_network)
        encoder_seconds = self._journal.seconds
        result = self._result(stopped, self._learn_labels(encoder_seconds), encoder_seconds)
        save_bundle(
            self._folder / BUNDLE,
            self._learner.network.cpu(),
            self._network_config,
            self._dataset.vocabularies,
            self._dataset.attribute_classes,
            self._facts(result),
        )
        _write_json(self._folder / RESULT, result.to_json())
        return result

    def follow(self) -> None:
        """Take part in the epochs of the first process until it stops; it has all that there is to keep."""
        epoch = len(self._journal.history)
        while self._ranks.told(None) is None:
            epoch += 1
            self._learner.learn(epoch, self._journal)

    def _epoch(self, epoch: int) -> None:
        network, journal = self._learner.network, self._journal
        labels_too = network.preset == "paper"
        learned = self._learner.learn(epoch, journal)

        def tick(step: int) -> None:
            if journal.is_report_due:
                num_steps = self._validation.num_steps(labels=labels_too)
                journal.tell("validation", epoch, step, num_steps, learned.losses, learned.users_per_s)

        with self._learner.autocast(), self._learner.average.applied():
            answers = self._validation.answers(network, tick)
            if network.preset == "default":
                fit_blend(network.blend, answers)
            figures = self._validation.measure(network, tick, labels=labels_too, answers=answers)
            taken, of_all = learned.num_steps, self._learner.num_steps
            entry = journal.write(epoch, taken, of_all, learned.losses, learned.users_per_s, figures, score(figures))
            if entry.best_epoch == epoch:
                self._best_network = self._learner.copied_weights()
        self._save()
        journal.tell_last()

    def _learn_labels(self, encoder_seconds: float) -> dict[str, float]:
        """Teach the readers; every figure of the finished network."""
        network, journal, last = self._learner.network, self._journal, self._journal.history[-1]
        if network.preset == "default":

            def tick(step: int, num_steps: int) -> None:
                if journal.is_report_due:
                    journal.tell("labels", last.epoch, step, num_steps, last.losses, last.users_per_s)

            # In float32, as evaluation and serving compute; and autocast would keep its copies of the weights across the steps.
            learn_labels(network, self._dataset, self._network_config, self._config, tick, encoder_seconds)
        # In float32 too, whatever the epochs were measured in.
        return self._validation.measure(network, lambda _: None, labels=True)

    def _resume(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint = load_checkpoint(self._folder, self._identity)
        if checkpoint is None:
            return
        self._learner.network.load_state_dict(checkpoint.network)
        self._learner.adam.load_state_dict(checkpoint.optimizer)
        self._learner.average.load_state_dict(checkpoint.average)
        self._best_network = checkpoint.best_network
        self._journal.go_on(checkpoint.history, checkpoint.seconds)

    def _save(self) -> None:
        save_checkpoint(
            self._folder,
            Checkpoint(
                identity=self._identity,
                network=self._learner.network.state_dict(),
                optimizer=self._learner.adam.state_dict(),
                average=self._learner.average.state_dict(),
                best_network=self._best_network,
                history=self._journal.history,
                seconds=self._journal.seconds,
            ),
        )

    def _result(self, stopped: Stop, figures: dict[str, float], encoder_seconds: float) -> TrainingResult:
        history = self._journal.history
        return TrainingResult(
            data=self._data_digest,
            stopped=stopped,
            epochs=history[-1].epoch,
            best_epoch=history[-1].best_epoch,
            best_score=history[-1].best_score,
            validation=figures,
            num_parameters=sum(parameter.numel() for parameter in self._learner.network.parameters()),
            num_users=len(self._learner.rows),
            device=self.device.type,
            precision=str(self._learner.precision).removeprefix("torch."),
            seconds=self._journal.seconds,
            encoder_seconds=encoder_seconds,
            users_per_s=float(np.median([entry.users_per_s for entry in history])),
            history=history,
        )

    def _facts(self, result: TrainingResult) -> dict[str, Any]:
        return {
            "tasks": list(self._dataset.tasks),
            "cut": self._dataset.cut,
            "horizon_days": self._dataset.horizon_days,
            "mask_seen": self._dataset.masks_seen(self._config.mask_seen),
            "best_epoch": result.best_epoch,
            "validation": result.validation,
        }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
    os.replace(aside, path)
