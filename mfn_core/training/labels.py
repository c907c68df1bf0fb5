"""After the encoders: what categories go together, then one reader per label, each stopped by its own validation loss.

The encoders stand still here, so their evidence is computed once, and a pass over all users takes a second where an epoch of the
encoders takes a minute. That is what lets every label have its own stopping point; the published scripts fine-tune per task as well.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batching import batches, collate
from mfn_core.data.dataset import Dataset
from mfn_core.model.evidence import Evidence, evidence_bytes
from mfn_core.model.experts import CountExpert
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.reader import LabelReader, Reader, reader_input
from mfn_core.schema import SPLITS
from mfn_core.training.determinism import seed_generators
from mfn_core.training.feed import feed

_GROUP = 32  # users among whom a macro view must find its micro view
_GROUPS_PER_STEP = 8
_MOST_PRODUCTS = 2**24  # of two users' categories, held at once
_MOST_PRODUCTS_PER_PASS = 2**30  # some ten seconds on two cores: few weights are learned, from few users where categories are many
_MOST_JUDGES = 4096
_EVIDENCE_BYTES = 2 * 2**30
_AFFINITY_EPOCHS, _AFFINITY_PATIENCE = 30, 5
_AFFINITY_RATE, _AFFINITY_DECAY = 2e-3, 0.01
_RATE, _DECAY = 1e-3, 0.1
_RIDGE = 10.0  # of the id scores, shared by the users who teach: a prior, as in ridge regression
_LARGEST_BATCH, _SMALLEST_BATCH, _STEPS_PER_PASS = 1024, 32, 32
_READ_AT_ONCE = 1024
_MOST_TO_SCALE_BY = 4096
_BLEND_STEPS, _BLEND_RATE = 300, 0.1
_LEAST_SECONDS = 1800.0  # of labels, whatever the encoders left: without any a model would have none to tell
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Label:
    """Who is labelled, as rows of the table of evidence."""

    classes: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    values: Tensor  # class of every row of the table, -1 where unlabelled


def learn_labels(
    network: MacroMicroFusionNetwork,
    dataset: Dataset,
    network_config: NetworkConfig,
    config: TrainingConfig,
    tick: Callable[[int, int], None],
    encoder_seconds: float = 0.0,
) -> None:
    """Fit the affinity and the readers of a network whose encoders are trained.

    Labels of the train split teach, labels of the validation split stop and blend. A label without validation users is stopped and
    blended by its training loss.

    Args:
        network: left in evaluation mode.
        dataset: histories, labels and splits.
        network_config: lengths of the windows.
        config: seed, patience, whether the affinity learns, and ``max_minutes``: the labels have what the encoders left of them, at
            least half an hour.
        tick: told the readers done and their number, after each.
        encoder_seconds: that the training of the encoders took.
    """
    deadline = time.monotonic() + max(config.max_minutes * 60 - encoder_seconds, _LEAST_SECONDS)
    network.eval()
    rows = _rows(network, dataset, network_config, config.seed)
    if not len(rows):
        return
    evidence = gather(network, dataset, rows, network_config, config)
    is_train = dataset.split_B[rows] == SPLITS.index("train")
    labels = _labels(dataset, rows, is_train, evidence.macro.state_BS.device)
    for name, label in zip(("activity", *dataset.attribute_classes), labels, strict=True):
        _tell_what_cannot_be_learned(name, label)
    jobs = [(reader, label) for reader, label in zip(network.label_readers, labels, strict=True) if len(label.train)]
    done, total = 0, sum(len(reader.readers) for reader, _ in jobs)
    turns = _Turns(deadline, total + 1)
    if config.mutual_information_weight > 0:
        seed_generators(config.seed, 0, 0)
        _learn_affinity(network, evidence, is_train, turns)
    for number, (label_reader, label) in enumerate(jobs):
        judges = label.validation if len(label.validation) else label.train
        probabilities: list[Tensor] = []
        for place, reader in enumerate(label_reader.by_name):
            seed_generators(config.seed, 0, 1 + number * len(label_reader.readers) + place)
            probabilities.append(_learn(network, reader, evidence, label, judges, config, turns))
            done += 1
            tick(done, total)
        _blend(label_reader, torch.stack(probabilities), label.values[judges])
    turns.tell()
    network.eval()


class _Turns:
    """The time that is left, in equal parts for those who are still to learn; whoever ends early leaves the rest to the others."""

    def __init__(self, deadline: float, num_learners: int) -> None:
        self._deadline, self._num_waiting, self._cut_short = deadline, num_learners, 0

    def begin(self) -> Callable[[], bool]:
        """The next learner's turn; what it gets says whether the turn is over, and is to be asked after each pass."""
        now = time.monotonic()
        end = now + (self._deadline - now) / self._num_waiting
        self._num_waiting -= 1

        def is_over() -> bool:
            if time.monotonic() < end:
                return False
            self._cut_short += 1
            return True

        return is_over

    def tell(self) -> None:
        """Say whether the time was too short."""
        if self._cut_short:
            _log.warning(
                "%d parts of the labels stopped before they had learned all they could for want of time; raise max_minutes", self._cut_short
            )


