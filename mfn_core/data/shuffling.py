"""A dataset whose views do not belong together: the null hypothesis of every claim that the macro view helps.

Every user keeps labels, split and item history, and gets the app history of another user. What a model still gains from the macro view of
such a dataset, it does not gain from what apps tell of their user.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset, Shard, shard_path, write_facts, write_shard
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.sequences import count_macro_before
from mfn_core.schema import SPLITS

Ints = NDArray[np.int64]


def shuffle_macro(dataset: Dataset, seed: int) -> Dataset:
    """The dataset with macro histories permuted among the users of a split who have one.

    A user alone in that keeps the own one, nobody else does; a user without a macro history stays without. As every event lies before
    the same cut, point-in-time holds as before; which app events precede an item event is counted anew. The vocabularies stay:
    the events are the same ones.

    Args:
        dataset: not changed.
        seed: the same seed gives everybody the same history.
    """
    histories = dataset.histories
    macro = _taken(histories.macro, _donors(dataset, seed))
    shuffled = Histories(histories.user_ids, macro, histories.micro, count_macro_before(macro, histories.micro))
    return replace(dataset, histories=shuffled)


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """Write a whole dataset as one shard, so that ``Dataset.open`` reads it.

    Args:
        dataset: any, from several shards too.
        folder: made where missing.

    Raises:
        ConfigError: it has more events of a view than a file can count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = (dataset.split_B, dataset.activity_B, dataset.activity_time_B, dataset.attributes_BA)
    write_shard(shard_path(folder, 0), Shard(dataset.histories, *labels), tuple(dataset.attribute_classes))
    write_facts(folder, replace(dataset.facts, num_shards=1), dataset.vocabularies)


def _donors(dataset: Dataset, seed: int) -> Ints:
    """Whose macro history each user gets: in every split the next one's of a random round, which nobody closes alone."""
    generator = np.random.default_rng(seed)
    has_macro = dataset.histories.macro.lengths > 0
    donor_B = np.arange(len(dataset))
    for code in range(len(SPLITS)):
        order = generator.permutation(np.flatnonzero((dataset.split_B == code) & has_macro))
        donor_B[order] = np.roll(order, -1)
    return donor_B


def _taken(view: ViewHistories, rows_B: Ints) -> ViewHistories:
    """The histories of these users, in their order."""
    lengths_B = view.lengths[rows_B]
    offsets = np.append(0, np.cumsum(lengths_B)).astype(np.int64)
    events = np.repeat(view.offsets[rows_B] - offsets[:-1], lengths_B) + np.arange(offsets[-1])
    return ViewHistories(offsets, view.ids[events], view.categories[events], view.times[events])
