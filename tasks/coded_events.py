"""The events of a dataset as numbers, in a file for each shard and view.

The curated files are read by groups of rows, and strings are looked up once per dictionary and not once per row. What is
in memory is a group of rows, the users and the tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.data.window import seconds_of
from mfn_core.schema import EVENT_TIME, LOGS, PARTITION, SEQ_NO, USER_ID, View
from tasks import coding, curated
from tasks.manifest import Manifest

_ROWS_PER_GROUP = 2_000_000  # all users are hashed anew for each group
_TYPES = {"row": np.int32, "id": np.int32, "category": np.int32, "microseconds": np.int64, "seq_no": np.int64}

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Tokens:
    """The distinct ids and categories of a log, in the order in which they were met."""

    ids: pa.StringArray
    categories: pa.StringArray


@dataclass(frozen=True)
class CodedEvents:
    """Events before the cut, as positions in the users and the tokens of a dataset."""

    folder: Path
    tokens: Mapping[View, Tokens]
    user_ids: NDArray[np.object_]

    @classmethod
    def write(
        cls,
        partitions: Mapping[View, Sequence[Manifest]],
        user_ids: NDArray[np.object_],
        shard_starts: NDArray[np.int64],
        cut: int,
        folder: Path,
    ) -> "CodedEvents":
        """Code the events of curated partitions, both views side by side.

        Args:
            partitions: by view, in the order of days.
            user_ids: everyone who has an event before the cut.
            shard_starts: [num_shards + 1]; users of a shard stand together.
            cut: seconds UTC.
            folder: where the files are put.
        """
        users = pa.array(user_ids, pa.string())
        # NumPy sorts numbers of 16 bits in one pass over their digits.
        shard_U = np.repeat(np.arange(len(shard_starts) - 1, dtype=np.uint16), np.diff(shard_starts))
        with ThreadPoolExecutor(len(partitions)) as pool:
            tokens = pool.map(lambda view: _write_view(view, partitions[view], users, shard_U, cut, folder), partitions)
            return cls(folder, dict(zip(partitions, tokens, strict=True)), user_ids)

    def draft_vocabularies(self) -> Vocabularies:
        """Every token before the cut, held-out ones too: a coding to count in, never kept."""
        drafts = {}
        for view in LOGS:
            found = self.tokens.get(view, Tokens(_NONE, _NONE))
            for part, tokens in (("id", found.ids), ("category", found.categories)):
                drafts[f"{view}_{part}"] = Vocabulary.fit(tokens, np.ones(len(tokens), np.int64))
        return Vocabularies(**drafts)

    def of_shard(self, view: View, number: int, users: slice) -> pa.Table | None:
        """One view's events of a shard, in the order in which they were read, dictionary-encoded; None without that log."""
        if view not in self.tokens:
            return None
        log, tokens = LOGS[view], self.tokens[view]
        events = {name: _read(_path(self.folder, view, number, name), kind) for name, kind in _TYPES.items()}
        return pa.table(
            {
                USER_ID: _dictionary(events["row"] - np.int32(users.start), pa.array(self.user_ids[users], pa.string())),
                log.id: _dictionary(events["id"], tokens.ids),
                log.category: _dictionary(events["category"], tokens.categories),
                EVENT_TIME: pa.array(events["microseconds"]).cast(pa.timestamp("us", "UTC")),
                SEQ_NO: pa.array(events["seq_no"]),
            }
        )


_NONE = pa.array([], pa.string())


def _write_view(view: View, partitions: Sequence[Manifest], users: pa.Array, shard_U: Ints, cut: int, folder: Path) -> Tokens:
    log, ids, categories = LOGS[view], _NONE, _NONE
    strings, past = [USER_ID, log.id, log.category], [each for each in partitions if _begins(each) < cut]
    for rows in _groups(group for each in past for group in curated.row_groups(each, strings, [EVENT_TIME, SEQ_NO])):
        row, _ = coding.positions(rows[USER_ID], users)
        id_, ids = coding.positions(rows[log.id], ids)
        category, categories = coding.positions(rows[log.category], categories)
        microseconds = rows[EVENT_TIME].cast(pa.int64()).to_numpy()
        columns = (row, id_, category, microseconds, rows[SEQ_NO].to_numpy())
        is_past = microseconds < cut * 1_000_000
        known = columns if is_past.all() else [column[is_past] for column in columns]
        _append(dict(zip(_TYPES, known, strict=True)), shard_U, view, folder)
    return Tokens(ids, categories)


def _begins(partition: Manifest) -> int:
    """First second of the day: its events are no earlier."""
    return seconds_of(date.fromisoformat(partition.facts[PARTITION]))


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        if held and sum(map(len, held)) + len(table) > _ROWS_PER_GROUP:
            yield pa.concat_tables(held)
            held = []
        held.append(table)
    if held:
        yield pa.concat_tables(held)


def _append(events: Mapping[str, Ints], shard_U: Ints, view: View, folder: Path) -> None:
    shard_N = shard_U[events["row"]]
    order = np.argsort(shard_N, kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(shard_N))).tolist()
    for name, column in events.items():
        ordered = column[order].astype(_TYPES[name], copy=False)
        for number, (start, stop) in enumerate(pairwise(bounds)):
            if start < stop:
                with _path(folder, view, number, name).open("ab") as file:
                    file.write(ordered[start:stop].data)


def _read(path: Path, kind: type[np.integer]) -> Ints:
    return np.fromfile(path, kind) if path.exists() else np.empty(0, kind)


def _path(folder: Path, view: View, number: int, column: str) -> Path:
    return folder / f"{view}-{number:05d}.{column}"


def _dictionary(codes: Ints, values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), values)
