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
from mfn_core.schema import FIRST_KNOWN, UNKNOWN

MAX_CROSSED_CATEGORIES = 100  # of either view, as many as the network tells apart: the columns, and a tree's time, grow with the square
WINDOW_DAYS = (1, 3, 7, 14, 28, 56, 91, 182, 365, 730)
LATEST = (1, 2, 3, 5)
_HOUR = 3600
_DAY = 86400


def id_counts(dataset: Dataset) -> sp.csr_matrix:
    """Log counts of every app and every item: [users x (app ids, item ids)]."""
    histories, vocabularies = dataset.histories, dataset.vocabularies
    macro = _counts(histories.macro, histories.macro.ids, len(vocabularies.macro_id))
    micro = _counts(histories.micro, histories.micro.ids, len(vocabularies.micro_id))
    return side_by_side(np.log1p(macro), np.log1p(micro))


def category_counts(dataset: Dataset) -> sp.csr_matrix:
    """Log counts of every category: [users x (app categories, item categories)]."""
    return side_by_side(*(np.log1p(counts) for counts in _category_counts(dataset)))


def category_crosses(dataset: Dataset) -> sp.csr_array:
    """Square root of (share of the app category x share of the item category): [users x (app categories x item categories)].

    The product of shares is what says that a user does two things; the root keeps a small share visible. Categories beyond the
    ``MAX_CROSSED_CATEGORIES`` most frequent of a view are one, UNKNOWN.
    """
    macro_BG, micro_BK = (_shares(counts) for counts in _category_counts(dataset, MAX_CROSSED_CATEGORIES))
    macro = macro_BG.tocoo()
    micro_rows = micro_BK[macro.row]
    repeats = np.diff(micro_rows.indptr)
    columns = np.repeat(macro.col.astype(np.int64), repeats) * micro_BK.shape[1] + micro_rows.indices
    values = np.sqrt(np.repeat(macro.data, repeats) * micro_rows.data)
    shape = (len(dataset), macro_BG.shape[1] * micro_BK.shape[1])
    return sp.csr_array((values, (np.repeat(macro.row, repeats), columns)), shape=shape)


def recency_and_volume(dataset: Dataset) -> sp.csr_array:
    """Per view: log hours since the first and the 1st, 2nd, 3rd and 5th latest event (NaN where there are fewer), log counts.

    Counts are of all events, of days with events, and of the events of the last days. The network's own readers count alike, but only
    within the latest 10,000 events, and without the window of 56 days.
    """
    views = (dataset.histories.macro, dataset.histories.micro)
    return sp.csr_array(np.concatenate([_recency_and_volume(view, dataset.cut) for view in views], axis=1))


def side_by_side(*features: sp.csr_array | sp.csr_matrix) -> sp.csr_matrix:
    """The columns of several features of the same users, as the one sparse type that LightGBM takes without a copy."""
    return sp.csr_matrix(sp.hstack(features, format="csr"))


def _counts(view: ViewHistories, values: NDArray[np.int32], num_columns: int) -> sp.csr_array:
    users = np.repeat(np.arange(len(view.lengths)), view.lengths)
    return sp.csr_array((np.ones(len(values), np.float32), (users, values)), shape=(len(view.lengths), num_columns))


def _category_counts(dataset: Dataset, most: int | None = None) -> tuple[sp.csr_array, sp.csr_array]:
    """Of every category; with ``most`` the rarer ones, which a vocabulary has last, count as UNKNOWN."""

    def counts(view: ViewHistories, vocabulary: Vocabulary) -> sp.csr_array:
        num_columns = len(vocabulary) if most is None else min(len(vocabulary), FIRST_KNOWN + most)
        return _counts(view, np.where(view.categories < num_columns, view.categories, UNKNOWN), num_columns)

    histories, vocabularies = dataset.histories, dataset.vocabularies
    return counts(histories.macro, vocabularies.macro_category), counts(histories.micro, vocabularies.micro_category)


def _shares(counts: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(counts.multiply(1 / np.maximum(counts.sum(axis=1), 1)[:, None]))


def _recency_and_volume(view: ViewHistories, cut: int) -> NDArray[np.float32]:
    starts_B, stops_B = view.offsets[:-1], view.offsets[1:]
    lengths_B = stops_B - starts_B
    columns = [_log_age(view, cut, starts_B, lengths_B >= 1)]
    columns += [_log_age(view, cut, stops_B - place, lengths_B >= place) for place in LATEST]
    columns += [np.log1p(lengths_B), np.log1p(_days_with_events(view, cut))]
    for days in WINDOW_DAYS:
        recent = np.append(0, np.cumsum(view.times >= cut - days * _DAY))
        columns.append(np.log1p(recent[stops_B] - recent[starts_B]))
    return np.stack(columns, axis=1).astype(np.float32)


def _log_age(view: ViewHistories, cut: int, events_B: NDArray[np.int64], exists_B: NDArray[np.bool_]) -> NDArray[np.float64]:
    ages_B = np.full(len(events_B), np.nan)
    ages_B[exists_B] = np.log1p((cut - view.times[events_B[exists_B]]) / _HOUR)
    return ages_B


def _days_with_events(view: ViewHistories, cut: int) -> NDArray[np.int64]:
    """Days back from the cut; events are in order of time, so a day is new where it differs from the one before."""
    users = np.repeat(np.arange(len(view.lengths)), view.lengths)
    days = (cut - view.times) // _DAY
    is_new = np.append(True, (days[1:] != days[:-1]) | (users[1:] != users[:-1]))[: len(days)]
    return np.bincount(users[is_new], minlength=len(view.lengths))
