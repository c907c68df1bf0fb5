"""External ids to internal ids and back.

PAD is 0, UNKNOWN is 1, known tokens follow from ``FIRST_KNOWN`` in the order (most training events first, then by token). A vocabulary is
fitted on training events only: a held-out event or one at or after the cut leaves no trace in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfn_core.errors import ArtifactError
from mfn_core.schema import FIRST_KNOWN, PAD_TOKEN, UNKNOWN, UNKNOWN_TOKEN

_FEW = 2048  # below this many values a dict look-up beats building Arrow's hash table over all tokens


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Known tokens with their training counts.

    ``counts[i]`` is the number of training events of internal id ``i``; 0 for PAD and UNKNOWN.
    """

    tokens: pa.StringArray  # external ids of the internal ids 2, 3, …
    counts: NDArray[np.int64]  # [len(self)]

    @classmethod
    def fit(cls, tokens: pa.Array, counts: NDArray[np.int64], min_count: int = 1) -> "Vocabulary":
        """Keep the tokens of at least ``min_count`` training events, ordered by (-count, token).

        Args:
            tokens: distinct strings, in any order.
            counts: training events of each token.
            min_count: at least 1.
        """
        assert min_count >= 1
        assert len(tokens) == len(counts)
        kept = np.flatnonzero(counts >= min_count)
        table = pa.table({"token": pc.take(tokens, pa.array(kept)).cast(pa.string()), "count": counts[kept]})
        table = table.sort_by([("count", "descending"), ("token", "ascending")]).combine_chunks()
        return cls._of(table)

    def __len__(self) -> int:
        """Number of internal ids, PAD and UNKNOWN included."""
        return len(self.counts)

    def encode(self, values: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Internal ids of external ids; UNKNOWN for null and for what is not in the vocabulary."""
        if pa.types.is_dictionary(values.type):
            return self._encode_dictionary(values)
        if len(values) < _FEW:
            return self._looked_up(values.to_pylist())
        found = pc.index_in(values.cast(self.tokens.type), value_set=self.tokens)
        return pc.add(pc.fill_null(found, UNKNOWN - FIRST_KNOWN), FIRST_KNOWN).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)

    def encode_texts(self, texts: list[str]) -> NDArray[np.int32]:
        """Internal ids of external ids in a list."""
        return self._looked_up(texts) if len(texts) < _FEW else self.encode(pa.array(texts, pa.string()))

    def decode(self, ids: NDArray[np.integer]) -> NDArray[np.object_]:
        """External ids of internal ids, in the same shape; PAD and UNKNOWN by their token names."""
        return self._names[ids]

    def known_counts(self) -> NDArray[np.int64]:
        """Training counts of the tokens alone, as long as ``tokens``."""
        return self.counts[FIRST_KNOWN:]

    def save(self, path: Path) -> None:
        """Write as Parquet: one row per token, in the order of internal ids."""
        pq.write_table(pa.table({"token": self.tokens, "count": self.known_counts()}), path)

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: the file is missing or not such a table.
        """
        try:
            return cls._of(pq.read_table(path, columns=["token", "count"], memory_map=False).combine_chunks())
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(f"vocabulary {path} cannot be read ({error}); rebuild the artifact that holds it") from error

    @classmethod
    def _of(cls, table: pa.Table) -> "Vocabulary":
        counts = np.zeros(FIRST_KNOWN + len(table), np.int64)
        counts[FIRST_KNOWN:] = table["count"].to_numpy()
        tokens = table["token"].combine_chunks()
        return cls(tokens, counts)

    @cached_property
    def _index(self) -> dict[str | None, int]:
        return {token: position for position, token in enumerate(self.tokens.to_pylist(), start=FIRST_KNOWN)}

    @cached_property
    def _names(self) -> NDArray[np.object_]:
        return np.array([PAD_TOKEN, UNKNOWN_TOKEN, *self.tokens.to_pylist()], dtype=object)

    def _looked_up(self, texts: Sequence[str | None]) -> NDArray[np.int32]:
        return np.fromiter((self._index.get(text, UNKNOWN) for text in texts), np.int32, len(texts))

    def _encode_dictionary(self, values: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        parts = [self._encode_dictionary_chunk(chunk) for chunk in chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _encode_dictionary_chunk(self, chunk: pa.DictionaryArray) -> NDArray[np.int32]:
        ids_of_dictionary = np.append(self.encode(chunk.dictionary), np.int32(UNKNOWN))
        indices = pc.fill_null(chunk.indices, len(chunk.dictionary)).to_numpy(zero_copy_only=False)
        return ids_of_dictionary[indices]


@dataclass(frozen=True, eq=False)
class Vocabularies:
    """The four vocabularies of a dataset or a model."""

    macro_id: Vocabulary
    macro_category: Vocabulary
    micro_id: Vocabulary
    micro_category: Vocabulary

    def save(self, folder: Path) -> None:
        """Write ``<field>.parquet`` files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            getattr(self, field.name).save(folder / f"{field.name}.parquet")

    @classmethod
    def load(cls, folder: Path) -> "Vocabularies":
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: a file is missing or not a vocabulary.
        """
        return cls(**{field.name: Vocabulary.load(folder / f"{field.name}.parquet") for field in fields(cls)})
