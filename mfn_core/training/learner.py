"""A network that is taught: the users it learns from, their batches, a step, a pass over all of them."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batch import Batch
from mfn_core.data.batching import batches, collate
from mfn_core.data.dataset import Dataset
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.model.builder import build_network, num_category_rows
from mfn_core.model.losses import LOSS_NAMES, Losses, joint_loss, sequence_loss
from mfn_core.training.averaging import WeightAverage
from mfn_core.training.determinism import seed_generators
from mfn_core.training.device import pick_device, pick_precision
from mfn_core.training.divergence import FiniteCheck
from mfn_core.training.feed import Rows, feed
from mfn_core.training.graphs import ResidentSteps
from mfn_core.training.journal import Journal
from mfn_core.training.lessons import learnable_rows, train_labels
from mfn_core.training.ranks import ALONE, NOBODY, Ranks
from mfn_core.training.resident import ResidentHistories, fits
from mfn_core.training.sampling import sampling_of
from mfn_core.training.step import Adam
from mfn_core.training.tally import Tally
from mfn_core.training.validation import window_lengths

_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_PER_EPOCH = 32, 256, 48
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """What a pass over the users came to. ``losses`` are means over the steps taken, by name."""

    num_steps: int  # taken
    losses: dict[str, float]
    users_per_s: float


class Learner:
    """The network of a run with its samplers, its optimizer and the moving average of its weights, on a device.

    Args:
        dataset: histories, labels and splits.
        network_config: the network.
        config: optimization.
        ranks: the processes that train together.

    Raises:
        ConfigError: the device, or its precision, is not there.
        InsufficientDataError: there is nothing to learn from.
    """

    def __init__(self, dataset: Dataset, network_config: NetworkConfig, config: TrainingConfig, ranks: Ranks = ALONE) -> None:
        self._dataset, self._network_config, self._config, self._ranks = dataset, network_config, config, ranks
        self.device = pick_device(config.device)
        self.precision = pick_precision(config.precision, self.device)
        self.rows = learnable_rows(dataset)
        self._lengths = window_lengths(dataset.histories, network_config)[self.rows]
        self._activity_B, self._attributes_BA = train_labels(dataset)
        self.batch_size = batch_size_of(config, network_config, len(self.rows))
        self.num_steps = -(-len(self.rows) // self.batch_size)  # of a whole pass
        seed_generators(config.seed, 0)
        _tell_shared_rows(dataset.vocabularies, network_config)
        _tell_returning(dataset, config)
        self.network = build_network(network_config, dataset.vocabularies, dataset.attribute_classes)
        self.network.count(dataset.histories, dataset.held_out_B, may_return=not dataset.masks_seen(config.mask_seen))
        self._unchanged = self.network.unchanged_names
        self._is_paper = self.network.preset == "paper"
        self.network.to(self.device)
        self.sampling, tables = sampling_of(self.network, dataset, config, self.device, ranks)
        self.updates_by_row = bool(tables)
        self.average = WeightAverage(self.network, 0.0 if self._is_paper else config.averaging, tables, self._unchanged)
        self.adam = Adam(self.network, config, self.average, tables, ranks)
        # None: batches are collated on the host, as with several processes.
        self.resident_steps: ResidentSteps | None = None
        if self.device.type == "cuda" and ranks.is_alone and fits(dataset, self.device):
            self.keep_histories()

    def keep_histories(self) -> None:
        """Have all histories on the device, and take every step to come on them."""
        labels = (self._activity_B, self._attributes_BA)
        histories = ResidentHistories(self._dataset, self._network_config, *labels, self.device, latest_macro=self._is_paper)
        self.resident_steps = ResidentSteps(histories, self.step, self.device)

    def learn(self, epoch: int, journal: Journal) -> Learned:
        """One pass over the users, which starts its generators from (seed, epoch); cut short where the time is up.

        Args:
            epoch: from 1.
            journal: hears of it every few seconds, and knows the time; that of the first process is asked, every hundred steps.

        Raises:
            PermanentError: a loss or a weight is no longer finite.
        """
        began = time.monotonic()
        rank = [self._ranks.rank] if self._ranks.rank else []  # the first process draws what one alone would
        seed_generators(self._config.seed, epoch, *rank)
        self.network.train()
        check = FiniteCheck(self._config, epoch, self.num_steps)
        tally = Tally(self.device, check)
        for losses_N in self.steps(self.order(epoch)):
            self.average.update()
            tally.add(losses_N)
            is_last, is_due = tally.num_steps == self.num_steps, journal.is_report_due
            if tally.is_look_due or is_last or is_due:
                tally.look()
            if is_due and not is_last:
                journal.tell("training", epoch, tally.num_steps, self.num_steps, tally.means(), self._users_per_s(tally.num_steps, began))
            # By the time after the look: on a GPU the steps before it are done, not only asked for.
            if tally.is_look_due and not is_last and self._ranks.told("max_minutes" if journal.is_time_up else None):
                break
        check.weights(self.network, tally.num_steps)
        return Learned(tally.num_steps, tally.means(), self._users_per_s(tally.num_steps, began))

    def order(self, epoch: int) -> Iterator[Rows]:
        """The batches of a pass, as positions in the rows; they depend on (seed, epoch) alone."""
        return batches(self._lengths, self.batch_size, seed=self._config.seed, epoch=epoch, shuffle=True)

    def steps(self, order: Iterable[Rows]) -> Iterator[Tensor]:
        """A step for each batch of positions in the rows; the losses, valid until the next."""
        if self.resident_steps is None:
            yield from map(self.step, feed(self.collate, map(self._ranks.own, order), self.device))
        else:
            yield from self.resident_steps([self.rows[positions] for positions in order])

    def step(self, batch: Batch, num_targets: int | None = None) -> Tensor:
        """One step of Adam; the losses, in the order of their names. With ``num_targets`` nothing waits for the device."""
        with self.autocast():
            losses = self.losses(batch, num_targets)
        # Before the weights change: a step that finds no memory is taken again (graphs.py).
        losses_N = torch.stack([getattr(losses, name).detach().float() for name in LOSS_NAMES])
        self.adam.step(losses.total)
        return self._ranks.summed(losses_N)

    def losses(self, batch: Batch, num_targets: int | None = None) -> Losses:
        """What this process has of a step's losses.

        Args:
            batch: this process's share of it.
            num_targets: at least the next items in the batch; None: they are counted, which waits for the device.
        """
        share = self._ranks.share(batch)
        if self.network.preset == "default":
            return sequence_loss(self.network, batch, self._config, self.sampling, num_targets, share)
        return joint_loss(self.network, batch, self._config, self.sampling, num_targets, share)

    def collate(self, positions: Rows) -> Batch:
        """The batch, on the host, of the users at these positions in the rows; ``NOBODY`` has neither events nor labels."""
        is_user_B = positions != NOBODY
        batch = collate(
            self._dataset.histories,
            self.rows[positions],
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

    def autocast(self) -> torch.autocast:
        """The precision of the epochs, their validation included."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def copied_weights(self) -> dict[str, Tensor]:
        """The state of the network as it is, on the CPU; what no epoch changes is as large as tables, and no copy."""
        state = self.network.state_dict()
        return {name: tensor if name in self._unchanged else tensor.to("cpu", copy=True) for name, tensor in state.items()}

    def _users_per_s(self, num_steps: int, began: float) -> float:
        return min(num_steps * self.batch_size, len(self.rows)) / (time.monotonic() - began)


def batch_size_of(config: TrainingConfig, network_config: NetworkConfig, num_users: int) -> int:
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


def _tell_returning(dataset: Dataset, config: TrainingConfig) -> None:
    """Say that it was decided to rank and recommend items that users have met: figures of earlier runs may be of the opposite."""
    if config.mask_seen == "auto" and not dataset.masks_seen("auto"):
        _log.warning(
            "%.0f %% of the validation targets are items that their users had met: seen items are ranked and recommended too; "
            "mask_seen=on leaves them out",
            100 * dataset.returning_share,
        )
