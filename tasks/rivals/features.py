"""What a data scientist would count of each user before the cut: the inputs of the classical classifiers.

Every function returns one row per user of the dataset, as a sparse matrix, so that any of them can stand side by side. A view without
events gives zeros, and "missing" where a time is asked for.
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.data.histories import ViewHistories
from mfn_core.data.vocabulary import Vocabulary

WINDOW_DAYS = (7, 14, 28, 56, 91)
_HOUR = 3600
_DAY = 86400


def id_counts(dataset: Dataset) -> sp.csr_matrix:
    """Log counts of every app and every item: [users x (app ids, item ids)]."""
    histories, vocabularies = dataset.histories, dataset.vocabularies
    macro = _counts(histories.macro, histories.macro.ids, vocabularies.macro_id)
    micro = _counts(histories.micro, histories.micro.ids, vocabularies.micro_id)
    return side_by_side(np.log1p(macro), np.log1p(micro))


def category_counts(dataset: Dataset) -> sp.csr_matrix:
    """Log counts of every category: [users x (app categories, item categories)]."""
    return side_by_side(*(np.log1p(counts) for counts in _category_counts(dataset)))


def category_crosses(dataset: Dataset) -> sp.csr_array:
    """Square root of (share of the app category x share of the item category): [users x (app categories x item categories)].

    The product of shares is what says that a user does two things; the root keeps a small share visible.
    """
    macro_BG, micro_BK = (_shares(counts) for counts in _category_counts(dataset))
    macro = macro_BG.tocoo()
    micro_rows = micro_BK[macro.row]
    repeats = np.diff(micro_rows.indptr)
    columns = np.repeat(macro.col.astype(np.int64), repeats) * micro_BK.shape[1] + micro_rows.indices
    values = np.sqrt(np.repeat(macro.data, repeats) * micro_rows.data)
    shape = (len(dataset), macro_BG.shape[1] * micro_BK.shape[1])
    return sp.csr_array((values, (np.repeat(macro.row, repeats), columns)), shape=shape)


def recency_and_volume(dataset: Dataset) -> sp.csr_array:
    """Per view: log hours since the last and since the first event (NaN without events), log counts of all and of recent events."""
    views = (dataset.histories.macro, dataset.histories.micro)
    return sp.csr_array(np.concatenate([_recency_and_volume(view, dataset.cut) for view in views], axis=1))


def side_by_side(*features: sp.csr_array | sp.csr_matrix) -> sp.csr_matrix:
    """The columns of several features of the same users, as the one sparse type that LightGBM takes without a copy."""
    return sp.csr_matrix(sp.hstack(features, format="csr"))


def _counts(view: ViewHistories, values: NDArray[np.int32], vocabulary: Vocabulary) -> sp.csr_array:
    users = np.repeat(np.arange(len(view.lengths)), view.lengths)
    return sp.csr_array((np.ones(len(values), np.float32), (users, values)), shape=(len(view.lengths), len(vocabulary)))


def _category_counts(dataset: Dataset) -> tuple[sp.csr_array, sp.csr_array]:
    histories, vocabularies = dataset.histories, dataset.vocabularies
    macro_BG = _counts(histories.macro, histories.macro.categories, vocabularies.macro_category)
    micro_BK = _counts(histories.micro, histories.micro.categories, vocabularies.micro_category)
    return macro_BG, micro_BK


def _shares(counts: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(counts.multiply(1 / np.maximum(counts.sum(axis=1), 1)[:, None]))


def _recency_and_volume(view: ViewHistories, cut: int) -> NDArray[np.float32]:
    starts_B, stops_B = view.offsets[:-1], view.offsets[1:]
    has_events_B = stops_B > starts_B
    columns: list[NDArray[np.float64]] = []
    for events_B in (stops_B[has_events_B] - 1, starts_B[has_events_B]):
        ages_B = np.full(len(starts_B), np.nan)
        ages_B[has_events_B] = np.log1p((cut - view.times[events_B]) / _HOUR)
        columns.append(ages_B)
    columns.append(np.log1p(stops_B - starts_B))
    for days in WINDOW_DAYS:
        recent = np.append(0, np.cumsum(view.times >= cut - days * _DAY))
        columns.append(np.log1p(recent[stops_B] - recent[starts_B]))
    return np.stack(columns, axis=1).astype(np.float32)
