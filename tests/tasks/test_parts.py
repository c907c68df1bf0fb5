"""Sorted rows, cut where their keys change."""

import pyarrow as pa
import pytest

from tasks.parts import pieces

SOURCES = ["a", "a", "b", "b", "b"]
DAYS = [1, 2, 2, 2, 3]


@pytest.mark.parametrize("source", [pa.array(SOURCES), pa.array(SOURCES).dictionary_encode()], ids=["strings", "dictionary"])
def test_a_piece_has_one_value_of_every_key(source):
    rows = pa.RecordBatch.from_pydict({"source": source, "day": pa.array(DAYS), "row": pa.array([0, 1, 2, 3, 4])})

    found = [(key, piece["row"].to_pylist()) for key, piece in pieces([rows], ["source", "day"])]

    assert found == [(("a", 1), [0]), (("a", 2), [1]), (("b", 2), [2, 3]), (("b", 3), [4])]


def test_a_batch_without_rows_is_no_piece():
    assert list(pieces([pa.RecordBatch.from_pydict({"day": pa.array([], pa.int64())})], ["day"])) == []
