"""The dataset on disk: Arrow IPC shards of whole users, four vocabularies, one JSON of facts.

::

    <folder>/shard-00000.arrow …     one row per user, lists of events; uncompressed, so that they can be memory-mapped
    <folder>/vocabularies/*.parquet
    <folder>/dataset.json            cut, horizon, attribute classes, downstream tasks, what was skipped and why
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.data.held_out import DROPPED, HELD_OUT_EVENTS, held_out_events
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.errors import ArtifactError, ConfigError
from mfn_core.schema import SPLITS, USER_ID, DownstreamTask, MaskSeen, Split, View

_FACTS = "dataset.json"
_VOCABULARIES = "vocabularies"
_ATTRIBUTE_PREFIX = "attribute_"
_MOST_EVENTS = 2**31 - 1  # of a view in one shard: the offsets of a list column have 32 bits
MISSING = -1
MOST_RETURNING = 0.2  # the simulated worlds, in which nobody means to return, come to 0.18 by chance
_MOST_ASKED, _ASKED_AT_ONCE = 20_000, 512


@dataclass(frozen=True)
class DatasetFacts:
    """What a dataset says of itself beside the rows."""

    cut: int  # seconds UTC; every event of the histories is earlier
    horizon_days: int | None  # activity is a micro event in [cut, cut + horizon); None: activity is left out
    attribute_classes: dict[str, tuple[str, ...]]  # sorted classes by attribute
    tasks: tuple[DownstreamTask, ...]  # the downstream tasks that can run
    skipped: dict[str, str]  # task -> why it cannot
    num_shards: int


@dataclass(frozen=True)
class Shard:
    """Whole users with their labels."""

    histories: Histories
    split_B: NDArray[np.int8]  # position in SPLITS
    activity_B: NDArray[np.int8]  # 0 or 1; -1 unlabelled
    activity_time_B: NDArray[np.int64]  # seconds UTC of the first micro event in the horizon; -1 without one
    attributes_BA: NDArray[np.int32]  # class; -1 unlabelled


@dataclass(frozen=True, eq=False)
class Dataset:
    """What training and evaluation read.

    One shard is read in place from the memory map; several are concatenated into memory (20 bytes an event, 24 in the micro view).
    """

    histories: Histories
    split_B: NDArray[np.int8]
    activity_B: NDArray[np.int8]
    activity_time_B: NDArray[np.int64]
    attributes_BA: NDArray[np.int32]
    vocabularies: Vocabularies
    facts: DatasetFacts
    held_out_B: NDArray[np.int8]  # micro events held out per user: 0 or 2

    @property
    def cut(self) -> int:
        """Seconds UTC; every event of the histories is earlier."""
        return self.facts.cut

    @property
    def horizon_days(self) -> int | None:
        """Days of the activity label; None where activity is left out."""
        return self.facts.horizon_days

    @property
    def attribute_classes(self) -> dict[str, tuple[str, ...]]:
        """Sorted classes by attribute."""
        return self.facts.attribute_classes

    @property
    def tasks(self) -> tuple[DownstreamTask, ...]:
        """The downstream tasks that can run."""
        return self.facts.tasks

    @property
    def skipped(self) -> dict[str, str]:
        """Why each other downstream task cannot."""
        return self.facts.skipped

    def __len__(self) -> int:
        return len(self.histories)

    def rows_of(self, split: Split) -> NDArray[np.int64]:
        """Users of a split."""
        return np.flatnonzero(self.split_B == SPLITS.index(split))

    @cached_property
    def returning_share(self) -> float:
        """Share of the users with held-out events, or of up to 20,000 of them, whose validation target is of an item that they had met."""
        rows = np.flatnonzero(self.held_out_B == HELD_OUT_EVENTS)
        asked = rows[:: max(1, -(-len(rows) // _MOST_ASKED))]
        parts = (asked[start : start + _ASKED_AT_ONCE] for start in range(0, len(asked), _ASKED_AT_ONCE))
        returning = sum(int(self.histories.micro.is_returning(part, dropped=DROPPED["validation"]).sum()) for part in parts)
        return returning / max(1, len(asked))

    def masks_seen(self, asked: MaskSeen) -> bool:
        """Whether rankings leave out items the user has met: as asked; ``auto``: unless more than ``MOST_RETURNING`` return to one."""
        return self.returning_share <= MOST_RETURNING if asked == "auto" else asked == "on"

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open what ``write_shard`` and ``write_facts`` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        facts = read_facts(folder)
        shard = _concatenate([read_shard(shard_path(folder, number), facts.attribute_classes) for number in range(facts.num_shards)])
        vocabularies = Vocabularies.load(folder / _VOCABULARIES)
        held_out_B = held_out_events(shard.histories.micro.lengths)
        labels = (shard.split_B, shard.activity_B, shard.activity_time_B, shard.attributes_BA)
        return cls(shard.histories, *labels, vocabularies, facts, held_out_B)


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:05d}.arrow"


def write_shard(path: Path, shard: Shard, attributes: tuple[str, ...]) -> None:
    """Write one shard; ``attributes`` names the columns of ``attributes_BA``.

    Raises:
        ConfigError: it has more events of a view than a file can count.
    """
    histories = shard.histories
    columns: dict[str, pa.Array] = {USER_ID: pa.array(histories.user_ids, pa.string()), "split": pa.array(shard.split_B)}
    for view in ("macro", "micro"):
        events = _view(histories, view)
        for part in ("ids", "categories", "times"):
            columns[f"{view}_{part}"] = _list_array(events.offsets, getattr(events, part))
    columns["micro_macro_before"] = _list_array(histories.micro.offsets, histories.macro_before)
    columns["activity"] = _nullable(shard.activity_B)
    columns["activity_time"] = _nullable(shard.activity_time_B)
    for position, name in enumerate(attributes):
        columns[f"{_ATTRIBUTE_PREFIX}{name}"] = _nullable(shard.attributes_BA[:, position])
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_shard(path: Path, attributes: dict[str, tuple[str, ...]]) -> Shard:
    """Read one shard through a memory map.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        macro, micro = _read_view(table, "macro"), _read_view(table, "micro")
        histories = Histories(
            user_ids=np.asarray(table[USER_ID].to_pylist(), dtype=object),
            macro=macro,
            micro=micro,
            macro_before=_list_values(table["micro_macro_before"]),
        )
        labels = [_filled(table[f"{_ATTRIBUTE_PREFIX}{name}"]) for name in attributes]
        return Shard(
            histories=histories,
            split_B=table["split"].to_numpy(),
            activity_B=_filled(table["activity"]),
            activity_time_B=_filled(table["activity_time"]),
            attributes_BA=np.stack(labels, axis=1) if labels else np.empty((len(table), 0), np.int32),
        )
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise ArtifactError(f"shard {path} cannot be read ({error}); delete the dataset and build it again") from error


