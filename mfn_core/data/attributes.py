"""Which columns of the users table are predicted, and the class of every user."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.schema import SPLITS, USER_ID

MAX_AUTO_CLASSES = 50
MIN_CLASSES = 2


@dataclass(frozen=True)
class AttributeLabels:
    """Labels of U users."""

    classes: dict[str, tuple[str, ...]]  # sorted, by attribute
    labels_UA: NDArray[np.int32]  # -1 where the users table has none
    left_out: dict[str, str]  # column -> why it is not predicted


def attribute_labels(users: pa.Table, user_ids: Sequence[str] | NDArray[np.object_], names: tuple[str, ...] | None) -> AttributeLabels:
    """Labels of ``user_ids`` from the users table; a user who is not in it has none.

    Args:
        users: ``user_id`` and one column per attribute, one row per user.
        user_ids: whose labels.
        names: columns to predict; None: every column of 2 to 50 values that does not re-code an earlier one.

    Raises:
        ConfigError: a named column is not in the table.
        InsufficientDataError: a named column has fewer than two classes among the users.
    """
    available = [name for name in users.column_names if name != USER_ID]
    unknown = [name for name in names or () if name not in available]
    if unknown:
        raise ConfigError(
            f"attributes={list(names or ())}: the users table has no column {unknown[0]!r}; it has {', '.join(available) or 'none'}"
        )
    rows = pc.index_in(pa.array(user_ids, pa.string()), value_set=users[USER_ID].combine_chunks().cast(pa.string()))
    coded: dict[str, tuple[tuple[str, ...], NDArray[np.int32]]] = {}
    left_out: dict[str, str] = {}
    for name in names if names is not None else available:
        column = users[name].combine_chunks()
        if pa.types.is_nested(column.type):
            left_out[name] = f"a column of type {column.type} has no classes"
            continue
        classes, codes_U = _coded(column.cast(pa.string()).take(rows))
        why = _unfit(classes, codes_U, coded) if names is None else None
        if why is None:
            coded[name] = (classes, codes_U)
        else:
            left_out[name] = why
    if names is not None:
        _require_classes(names, {name: classes for name, (classes, _) in coded.items()}, left_out)
    labels = [codes_U for _, codes_U in coded.values()]
    return AttributeLabels(
        classes={name: classes for name, (classes, _) in coded.items()},
        labels_UA=np.stack(labels, axis=1) if labels else np.empty((len(user_ids), 0), np.int32),
        left_out=left_out,
    )


def learnable_and_measurable(labels: AttributeLabels, split_B: NDArray[np.int8], *, named: bool) -> AttributeLabels:
    """Leave out the attributes that no train user or no test user has a value of: what is not learned, or not measured, is no result.

    Args:
        labels: of the users.
        split_B: position in ``SPLITS`` of each of the same users.
        named: whether the attributes were asked for by name.

    Raises:
        InsufficientDataError: one would be left out that was asked for by name.
    """
    kept, left_out = [], dict(labels.left_out)
    for column, name in enumerate(labels.classes):
        train, test = (int(((labels.labels_UA[:, column] >= 0) & (split_B == SPLITS.index(split))).sum()) for split in ("train", "test"))
        if train and test:
            kept.append(column)
            continue
        left_out[name] = f"{train:,} train users and {test:,} test users have a value; both splits need one"
        if named:
            others = [other for other in labels.classes if other != name]
            raise InsufficientDataError(f"attribute {name!r}: {left_out[name]}; bring more values, or leave it out: attributes={others}")
    names = list(labels.classes)
    return AttributeLabels({names[column]: labels.classes[names[column]] for column in kept}, labels.labels_UA[:, kept], left_out)


def _coded(values: pa.Array) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    classes = sorted(value for value in pc.unique(values).to_pylist() if value is not None)
    codes = pc.index_in(values, value_set=pa.array(classes, pa.string()), skip_nulls=True)
    return tuple(classes), pc.fill_null(codes, -1).to_numpy().astype(np.int32)


def _unfit(
    classes: tuple[str, ...], codes_U: NDArray[np.int32], earlier: dict[str, tuple[tuple[str, ...], NDArray[np.int32]]]
) -> str | None:
    if len(classes) < MIN_CLASSES:
        return f"{len(classes)} values among the users; an attribute needs {MIN_CLASSES} to {MAX_AUTO_CLASSES}"
    if len(classes) > MAX_AUTO_CLASSES:
        return f"{len(classes)} values, more than {MAX_AUTO_CLASSES}; name it in attributes= to predict it all the same"
    for name, (other_classes, other_codes_U) in earlier.items():
        pairs = np.unique(np.stack([codes_U, other_codes_U]), axis=1).shape[1]
        if pairs == len(np.unique(codes_U)) == len(np.unique(other_codes_U)) and len(classes) == len(other_classes):
            return f"it re-codes {name}"
    return None


def _require_classes(names: tuple[str, ...], classes: dict[str, tuple[str, ...]], left_out: dict[str, str]) -> None:
    for name in names:
        if len(classes.get(name, ())) < MIN_CLASSES:
            found = left_out.get(name) or f"its values among the users are {list(classes[name])}"
            raise InsufficientDataError(
                f"attribute {name!r} has fewer than {MIN_CLASSES} classes: {found}; "
                f"leave it out: attributes={[other for other in names if other != name]}"
            )
