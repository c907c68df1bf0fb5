"""What of a dataset a run learns from: users and labels, and a digest of all that it reads."""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.errors import InsufficientDataError
from mfn_core.schema import SPLITS


def learnable_rows(dataset: Dataset) -> NDArray[np.int64]:
    """Users who teach something: a next item, a label of the train split, or, where there are app logs alone, a next app.

    Raises:
        InsufficientDataError: there is no such user.
    """
    activity_B, attributes_BA = train_labels(dataset)
    macro, micro = dataset.histories.macro, dataset.histories.micro
    has_next_B = micro.lengths - dataset.held_out_B >= 2 if len(micro.ids) else macro.lengths >= 2
    rows = np.flatnonzero(has_next_B | (activity_B >= 0) | (attributes_BA >= 0).any(axis=1))
    if len(rows) == 0:
        raise InsufficientDataError(
            f"none of the dataset's {len(dataset.histories)} users has two events or a label to learn from; "
            f"ingest more days, or a users table with attributes"
        )
    return rows


def train_labels(dataset: Dataset) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Labels with those of the validation and test users taken out."""
    is_train_B = dataset.split_B == SPLITS.index("train")
    activity_B = np.where(is_train_B, dataset.activity_B, -1).astype(np.int8)
    return activity_B, np.where(is_train_B[:, None], dataset.attributes_BA, -1).astype(np.int32)


def digest(dataset: Dataset) -> str:
    """SHA-256 of everything that training reads."""
    histories = dataset.histories
    hasher = hashlib.sha256(json.dumps([dataset.cut, dataset.attribute_classes]).encode())
    arrays = [dataset.split_B, dataset.activity_B, dataset.attributes_BA, dataset.held_out_B, histories.macro_before]
    for view in (histories.macro, histories.micro):
        arrays += [view.offsets, view.ids, view.categories, view.times]
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()