def _rows(network: MacroMicroFusionNetwork, dataset: Dataset, network_config: NetworkConfig, seed: int) -> NDArray[np.int64]:
    """Users of the train and validation splits; so many of them as leave the table of evidence within its memory, see ``_drawn``."""
    rows = np.flatnonzero(dataset.split_B != SPLITS.index("test"))
    views = (dataset.histories.macro, dataset.histories.micro)
    limit = _EVIDENCE_BYTES // evidence_bytes(
        width=network_config.encoder_width,
        num_categories=network.macro_pooling.num_categories + network.micro_pooling.num_categories,
        num_ids=sum(min(int(view.lengths.max(initial=0)), network_config.max_ids) for view in views),
    )
    if len(rows) > limit:
        _log.warning("labels are learned from %d of %d users: the evidence of more would pass %d bytes", limit, len(rows), _EVIDENCE_BYTES)
        rows = rows[_drawn(_is_labelled(dataset)[rows], limit, seed)]
    return rows


def _drawn(is_labelled_BL: NDArray[np.bool_], limit: int, seed: int) -> NDArray[np.int64]:
    """Positions of ``limit`` users at random, in order: an equal part for each label, the rarest first, which leaves the rest to others.

    Drawn regardless of labels, a label that few users have would be learned from hardly any of them.
    """
    generator = np.random.default_rng(seed)
    is_drawn_B = np.zeros(len(is_labelled_BL), np.bool_)

    def draw(is_wanted_B: NDArray[np.bool_], num_sharing: int) -> None:
        part = (limit - int(is_drawn_B.sum())) // num_sharing
        is_drawn_B[generator.permutation(np.flatnonzero(is_wanted_B & ~is_drawn_B))[:part]] = True

    rarest_first = is_labelled_BL.T[np.argsort(is_labelled_BL.sum(0), kind="stable")]
    for place, is_wanted_B in enumerate(rarest_first):
        draw(is_wanted_B, len(rarest_first) - place)
    draw(np.ones_like(is_drawn_B), 1)
    return np.flatnonzero(is_drawn_B)


def _is_labelled(dataset: Dataset) -> NDArray[np.bool_]:
    """Activity, then the attributes [users, labels]."""
    return np.column_stack([dataset.activity_B[:, None], dataset.attributes_BA]) >= 0


@torch.no_grad()
def gather(
    network: MacroMicroFusionNetwork, dataset: Dataset, rows: NDArray[np.int64], network_config: NetworkConfig, config: TrainingConfig
) -> Evidence:
    """Evidence of some users, in the order of ``rows``, on the network's device."""
    network.eval()
    device = next(network.parameters()).device
    lengths = np.maximum(dataset.histories.macro.lengths, dataset.histories.micro.lengths)[rows]
    order = list(batches(lengths, config.evaluation_batch_size, shuffle=False))

    def make(positions: NDArray[np.int64]):
        return collate(
            dataset.histories,
            rows[positions],
            prefix="full",
            max_macro_length=network_config.max_macro_length,
            max_micro_length=network_config.max_micro_length,
            query_time=dataset.cut,
            max_ids=network_config.max_ids,
        )

    table: Evidence | None = None  # filled in place: joined from parts it would be in memory three times
    for positions, batch in zip(order, feed(make, order, device), strict=True):
        part = network.evidence(network.encode(batch), batch)
        table = (table or part.room(len(rows))).filled(torch.from_numpy(positions).to(device), part)
    assert table is not None, "there is no user to gather evidence of"
    return table


