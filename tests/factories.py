"""Tiny logs written down in a test, and the dataset made of them.

``app_log`` and ``item_log`` turn tuples into curated tables, ``dataset_of`` turns those into an open ``Dataset`` through the
project's own vocabularies and sequence builder, ``store_dataset`` writes it where ``Dataset.open`` reads it. ``patterned_dataset`` is
a small world for tests that need many users and no particular one. ``planned`` is what ``plan_training`` says of curated days that nobody
has validated.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfn_core.data.dataset import Dataset, DatasetFacts, Shard, shard_path, write_facts, write_shard
from mfn_core.data.held_out import held_out_events
from mfn_core.data.sequences import TIME_TYPE, build_histories
from mfn_core.data.splits import split_codes
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.schema import APP_LOGS, EVENT_TIME, EVENT_TYPE, ITEM_LOGS, LOGS, SEQ_NO, SPLITS, USER_ID, LogSchema, Split
from tasks import curated, manifest
from tasks.settings import Settings

Event = tuple[str, str, str, str]  # user, id, category, "2026-01-31T12:00:00"


def app_log(rows: Sequence[Event], seq_no: Sequence[int] | None = None) -> pa.Table:
    """Rows of the curated app log, in the order given; times are UTC."""
    return _curated(APP_LOGS, rows, seq_no)


def item_log(rows: Sequence[Event], seq_no: Sequence[int] | None = None) -> pa.Table:
    """Rows of the curated item log, in the order given; times are UTC."""
    return _curated(ITEM_LOGS, rows, seq_no)


def dataset_of(
    app_events: pa.Table,
    item_events: pa.Table,
    *,
    users: Sequence[str],
    cut: str = "2026-06-01T00:00:00",
    split: Mapping[str, Split] | None = None,
    activity: Mapping[str, int] | None = None,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
) -> Dataset:
    """The dataset of these events, all of which must be older than the cut; the vocabularies know every one of them.

    Args:
        app_events: from ``app_log``.
        item_events: from ``item_log``.
        users: the rows of the dataset, in this order.
        cut: UTC.
        split: split of each user; by default the hash of the user id with seed 0 decides.
        activity: 0 or 1 by user; a user left out is unlabelled. None: the task is left out.
        attributes: class by user, by attribute; a user left out is unlabelled.
    """
    attributes = attributes or {}
    classes = {name: tuple(sorted(set(by_user.values()))) for name, by_user in attributes.items()}
    labels = [[classes[name].index(by_user[user]) if user in by_user else -1 for user in users] for name, by_user in attributes.items()]
    vocabularies = Vocabularies(
        *(_fitted(table[column]) for table, log in ((app_events, APP_LOGS), (item_events, ITEM_LOGS)) for column in (log.id, log.category))
    )
    histories = build_histories(app_events, item_events, users, vocabularies)
    runs = {"activity": activity is not None, "attribute": bool(attributes), "recommendation": len(item_events) > 0}
    return Dataset(
        histories=histories,
        split_B=split_codes(users, 0) if split is None else np.array([SPLITS.index(split[user]) for user in users], np.int8),
        activity_B=np.array([(activity or {}).get(user, -1) for user in users], np.int8),
        activity_time_B=np.full(len(users), -1, np.int64),
        attributes_BA=np.array(labels, np.int32).reshape(len(labels), len(users)).T,
        vocabularies=vocabularies,
        facts=DatasetFacts(
            cut=int(datetime.fromisoformat(cut).replace(tzinfo=UTC).timestamp()),
            horizon_days=7 if activity is not None else None,
            attribute_classes=classes,
            tasks=tuple(task for task, can_run in runs.items() if can_run),
            skipped={task: "left out by the test" for task, can_run in runs.items() if not can_run},
            num_shards=1,
        ),
        held_out_B=held_out_events(histories.micro.lengths),
    )


def store_dataset(dataset: Dataset, folder: Path) -> Path:
    """Write the dataset as one shard; returns the folder."""
    folder.mkdir(parents=True)
    labels = (dataset.split_B, dataset.activity_B, dataset.activity_time_B, dataset.attributes_BA)
    write_shard(shard_path(folder, 0), Shard(dataset.histories, *labels), tuple(dataset.attribute_classes))
    write_facts(folder, dataset.facts, dataset.vocabularies)
    return folder


def patterned_dataset(num_users: int = 60) -> Dataset:
    """A world without chance: user n opens apps and items in steps of n, of 1 to 9 events a view; the parity of n is the label.

    Every third user has no apps, every seventh no items. Attribute ``colour`` has three classes and lacks every fifth user.
    """
    users = [f"u{number:03d}" for number in range(num_users)]
    apps, items = [], []
    for number, user in enumerate(users):
        length = 1 + number % 9
        apps += [_event(user, "app", (number + step) % 12, step) for step in range(length) if number % 3]
        items += [_event(user, "item", (number + 3 * step) % 20, step, minute=30) for step in range(length) if number % 7]
    return dataset_of(
        app_log(apps),
        item_log(items),
        users=users,
        split={user: ("train", "train", "validation", "test")[number // 2 % 4] for number, user in enumerate(users)},
        activity={user: number % 2 for number, user in enumerate(users)},
        attributes={"colour": {user: ("blue", "green", "red")[number % 3] for number, user in enumerate(users) if number % 5}},
    )


def _event(user: str, kind: str, number: int, hour: int, minute: int = 0) -> Event:
    return user, f"{kind}{number:02d}", f"{kind}-category{number % 4}", f"2026-05-01T{hour:02d}:{minute:02d}:00"


def planned(settings: Settings, fingerprint: str, first_day: date = date.min, last_day: date = date.max) -> dict[str, Any]:
    """The part of ``plan_training``'s answer that ``build_dataset`` reads."""
    partitions = {view: curated.partitions(settings, LOGS[view], first_day, last_day) for view in settings.views}
    inputs = manifest.digest_of(*curated.content(partitions, curated.users(settings)))
    return {"fingerprint": fingerprint, "days": [str(first_day), str(last_day)], "inputs": inputs}


def _curated(log: LogSchema, rows: Sequence[Event], seq_no: Sequence[int] | None) -> pa.Table:
    user_ids, ids, categories, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    moments = [datetime.fromisoformat(time).replace(tzinfo=UTC) for time in times]
    return pa.table(
        {
            USER_ID: pa.array(user_ids, pa.string()),
            log.id: pa.array(ids, pa.string()),
            log.category: pa.array(categories, pa.string()),
            EVENT_TIME: pa.array(moments, TIME_TYPE),
            SEQ_NO: pa.array(seq_no or [0] * len(rows), pa.int64()),
            EVENT_TYPE: pa.nulls(len(rows), pa.string()),
            log.duration: pa.nulls(len(rows), pa.float64()),
        }
    )


def _fitted(column: pa.ChunkedArray) -> Vocabulary:
    counted = pc.value_counts(column.combine_chunks())
    return Vocabulary.fit(counted.field("values"), counted.field("counts").to_numpy(zero_copy_only=False))
