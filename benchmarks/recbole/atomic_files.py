"""Next-item histories for RecBole as atomic files, and the ranks of what RecBole says by the rules of our own evaluator.

RecBole is told the dataset's own numbers: a user's token is the row, an item's token the internal id, the time the position in the
history. A real time would not do: RecBole keeps times as float32, in which two events of the same two minutes are one.

An event of an item that the vocabulary lacks is left out: nothing was ever trained on it. As a target it ranks last, whoever ranks.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS
from mfn_core.evaluation.baselines import popularity_ranks
from mfn_core.evaluation.scores import recommendation_scores
from mfn_core.model import ranking
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import SPLITS, UNKNOWN
from tasks.held_out import held_out_rows

HeldOut = Literal["validation", "test"]

NOT_KNOWN = torch.finfo(torch.float32).min  # behind every item that the model knows, and before those that must not be recommended


def export(dataset: Dataset, folder: Path) -> Path:
    """Write ``<folder>/<name of the folder>.inter``, the place and name that RecBole looks for.

    All users are written; which events are for training, validation and test is told by ``split_of_targets``, since RecBole's own
    leave-one-out lets the validation target of a user of three events into training.

    Args:
        dataset: histories and vocabularies.
        folder: made where it is missing.

    Returns:
        The file: ``user_id:token, item_id:token, timestamp:float``, tab-separated, oldest first within a user.

    Raises:
        ConfigError: the dataset leaves the recommendation out.
        InsufficientDataError: nobody has held-out events.
    """
    held_out_rows(dataset)
    micro = dataset.histories.micro
    rows = np.repeat(np.arange(len(dataset)), micro.lengths)
    positions = np.arange(len(rows)) - micro.offsets[rows]
    events = pd.DataFrame({"user_id:token": rows, "item_id:token": micro.ids, "timestamp:float": positions})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{folder.name}.inter"
    events[micro.ids > UNKNOWN].to_csv(path, sep="\t", index=False)
    return path


def split_of_targets(dataset: Dataset, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whether an event is a target of training, validation or test, as a position in ``SPLITS``.

    Args:
        dataset: whose histories were exported.
        rows: user of each event.
        positions: of each event in the user's history.
    """
    from_end = dataset.histories.micro.lengths[rows] - positions
    split = np.full(len(rows), SPLITS.index("train"))
    for name, dropped in DROPPED.items():
        split[(from_end == dropped) & (dataset.held_out_B[rows] == HELD_OUT_EVENTS)] = SPLITS.index(name)
    return split


def target_ranks(
    dataset: Dataset, rows: NDArray[np.int64], scores_BN: torch.Tensor, *, split: HeldOut, mask_seen: bool
) -> NDArray[np.float32]:
    """Rank of each row's target by a foreign model's scores, under the rules of ``mfn_core.model.ranking``.

    Args:
        dataset: whose histories were exported.
        rows: users with held-out events.
        scores_BN: [rows x internal ids]; ``NOT_KNOWN`` where the model does not know the item.
        split: which of the two held-out events is the target.
        mask_seen: leave out items met before the target.
    """
    micro, dropped = dataset.histories.micro, DROPPED[split]
    num_users, num_items = scores_BN.shape
    assert num_items == len(dataset.vocabularies.micro_id), (num_items, len(dataset.vocabularies.micro_id))
    # Scores that are no product of queries and items are written as gains of a model whose products are all zero.
    given = ItemScores(
        query_PD=torch.zeros(num_users, 1),
        weight_ND=torch.zeros(num_items, 1),
        bias_N=torch.zeros(num_items),
        gaining_PM=torch.arange(num_items).expand(num_users, num_items),
        gains_PM=scores_BN.float().cpu(),
    )
    target_B = torch.from_numpy(micro.ids[micro.offsets[rows + 1] - dropped].astype(np.int64))
    seen_BL = torch.from_numpy(micro.padded_ids(rows, dropped=dropped)) if mask_seen else None
    return ranking.target_ranks(given, target_B, seen_BL).numpy()


def scores_table(dataset: Dataset, ranks_B: NDArray[np.float32], *, split: HeldOut, mask_seen: bool) -> pa.Table:
    """Ranks of ``held_out_rows``, in that order, beside those of popularity: the form of ``Evaluation.scores``."""
    rows, counts_N = held_out_rows(dataset), dataset.vocabularies.micro_id.counts
    popular_B = popularity_ranks(dataset.histories.micro, rows, counts_N, dropped=DROPPED[split], mask_seen=mask_seen)
    return recommendation_scores(dataset.histories.user_ids[rows], ranks_B, popular_B)
