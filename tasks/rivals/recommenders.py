"""Classical rivals for the next item: popularity, bigram, skip-bigram, item-kNN, under full ranking.

What they count are training events alone, of all users, as the network's. ``trials`` settings are compared by NDCG@10 on the validation
targets; a test target is then ranked from all that stands before it, the validation target included.
"""

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.data.fitting import training_events
from mfn_core.data.held_out import DROPPED
from mfn_core.data.histories import ViewHistories
from mfn_core.evaluation.baselines import popularity_ranks
from mfn_core.evaluation.comparison import DECISIVE
from mfn_core.evaluation.scores import recommendation_scores
from mfn_core.metrics import ranking_metrics
from mfn_core.schema import FIRST_KNOWN, UNKNOWN, DownstreamTask
from tasks.held_out import held_out_rows

_MAX_SCORES_PER_BLOCK = 2**24
_TIE_BREAK = 1e-6  # of popularity, for items that are nobody's neighbours

Settings = dict[str, float]
Scorer = Callable[[NDArray[np.int64], int], NDArray[np.float32]]  # rows, dropped -> [users x items], free to be overwritten


def popularity(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """Items by their training events. There is nothing to tune."""
    started = time.perf_counter()
    rows = held_out_rows(dataset)
    ranks_B = _popularity_ranks(dataset, rows, split, mask_seen)
    chosen = {"settings": {}, "trials": 0, "seconds": round(time.perf_counter() - started, 3)}
    return recommendation_scores(dataset.histories.user_ids[rows], ranks_B, ranks_B), {task: chosen}


def bigram(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """What followed the last item: P(j | i) = (count(i, j) + backoff * share(j)) / (count(i) + backoff)."""
    exponents = -1 + 4 * (np.arange(trials) + 0.5) / trials  # the middles of equal parts of 0.1 … 1000
    settings: list[Settings] = [{"backoff": float(10**exponent), "window": 1, "last": 1, "decay": 0.0} for exponent in exponents]
    return _tune_and_score(dataset, task, _bigram_scorers(dataset), settings, split=split, mask_seen=mask_seen)


def skip_bigram(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """What came soon after each of the last items: a bigram that may skip.

    A pair that is d events apart, at most ``window``, counts 1/d; the k-th last item, of at most ``last``, weighs k^-decay.
    """
    usual: Settings = {"backoff": 10.0, "window": 3, "last": 5, "decay": 1.5}
    generator = np.random.default_rng(seed)
    drawn: list[Settings] = [
        {
            "backoff": float(10 ** generator.uniform(0, 2.5)),
            "window": int(generator.choice([1, 2, 3, 5, 8])),
            "last": int(generator.choice([2, 3, 5, 10, 20])),
            "decay": float(generator.uniform(0.5, 2)),
        }
        for _ in range(trials - 1)
    ]
    return _tune_and_score(dataset, task, _bigram_scorers(dataset), [usual, *drawn], split=split, mask_seen=mask_seen)


def item_knn(
    dataset: Dataset, task: DownstreamTask, *, split: Literal["validation", "test"], seed: int, trials: int, mask_seen: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """Neighbours of the last items, by shrunk cosine of the users who met both, the latest items weighing most.

    The k-th last item weighs k^-decay; an item without a neighbour among them stands by its popularity.
    """
    usual: Settings = {"shrinkage": 10, "neighbours": 100, "last": 10, "decay": 1.0}
    generator = np.random.default_rng(seed)
    drawn: list[Settings] = [
        {
            "shrinkage": float(10 ** generator.uniform(-0.5, 2.5)),
            "neighbours": int(generator.choice([20, 50, 100, 200, 500, 1000])),
            "last": int(generator.choice([1, 2, 3, 5, 10, 20, 50])),
            "decay": float(generator.uniform(0, 2)),
        }
        for _ in range(trials - 1)
    ]
    return _tune_and_score(dataset, task, _item_knn_scorers(dataset), [usual, *drawn], split=split, mask_seen=mask_seen)


def target_ranks(
    scorer: Scorer, micro: ViewHistories, rows: NDArray[np.int64], *, num_items: int, dropped: int, mask_seen: bool
) -> NDArray[np.float32]:
    """Rank of each row's target among all items, by the rules of ``mfn_core.model.ranking.target_ranks``.

    Args:
        scorer: what is ranked by.
        micro: item histories.
        rows: users with more than ``dropped`` events.
        num_items: of the vocabulary, PAD and UNKNOWN included.
        dropped: events at the end that are no input; the first of them is the target.
        mask_seen: leave out items met before the target.
    """
    block = max(1, _MAX_SCORES_PER_BLOCK // num_items)
    ranks = [np.empty(0, np.float32)]
    for start in range(0, len(rows), block):
        users = rows[start : start + block]
        target_B = micro.ids[micro.offsets[users + 1] - dropped].astype(np.int64)
        scores_BN = scorer(users, dropped)
        score_B1 = np.take_along_axis(scores_BN, target_B[:, None], axis=1)
        scores_BN[:, :FIRST_KNOWN] = -np.inf
        if mask_seen:
            scores_BN[micro.met(users, dropped=dropped)] = -np.inf
        np.put_along_axis(scores_BN, target_B[:, None], score_B1, axis=1)
        above_B, tied_B = (scores_BN > score_B1).sum(axis=1), (scores_BN == score_B1).sum(axis=1) - 1
        ranks.append(np.where(target_B > UNKNOWN, above_B + tied_B / 2, num_items).astype(np.float32))
    return np.concatenate(ranks)


def _tune_and_score(
    dataset: Dataset,
    task: DownstreamTask,
    scorer_of: Callable[..., Scorer],
    settings_of_trials: list[Settings],
    *,
    split: Literal["validation", "test"],
    mask_seen: bool,
) -> tuple[pa.Table, dict[str, Any]]:
    started = time.perf_counter()
    rows = held_out_rows(dataset)
    metric = DECISIVE[task]

    def ranks_of(settings: Settings, prefix: Literal["validation", "test"]) -> NDArray[np.float32]:
        num_items = len(dataset.vocabularies.micro_id)
        micro, dropped = dataset.histories.micro, DROPPED[prefix]
        return target_ranks(scorer_of(**settings), micro, rows, num_items=num_items, dropped=dropped, mask_seen=mask_seen)

    measured = [ranking_metrics(ranks_of(settings, "validation"))[metric] for settings in settings_of_trials]
    best = int(np.argmax(measured))
    ranks_B, popular_B = ranks_of(settings_of_trials[best], split), _popularity_ranks(dataset, rows, split, mask_seen)
    chosen = {
        "settings": settings_of_trials[best],
        f"validation_{metric}": measured[best],
        "trials": len(settings_of_trials),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return recommendation_scores(dataset.histories.user_ids[rows], ranks_B, popular_B), {task: chosen}


def _bigram_scorers(dataset: Dataset) -> Callable[..., Scorer]:
    micro, counts_N = dataset.histories.micro, dataset.vocabularies.micro_id.counts
    shares_N = (counts_N / max(counts_N.sum(), 1)).astype(np.float32)

    def scorer_of(backoff: float, window: int, last: int, decay: float) -> Scorer:
        transitions = _transitions(dataset, window)
        totals_N = transitions.sum(axis=1) + backoff
        conditional = sp.csr_array(transitions.multiply((1 / totals_N).astype(np.float32)[:, None]))
        backed_off_N = (backoff / totals_N).astype(np.float32)

        def scorer(rows: NDArray[np.int64], dropped: int) -> NDArray[np.float32]:
            latest = _latest(micro, rows, dropped, last, decay, len(counts_N))
            return (latest @ conditional).toarray() + (latest @ backed_off_N)[:, None] * shares_N

        return scorer

    return scorer_of


def _transitions(dataset: Dataset, window: int) -> sp.csr_array:
    """[items x items]: how often the second came after the first in the training events, 1/d where it came d events later."""
    micro, is_training = dataset.histories.micro, training_events(dataset.histories)
    owners = np.repeat(np.arange(len(dataset)), micro.lengths)
    size = len(dataset.vocabularies.micro_id)
    total = sp.csr_array((size, size), dtype=np.float32)
    for distance in range(1, window + 1):
        before, after = micro.ids[:-distance], micro.ids[distance:]
        counted = is_training[distance:] & (owners[:-distance] == owners[distance:]) & (before > UNKNOWN) & (after > UNKNOWN)
        weights = np.full(int(counted.sum()), 1 / distance, np.float32)
        total = total + sp.csr_array((weights, (before[counted], after[counted])), shape=(size, size))
    return sp.csr_array(total)


def _item_knn_scorers(dataset: Dataset) -> Callable[..., Scorer]:
    micro = dataset.histories.micro
    met = _met(dataset)
    counts_N = dataset.vocabularies.micro_id.counts
    base_N = (_TIE_BREAK * counts_N / max(counts_N.sum(), 1)).astype(np.float32)

    def scorer_of(shrinkage: float, neighbours: int, last: int, decay: float) -> Scorer:
        similarities = _similarities(met, shrinkage, neighbours)

        def scorer(rows: NDArray[np.int64], dropped: int) -> NDArray[np.float32]:
            return (_latest(micro, rows, dropped, last, decay, len(counts_N)) @ similarities).toarray() + base_N

        return scorer

    return scorer_of


def _met(dataset: Dataset) -> sp.csr_array:
    """[users x items]: 1 where a training event of the user is of the item."""
    micro, is_training = dataset.histories.micro, training_events(dataset.histories)
    kept = is_training & (micro.ids > UNKNOWN)
    owners = np.repeat(np.arange(len(dataset)), micro.lengths)[kept]
    shape = (len(dataset), len(dataset.vocabularies.micro_id))
    met = sp.csr_array((np.ones(len(owners), np.float32), (owners, micro.ids[kept])), shape=shape)
    met.data[:] = 1
    return met


def _similarities(met: sp.csr_array, shrinkage: float, neighbours: int) -> sp.csr_array:
    """[items x items]: co-users / (root of the product of users + shrinkage), the ``neighbours`` highest of each row."""
    roots_N = np.sqrt(met.sum(axis=0))
    num_items = met.shape[1]
    by_item = met.T.tocsr()
    block = max(1, _MAX_SCORES_PER_BLOCK // num_items)
    parts: list[sp.csr_array] = []
    for start in range(0, num_items, block):
        together = (by_item[start : start + block] @ met).tocoo()
        others = together.row + start != together.col
        row, column = together.row[others], together.col[others]
        value = together.data[others] / (roots_N[row + start] * roots_N[column] + shrinkage)
        parts.append(_highest(sp.csr_array((value, (row, column)), shape=together.shape), neighbours))
    return sp.csr_array(sp.vstack(parts, format="csr"))


def _highest(values: sp.csr_array, count: int) -> sp.csr_array:
    """The ``count`` highest of each row, the first columns of equals."""
    for row in np.flatnonzero(np.diff(values.indptr) > count):
        of_row = values.data[values.indptr[row] : values.indptr[row + 1]]
        of_row[np.argsort(-of_row, kind="stable")[count:]] = 0
    values.eliminate_zeros()
    return values


def _latest(micro: ViewHistories, rows: NDArray[np.int64], dropped: int, last: int, decay: float, num_items: int) -> sp.csr_array:
    """[users x items]: the weights of the last items before the target."""
    stops_B = micro.offsets[rows + 1] - dropped
    lengths_B = np.minimum(stops_B - micro.offsets[rows], last)
    owners = np.repeat(np.arange(len(rows)), lengths_B)
    back = np.arange(len(owners)) - np.repeat(np.cumsum(lengths_B) - lengths_B, lengths_B)  # 0 for the last item
    items = micro.ids[stops_B[owners] - 1 - back]
    weights = ((back + 1.0) ** -decay).astype(np.float32)
    return sp.csr_array((weights, (owners, items)), shape=(len(rows), num_items))


def _popularity_ranks(
    dataset: Dataset, rows: NDArray[np.int64], split: Literal["validation", "test"], mask_seen: bool
) -> NDArray[np.float32]:
    counts_N = dataset.vocabularies.micro_id.counts
    return popularity_ranks(dataset.histories.micro, rows, counts_N, dropped=DROPPED[split], mask_seen=mask_seen)
