"""Strings as numbers: rows in memory are sorted, compared and counted by the codes of dictionaries."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Numbers = NDArray[np.generic]


def in_order(rows: pa.Table, order: Sequence[str]) -> pa.RecordBatch:
    """Sort rows as the engine would: ascending, strings by their bytes, NaN after numbers, nulls last.

    Args:
        rows: at least one; each column named in ``order`` holds strings, numbers, days or times.
        order: columns, the first one first.

    Returns:
        The rows; strings are dictionaries, whose values are sorted too, and a zero has no sign, as after a sort by the engine.
    """
    columns = {name: _sortable(rows[name]) for name in rows.column_names}
    order_N = pa.array(_order([key for name in order for key in _keys(columns[name])]))
    return pa.RecordBatch.from_arrays([column.take(order_N) for column in columns.values()], names=rows.column_names)


def compact(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with strings as dictionaries that hold the values of these rows and no others."""
    columns = [_compact(column) if _is_text(column.type) else column for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def positions(column: pa.ChunkedArray, known: pa.Array) -> tuple[NDArray[np.integer], pa.Array]:
    """Position of every value of a dictionary-encoded column among the known ones, to which those not known yet are added."""
    coded = column.unify_dictionaries().combine_chunks()
    (found,), known = among(known, [coded.dictionary])
    return found[coded.indices.to_numpy()], known


def among(known: pa.Array, values: Sequence[pa.Array]) -> tuple[list[NDArray[np.integer]], pa.Array]:
    """Positions of distinct values among the known ones, to which those not known yet are added.

    Several arrays at once, because the known values are hashed anew at every call.
    """
    numbered = [_dictionary(pa.array(np.arange(len(each), dtype=np.int32)), each) for each in (known, *values)]
    first, *found = pa.chunked_array(numbered).unify_dictionaries().chunks
    return [each.indices.to_numpy() for each in found], first.dictionary


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _sortable(column: pa.ChunkedArray) -> pa.Array:
    if _is_text(column.type):
        return _by_rank(column)
    return pc.add(column, 0.0).combine_chunks() if pa.types.is_floating(column.type) else column.combine_chunks()


def _by_rank(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).combine_chunks()
    sorted_ = pc.array_sort_indices(encoded.dictionary)
    rank_V = np.empty(len(sorted_), np.int32)
    rank_V[sorted_.to_numpy()] = np.arange(len(sorted_))
    return _dictionary(pa.array(rank_V).take(encoded.indices), encoded.dictionary.take(sorted_))


def _compact(column: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        return column.dictionary_encode()
    occurs_V = np.zeros(len(column.dictionary), bool)
    occurs_V[column.indices.drop_null().to_numpy()] = True
    if occurs_V.all():
        return column
    code_V = pa.array(np.cumsum(occurs_V, dtype=np.int32) - np.int32(1))
    return _dictionary(code_V.take(column.indices), column.dictionary.filter(pa.array(occurs_V)))


def _dictionary(codes: pa.Array, values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(codes, values, safe=False)


def _keys(column: pa.Array) -> list[Numbers]:
    """Numbers that sort as the values do, the first one first."""
    values = column.indices if pa.types.is_dictionary(column.type) else column
    if pa.types.is_floating(values.type):
        numbers = values.fill_null(0.0).to_numpy()  # NumPy sorts NaN last too
    else:
        whole = values.view(pa.int32() if values.type.bit_width == 32 else pa.int64())
        numbers = whole.fill_null(0).to_numpy()
    return [values.is_null().to_numpy(zero_copy_only=False), numbers] if values.null_count else [numbers]


def _order(keys: Sequence[Numbers]) -> NDArray[np.int64]:
    """Positions by several keys: as many as fit make one number, which sorts several times faster; the rest decides among equals."""
    joint_N, size, rest = np.zeros(len(keys[0]), np.int64), 1, list(keys)
    while rest and not np.issubdtype(rest[0].dtype, np.floating):
        low, high = int(rest[0].min()), int(rest[0].max())
        if size * (high - low + 1) >= 2**63:
            break
        joint_N = joint_N * (high - low + 1) + (rest.pop(0) - np.int64(low))
        size *= high - low + 1
    order_N = np.argsort(joint_N)
    if rest:
        is_equal = np.diff(joint_N[order_N]) == 0
        tied = np.flatnonzero(np.append(is_equal, False) | np.append(False, is_equal))
        rows = order_N[tied]
        order_N[tied] = rows[np.lexsort([*(key[rows] for key in reversed(rest)), joint_N[rows]])]
    return order_N