def write_facts(folder: Path, facts: DatasetFacts, vocabularies: Vocabularies) -> None:
    """Write what stands beside the shards."""
    vocabularies.save(folder / _VOCABULARIES)
    (folder / _FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")


def read_facts(folder: Path) -> DatasetFacts:
    """Read ``dataset.json``.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    path = folder / _FACTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        classes = {name: tuple(values) for name, values in content.pop("attribute_classes").items()}
        return DatasetFacts(**content | {"attribute_classes": classes, "tasks": tuple(content["tasks"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error!r}); delete the dataset and build it again") from error


def _view(histories: Histories, view: View) -> ViewHistories:
    return histories.macro if view == "macro" else histories.micro


def _list_array(offsets: NDArray[np.int64], values: NDArray[np.integer]) -> pa.ListArray:
    if offsets[-1] > _MOST_EVENTS:
        raise ConfigError(f"one shard has {offsets[-1]:,} events of a view, at most {_MOST_EVENTS:,} fit into a file; raise num_shards")
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def _nullable(values: NDArray[np.integer]) -> pa.Array:
    return pa.array(values, mask=values == MISSING)


def _filled(column: pa.ChunkedArray) -> NDArray[Any]:
    return column.fill_null(MISSING).to_numpy()


def _list_values(column: pa.ChunkedArray) -> NDArray[Any]:
    return _only_chunk(column).flatten().to_numpy()


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column that was written as one record batch; a column without rows may have none."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _read_view(table: pa.Table, view: View) -> ViewHistories:
    offsets = _only_chunk(table[f"{view}_ids"]).offsets.to_numpy().astype(np.int64)
    return ViewHistories(offsets, *(_list_values(table[f"{view}_{part}"]) for part in ("ids", "categories", "times")))


def _concatenate(shards: list[Shard]) -> Shard:
    if len(shards) == 1:
        return shards[0]
    histories = Histories(
        user_ids=np.concatenate([shard.histories.user_ids for shard in shards]),
        macro=_concatenate_views([shard.histories.macro for shard in shards]),
        micro=_concatenate_views([shard.histories.micro for shard in shards]),
        macro_before=np.concatenate([shard.histories.macro_before for shard in shards]),
    )
    return Shard(
        histories=histories,
        split_B=np.concatenate([shard.split_B for shard in shards]),
        activity_B=np.concatenate([shard.activity_B for shard in shards]),
        activity_time_B=np.concatenate([shard.activity_time_B for shard in shards]),
        attributes_BA=np.concatenate([shard.attributes_BA for shard in shards]),
    )


def _concatenate_views(views: list[ViewHistories]) -> ViewHistories:
    lengths = np.concatenate([view.lengths for view in views])
    return ViewHistories(
        offsets=np.append(0, np.cumsum(lengths)).astype(np.int64),
        ids=np.concatenate([view.ids for view in views]),
        categories=np.concatenate([view.categories for view in views]),
        times=np.concatenate([view.times for view in views]),
    )