def _learn_affinity(network: MacroMicroFusionNetwork, evidence: Evidence, is_train: NDArray[np.bool_], turns: _Turns) -> None:
    """Maximize the information of M_u about who is who; the weights of the best pass over validation users stay."""
    is_over = turns.begin()
    both = ((evidence.macro.category_counts_BC.sum(1) > 0) & (evidence.micro.category_counts_BC.sum(1) > 0)).cpu().numpy()
    train, judges = np.flatnonzero(both & is_train), np.flatnonzero(both & ~is_train)
    if len(train) < _GROUP or len(judges) < _GROUP:
        return
    affinity = network.affinity
    optimizer = torch.optim.AdamW(affinity.parameters(), lr=_AFFINITY_RATE, weight_decay=_AFFINITY_DECAY)
    generator = np.random.default_rng(0)
    pairs_of_categories = evidence.macro.category_counts_BC.shape[1] * evidence.micro.category_counts_BC.shape[1]
    step = _GROUP * max(1, min(_GROUPS_PER_STEP, _MOST_PRODUCTS // (_GROUP**2 * pairs_of_categories)))
    users_per_pass = max(_GROUP, _MOST_PRODUCTS_PER_PASS // (_GROUP * pairs_of_categories))

    def loss(rows: NDArray[np.int64]) -> Tensor:
        chosen = evidence.at(torch.from_numpy(rows).to(evidence.macro.state_BS.device))
        return affinity.information_loss(chosen.macro.categories, chosen.micro.categories, _GROUP)

    def judge() -> float:
        with torch.no_grad():
            return float(np.mean([float(loss(chosen)) for chosen in _batches(judges[: min(_MOST_JUDGES, users_per_pass)], step, _GROUP)]))

    best, best_loss, best_epoch = copy.deepcopy(affinity.state_dict()), judge(), 0
    for epoch in range(1, _AFFINITY_EPOCHS + 1):
        for chosen in _batches(generator.permutation(train)[:users_per_pass], step, _GROUP):
            optimizer.zero_grad(set_to_none=True)
            loss(chosen).backward()
            optimizer.step()
        if (now := judge()) < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(affinity.state_dict()), now, epoch
        if epoch - best_epoch >= _AFFINITY_PATIENCE or is_over():
            break
    affinity.load_state_dict(best)


def _learn(
    network: MacroMicroFusionNetwork,
    reader: Reader,
    evidence: Evidence,
    label: _Label,
    judges: NDArray[np.int64],
    config: TrainingConfig,
    turns: _Turns,
) -> Tensor:
    """Fit one reader; the best pass stays. Returns its probabilities of the judges [judges, classes]."""
    is_over = turns.begin()
    device = label.values.device
    counts = torch.bincount(label.values[label.train], minlength=label.classes).float()
    with torch.no_grad():
        reader.bias.copy_((counts.clamp(min=0.5) / counts.sum()).log())
        _fit_encodings(network, reader, evidence, label)
    ids = [] if reader.ids is None else list(reader.ids.parameters())
    others = [parameter for name, parameter in reader.named_parameters() if not name.startswith("ids.")]
    optimizer = torch.optim.AdamW([{"params": others, "weight_decay": _DECAY}, {"params": ids, "weight_decay": 0.0}], lr=_RATE, fused=True)
    generator = np.random.default_rng(config.seed)
    batch_size = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, len(label.train) // _STEPS_PER_PASS))
    best: dict[str, Tensor] = {}
    answers, best_loss, best_epoch = torch.empty(0), math.inf, 0
    for epoch in range(1, config.head_epochs + 1):
        reader.train()
        for chosen in _batches(generator.permutation(label.train), batch_size, 1):
            rows = torch.from_numpy(chosen).to(device)
            logits, _ = reader(reader_input(evidence.at(rows), network.affinity, thin=True))
            loss = functional.cross_entropy(logits.flatten(0, 1), label.values[rows].repeat(len(logits)))
            if reader.ids is not None:
                loss = loss + _RIDGE / len(label.train) * reader.ids.squared_norm()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), config.gradient_clip)
            optimizer.step()
        probabilities = _probabilities(network, reader, evidence, judges)
        now = float(functional.nll_loss(probabilities.clamp(min=1e-12).log(), label.values[judges]))
        if now < best_loss:
            best, answers, best_loss, best_epoch = copy.deepcopy(reader.state_dict()), probabilities, now, epoch
        if epoch - best_epoch >= config.head_patience or is_over():
            break
    reader.load_state_dict(best)
    return answers


def _fit_encodings(network: MacroMicroFusionNetwork, reader: Reader, evidence: Evidence, label: _Label) -> None:
    """Scale the counts to users who teach, evenly spread over all of them."""
    some = label.train[:: -(-len(label.train) // _MOST_TO_SCALE_BY)]
    inputs = reader_input(evidence.at(torch.from_numpy(some).to(label.values.device)), network.affinity)
    for module in reader.modules():
        if isinstance(module, CountExpert):
            module.fit_encoding(inputs)


@torch.no_grad()
def _probabilities(network: MacroMicroFusionNetwork, reader: Reader, evidence: Evidence, rows: NDArray[np.int64]) -> Tensor:
    reader.eval()
    chosen = (torch.from_numpy(part).to(evidence.macro.state_BS.device) for part in _batches(rows, _READ_AT_ONCE, 1))
    return torch.cat([reader(reader_input(evidence.at(part), network.affinity))[0].softmax(2).mean(0) for part in chosen])


def _blend(label_reader: LabelReader, probabilities_4BC: Tensor, values_B: Tensor) -> None:
    """Shares of the readers that lower the log-loss of their mixture, by a few steps of exponentiated gradient from equal shares.

    Stopped early, so that a few validation users do not pick a favourite.
    """
    truth_4B = probabilities_4BC[:, torch.arange(len(values_B), device=values_B.device), values_B]
    shares_4 = torch.full_like(truth_4B[:, 0], 1 / len(truth_4B))
    for _ in range(_BLEND_STEPS):
        gain_4 = (truth_4B / (shares_4[:, None] * truth_4B).sum(0).clamp(min=1e-9)).mean(1)
        shares_4 = shares_4 * torch.exp(_BLEND_RATE * gain_4)
        shares_4 = shares_4 / shares_4.sum()
    label_reader.blend_4.copy_(shares_4)


def _labels(dataset: Dataset, rows: NDArray[np.int64], is_train: NDArray[np.bool_], device: torch.device) -> list[_Label]:
    """Activity, then the attributes."""
    columns = [(2, dataset.activity_B[rows])]
    columns += [(len(classes), dataset.attributes_BA[rows, index]) for index, classes in enumerate(dataset.attribute_classes.values())]
    return [
        _Label(
            classes,
            np.flatnonzero(is_train & (values >= 0)),
            np.flatnonzero(~is_train & (values >= 0)),
            torch.from_numpy(values.astype(np.int64)).to(device),
        )
        for classes, values in columns
    ]


def _tell_what_cannot_be_learned(name: str, label: _Label) -> None:
    """A label that some users have, but none or one class of them in the train split: its reader can tell nobody apart."""
    num_taught = len(label.values[label.train].unique())
    if num_taught < 2 and (len(label.train) or len(label.validation)):
        _log.warning(
            "%s cannot be learned: the %d labelled users of the train split are of %d of its %d classes; label more users",
            name,
            len(label.train),
            num_taught,
            label.classes,
        )


def _batches(rows: NDArray[np.int64], size: int, least: int) -> list[NDArray[np.int64]]:
    """Cut in order; a last part of fewer than ``least`` rows is left out."""
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [part for part in parts if len(part) >= least]
