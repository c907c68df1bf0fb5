"""Rows sorted in memory stand as the engine would sort them, and dictionaries hold no more than their rows do."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from tasks import coding

NAN = float("nan")


def ordered(**columns):
    """Positions of the rows, sorted by the columns as they are given."""
    table = pa.table({**columns, "row": list(range(len(next(iter(columns.values())))))})
    return coding.in_order(table, list(columns))["row"].to_pylist()


def test_strings_are_sorted_by_their_bytes_with_nulls_last():
    assert ordered(word=["b", None, "a", "B", "é", "ab"]) == [3, 2, 5, 0, 4, 1]


def test_nan_comes_after_numbers_and_before_null():
    assert ordered(number=pa.array([None, NAN, 2.5, -1.0, float("inf")], from_pandas=False)) == [3, 2, 4, 1, 0]


def test_a_later_column_decides_among_equal_ones():
    times = [datetime(2026, 6, 1, hour, tzinfo=UTC) for hour in (9, 8, 9, 8)]
    assert ordered(user=["bob", "bob", "ann", "bob"], time=times, app=["x", "y", "z", "w"]) == [2, 3, 1, 0]


def test_numbers_that_fit_no_joint_one_are_compared_one_after_the_other():
    assert ordered(user=["b", "a", "a", "a"], seq_no=[0, 2**63 - 1, -(2**63), 0]) == [2, 3, 1, 0]


def test_columns_of_fractions_are_compared_in_their_order():
    assert ordered(size=[2.0, 1.0, 1.0, 2.0], weight=[1.0, 2.0, 1.0, 0.0]) == [2, 1, 3, 0]


def test_minus_zero_and_zero_are_equal_and_come_back_as_zero():
    rows = coding.in_order(pa.table({"number": [0.0, -0.0], "app": ["b", "a"]}), ["number", "app"])
    assert str(rows.to_pylist()) == "[{'number': 0.0, 'app': 'a'}, {'number': 0.0, 'app': 'b'}]"


def test_rows_keep_their_values_and_strings_become_sorted_dictionaries():
    rows = coding.in_order(pa.table({"user": ["bob", "ann", None], "size": [1, 2, 3]}), ["user"])
    assert rows.to_pylist() == [{"user": "ann", "size": 2}, {"user": "bob", "size": 1}, {"user": None, "size": 3}]
    assert rows["user"].dictionary.to_pylist() == ["ann", "bob"]


@pytest.mark.parametrize("chunks", [[["bob", "ann"], ["ann"]], [["bob"], ["ann", "ann"]]])
def test_strings_are_coded_alike_over_chunks(chunks):
    assert ordered(user=pa.chunked_array(chunks)) in ([1, 2, 0], [2, 1, 0])


def test_a_slice_is_compacted_to_the_values_that_it_holds():
    rows = pa.RecordBatch.from_pydict({"app": pa.array(["a", "b", "c", None, "c"]).dictionary_encode(), "size": pa.array([1, 2, 3, 4, 5])})
    compacted = coding.compact(rows.slice(2))
    assert compacted.to_pylist() == [{"app": "c", "size": 3}, {"app": None, "size": 4}, {"app": "c", "size": 5}]
    assert compacted["app"].dictionary.to_pylist() == ["c"]


def test_plain_strings_are_compacted_too():
    assert coding.compact(pa.RecordBatch.from_pydict({"app": pa.array(["b", "a", "b"])}))["app"].dictionary.to_pylist() == ["b", "a"]


def test_values_are_found_among_the_known_ones_or_added_to_them():
    found, known = coding.among(pa.array(["ann", "bob"]), [pa.array(["cat", "bob"]), pa.array(["dan", "cat", "ann"])])
    assert [each.tolist() for each in found] == [[2, 1], [3, 2, 0]]
    assert known.to_pylist() == ["ann", "bob", "cat", "dan"]


def test_the_first_values_are_added_to_none():
    found, known = coding.among(pa.array([], pa.string()), [pa.array(["bob", "ann"])])
    assert (found[0].tolist(), known.to_pylist()) == ([0, 1], ["bob", "ann"])
