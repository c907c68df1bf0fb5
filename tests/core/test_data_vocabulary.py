import numpy as np
import pyarrow as pa
import pytest

from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.errors import ArtifactError
from mfn_core.schema import PAD, UNKNOWN


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.fit(pa.array(["mail", "bank", "chat", "rare"]), np.array([3, 7, 3, 1]), min_count=2)


def test_ids_follow_training_counts_then_tokens(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode(np.array([PAD, UNKNOWN, 2, 3, 4])).tolist() == ["<pad>", "<unknown>", "bank", "chat", "mail"]


def test_a_token_below_min_count_is_unknown(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode(pa.array(["rare", "bank"])).tolist() == [UNKNOWN, 2]


def test_length_counts_pad_and_unknown(vocabulary: Vocabulary) -> None:
    assert len(vocabulary) == 5


def test_counts_stand_at_their_ids(vocabulary: Vocabulary) -> None:
    assert vocabulary.counts.tolist() == [0, 0, 7, 3, 3]


def test_null_and_unseen_are_unknown(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode(pa.array(["mail", None, "game"])).tolist() == [4, UNKNOWN, UNKNOWN]


def test_an_external_id_that_looks_like_a_special_token_is_a_token() -> None:
    vocabulary = Vocabulary.fit(pa.array(["<pad>"]), np.array([1]))
    assert vocabulary.encode(pa.array(["<pad>"])).tolist() == [2]


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["chat", None, "game", "bank"]),
        pa.chunked_array([["chat", None], ["game", "bank"]]),
        pa.array(["chat", None, "game", "bank"]).dictionary_encode(),
        pa.chunked_array([pa.array(["chat", None]).dictionary_encode(), pa.array(["game", "bank"]).dictionary_encode()]),
    ],
    ids=["plain", "chunked", "dictionary", "two dictionaries"],
)
def test_every_arrow_form_encodes_alike(vocabulary: Vocabulary, values: pa.Array) -> None:
    assert vocabulary.encode(values).tolist() == [3, UNKNOWN, UNKNOWN, 2]


def test_many_values_encode_as_few_do(vocabulary: Vocabulary) -> None:
    many = pa.array(["chat", None, "game", "bank"] * 1000)
    assert vocabulary.encode(many).tolist() == [3, UNKNOWN, UNKNOWN, 2] * 1000


def test_an_empty_column_encodes_to_nothing(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode(pa.chunked_array([], pa.string())).tolist() == []


def test_a_saved_vocabulary_comes_back(vocabulary: Vocabulary, tmp_path) -> None:
    Vocabularies(vocabulary, vocabulary, vocabulary, vocabulary).save(tmp_path / "v")
    loaded = Vocabularies.load(tmp_path / "v").micro_category
    assert (loaded.tokens.to_pylist(), loaded.counts.tolist()) == (["bank", "chat", "mail"], [0, 0, 7, 3, 3])


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"macro_id\.parquet.*rebuild"):
        Vocabularies.load(tmp_path)
