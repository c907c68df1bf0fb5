"""A model on datasets of later cuts, so that one lucky cut cannot carry a claim.

A later dataset has vocabularies and classes of its own. ``as_read_by`` gives it to the ordinary evaluator as the model reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.dataset import MISSING, Dataset
from mfn_core.data.fitting import encode_again
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.errors import ConfigError
from mfn_core.model.bundle import Bundle


def as_read_by(bundle: Bundle, dataset: Dataset) -> Dataset:
    """The dataset as a model of an earlier cut may be measured on it: in the model's ids, with targets that it has not seen.

    Raises:
        ConfigError: the dataset's cut is not later than the model's.
    """
    cut = int(bundle.facts["cut"])
    if dataset.cut <= cut:
        raise ConfigError(
            f"the dataset's cut {dataset.cut} (seconds UTC) is not later than the model's {cut}; "
            "give a dataset of a later cut, or measure the model as ever on the dataset that it was trained on"
        )
    return targets_since(reencode(dataset, bundle.vocabularies, bundle.attribute_classes), cut)


def reencode(dataset: Dataset, vocabularies: Vocabularies, attribute_classes: Mapping[str, Sequence[str]]) -> Dataset:
    """The same users, events and labels in a model's coding.

    Tokens that the model lacks become UNKNOWN, as does what the dataset's own vocabularies lacked; a user whose class the model lacks is
    unlabelled in that attribute, and an attribute that the model lacks is left out.

    Args:
        dataset: not changed.
        vocabularies: the model's.
        attribute_classes: the model's, in the order of its outputs.
    """
    columns = [_recoded(dataset, name, classes) for name, classes in attribute_classes.items()]
    return replace(
        dataset,
        histories=encode_again(dataset.histories, dataset.vocabularies, vocabularies),
        attributes_BA=np.stack(columns, axis=1) if columns else np.empty((len(dataset), 0), np.int32),
        vocabularies=vocabularies,
        facts=replace(dataset.facts, attribute_classes={name: tuple(classes) for name, classes in attribute_classes.items()}),
    )


def targets_since(dataset: Dataset, cut: int) -> Dataset:
    """The dataset without the recommendation targets of users whose test target is older than ``cut``: a model has trained on those.

    For evaluation only: what is no target here would be read as input in training.

    Args:
        dataset: not changed.
        cut: seconds UTC; a test target in that very second stays.
    """
    micro = dataset.histories.micro
    rows = np.flatnonzero(dataset.held_out_B)
    held_out_B = np.zeros_like(dataset.held_out_B)
    fresh = rows[micro.times[micro.offsets[rows + 1] - 1] >= cut]
    held_out_B[fresh] = dataset.held_out_B[fresh]
    return replace(dataset, held_out_B=held_out_B)


def _recoded(dataset: Dataset, name: str, classes: Sequence[str]) -> NDArray[np.int32]:
    """One attribute's labels as positions in ``classes``."""
    if name not in dataset.attribute_classes:
        return np.full(len(dataset), MISSING, np.int32)
    code_of = {value: code for code, value in enumerate(classes)}
    # One entry more, at the end: MISSING, -1, points to it.
    codes = np.array([*(code_of.get(value, MISSING) for value in dataset.attribute_classes[name]), MISSING], np.int32)
    return codes[dataset.attributes_BA[:, list(dataset.attribute_classes).index(name)]]
