"""THE sequence builder: log rows to histories. Dataset, scoring and serving all come through here.

Within a user, events are ordered by (event_time, seq_no, id, category) at the full resolution of the log. Across views the clock ticks in
whole seconds: an app event of the same second as an item event is not before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.errors import SchemaError
from mfn_core.schema import APP_LOGS, EVENT_TIME, ITEM_LOGS, SEQ_NO, USER_ID, LogSchema, View

TIME_TYPE = pa.timestamp("us", tz="UTC")
_MICROSECONDS = 1_000_000
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_EPOCH = 100_000_000_000  # seconds, the year 5138; milliseconds sent by mistake lie beyond

Ints = NDArray[np.int64]


def build_histories(
    macro_events: pa.Table | None,
    micro_events: pa.Table | None,
    user_ids: Sequence[str] | NDArray[np.object_],
    vocabularies: Vocabularies,
    *,
    is_sorted: bool = False,
) -> Histories:
    """Histories of ``user_ids``, in that order; empty for a user without events.

    Args:
        macro_events: rows of the curated app log, in any order; None: no such view. Rows of other users are left out. Ids,
            categories and user ids may be dictionary-encoded.
        micro_events: the same of the item log.
        user_ids: distinct external ids.
        vocabularies: what is not in them becomes UNKNOWN.
        is_sorted: the rows are those of ``user_ids`` only, grouped by user in that order, each user's in the order of a history.
    """
    users = pa.array(user_ids, pa.string())
    macro = _table_events(macro_events, APP_LOGS, users, vocabularies.macro_id, vocabularies.macro_category)
    micro = _table_events(micro_events, ITEM_LOGS, users, vocabularies.micro_id, vocabularies.micro_category)
    return _histories(macro, micro, users.to_pylist(), is_sorted=is_sorted)


def count_macro_before(macro: ViewHistories, micro: ViewHistories) -> NDArray[np.int32]:
    """For every micro event: its user's macro events of a strictly earlier second."""
    if len(macro.times) == 0 or len(micro.times) == 0:
        return np.zeros(len(micro.times), np.int32)
    start = min(macro.times.min(), micro.times.min())
    span = int(max(macro.times.max(), micro.times.max()) - start) + 1
    assert span * len(macro.offsets) < 2**63, "user and time do not fit one 64-bit key"
    macro_keys = _users_of(macro.offsets) * span + (macro.times - start)
    micro_users = _users_of(micro.offsets)
    earlier = np.searchsorted(macro_keys, micro_users * span + (micro.times - start), side="left")
    return (earlier - macro.offsets[micro_users]).astype(np.int32)


def raw_histories(frame: pd.DataFrame, vocabularies: Vocabularies) -> Histories:
    """Histories of a serving request: one row per user, events in lists.

    Columns: ``user_id`` and, per view, ``macro_ids``, ``macro_categories``, ``macro_times`` (``micro_…`` likewise): lists of equal
    length. A view whose three columns are absent is an absent view; a null cell is an empty list. Times are ISO-8601 strings or
    datetimes, both with a zone, or numbers of seconds since 1970 UTC. Events of equal time keep the order of the list.

    Raises:
        SchemaError: a column is missing, lists differ in length, or a value is null, of no such form or no valid Unicode.
    """
    if USER_ID not in frame.columns:
        raise SchemaError(f"the request has no column {USER_ID!r}; it has {', '.join(map(str, frame.columns)) or 'none'}")
    names = [str(user_id) for user_id in frame[USER_ID].tolist()]
    for name in names:
        _check_unicode(name, USER_ID)
    macro = _raw_events(frame, "macro", names, vocabularies.macro_id, vocabularies.macro_category)
    micro = _raw_events(frame, "micro", names, vocabularies.micro_id, vocabularies.micro_category)
    return _histories(macro, micro, names, is_sorted=False)


def raw_columns(view: View) -> dict[str, str]:
    """Request columns of a view by what they hold."""
    return {part: f"{view}_{part}" for part in ("ids", "categories", "times")}


@dataclass(frozen=True)
class _Events:
    """One view's events in the order they came: what both logs and requests are told to the builder by."""

    rows: Ints  # of the user; -1 for users that are not asked for
    times: Ints  # microseconds UTC
    ids: NDArray[np.int32]  # internal, and so the categories
    categories: NDArray[np.int32]
    ties: Callable[[Ints], tuple[Ints, ...]]  # what orders those of one user and time, by their places; the last key decides first


def _histories(macro: _Events | None, micro: _Events | None, names: Sequence[str], *, is_sorted: bool) -> Histories:
    macro_view = _view_histories(macro, len(names), is_sorted=is_sorted)
    micro_view = _view_histories(micro, len(names), is_sorted=is_sorted)
    return Histories(np.asarray(names, dtype=object), macro_view, micro_view, count_macro_before(macro_view, micro_view))


def _view_histories(events: _Events | None, num_users: int, *, is_sorted: bool) -> ViewHistories:
    if events is None or len(events.rows) == 0:
        return ViewHistories(np.zeros(num_users + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))
    if is_sorted:
        _check_sorted(events)
        order = np.arange(len(events.rows))
    else:
        order = _order(events)
    return ViewHistories(
        offsets=np.append(0, np.cumsum(np.bincount(events.rows[order], minlength=num_users))).astype(np.int64),
        ids=events.ids[order],
        categories=events.categories[order],
        times=events.times[order] // _MICROSECONDS,
    )


def _check_sorted(events: _Events) -> None:
    steps = np.diff(events.rows)
    assert (events.rows >= 0).all(), "there are events of other users"
    assert (steps >= 0).all(), "events are not grouped by user"
    assert (np.diff(events.times)[steps == 0] >= 0).all(), "events are not sorted by time"


def _order(events: _Events) -> Ints:
    """Events of known users, in the order of histories: by the row of the user first."""
    members = np.flatnonzero(events.rows >= 0)
    rows, times = events.rows[members], events.times[members]
    # Events that come by time already, as days do that are read one after the other, are only put to their users: that takes a pass
    # over numbers of 16 bits.
    order = np.argsort(rows.astype(np.min_scalar_type(int(rows.max(initial=0)))), kind="stable")
    ordered_rows, ordered_times = rows[order], times[order]
    is_same_user = np.diff(ordered_rows) == 0
    if (is_same_user & (np.diff(ordered_times) < 0)).any():
        order = _by_user_and_time(rows, times)
        ordered_times = times[order]
    is_equal = is_same_user & (np.diff(ordered_times) == 0)
    tied = np.flatnonzero(np.append(is_equal, False) | np.append(False, is_equal))
    if len(tied):
        finer = events.ties(members[order[tied]])
        order[tied] = order[tied][np.lexsort((*finer, ordered_times[tied], ordered_rows[tied]))]
    return members[order]


def _by_user_and_time(rows: Ints, times: Ints) -> Ints:
    """Order by row, then by time: as one number where both fit into it, which sorts several times faster."""
    first, last = int(times.min()), int(times.max())
    span = last - first + 1
    if span * (int(rows.max()) + 1) >= 2**63:
        return np.lexsort((times, rows))
    return np.argsort(rows * span + (times - first))


def _table_events(events: pa.Table | None, log: LogSchema, users: pa.Array, ids: Vocabulary, categories: Vocabulary) -> _Events | None:
    """Those of a curated log."""
    if events is None:
        return None

    def ties(places: Ints) -> tuple[Ints, ...]:
        # Category last: rows that differ in nothing else still come in the same order on every run.
        equal = events.take(pa.array(places))
        return _ranks(equal[log.category]), _ranks(equal[log.id]), equal[SEQ_NO].to_numpy()

    rows, times = _rows_of(events[USER_ID], users), _microseconds(events[EVENT_TIME])
    return _Events(rows, times, ids.encode(events[log.id]), categories.encode(events[log.category]), ties)


def _rows_of(user_ids: pa.ChunkedArray, users: pa.Array) -> Ints:
    """Position of every row's user in ``users``; -1 for any other user."""
    if pa.types.is_dictionary(user_ids.type):
        parts = [_positions(chunk.dictionary, users)[chunk.indices.to_numpy()] for chunk in user_ids.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)
    return _positions(user_ids, users)


def _positions(values: pa.Array | pa.ChunkedArray, value_set: pa.Array) -> Ints:
    found = pc.index_in(values.cast(value_set.type), value_set=value_set)
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _microseconds(times: pa.ChunkedArray) -> Ints:
    return times.cast(TIME_TYPE).cast(pa.int64()).to_numpy()


def _ranks(values: pa.ChunkedArray) -> Ints:
    """Rank of every string in byte order, equal strings alike."""
    encoded = values.combine_chunks()
    encoded = encoded if pa.types.is_dictionary(encoded.type) else pc.dictionary_encode(encoded)
    ranks = np.empty(len(encoded.dictionary), np.int64)
    ranks[pc.array_sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(ranks))
    return ranks[encoded.indices.to_numpy()]


def _users_of(offsets: Ints) -> Ints:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _raw_events(frame: pd.DataFrame, view: View, names: list[str], ids: Vocabulary, categories: Vocabulary) -> _Events | None:
    """Those of one view's lists; None where the request has no such view. A user who is asked for twice has two rows."""
    columns = raw_columns(view)
    missing = [column for column in columns.values() if column not in frame.columns]
    if len(missing) == len(columns):
        return None
    if missing:
        raise SchemaError(f"the request has no column {missing[0]!r}; a view needs {', '.join(columns.values())}, or none of them")
    lists = {
        part: [_as_list(cell, column, name) for cell, name in zip(frame[column].tolist(), names, strict=True)]
        for part, column in columns.items()
    }
    lengths = _common_lengths(lists, columns, names)
    flat = {part: [value for values in lists[part] for value in values] for part in lists}
    owners = np.repeat(np.arange(len(names)), lengths)
    return _Events(
        owners,
        _raw_microseconds(flat["times"], columns["times"], owners, names),
        ids.encode_texts(_strings(flat["ids"], columns["ids"], owners, names)),
        categories.encode_texts(_strings(flat["categories"], columns["categories"], owners, names)),
        ties=lambda places: (places,),  # as they stand in the list
    )


def _as_list(cell: Any, column: str, name: str) -> list[Any]:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)) or cell is pd.NA:
        return []
    if isinstance(cell, (list, tuple, np.ndarray, pd.Series)):
        return list(cell)
    raise SchemaError(f"{column} of user {name!r} is {cell!r} ({type(cell).__name__}); send a list, one entry per event")


def _common_lengths(lists: dict[str, list[list[Any]]], columns: dict[str, str], names: list[str]) -> Ints:
    lengths = {part: np.array([len(values) for values in lists[part]], np.int64) for part in lists}
    unequal = np.flatnonzero((lengths["ids"] != lengths["categories"]) | (lengths["ids"] != lengths["times"]))
    if len(unequal):
        user = int(unequal[0])
        found = ", ".join(f"{columns[part]} has {lengths[part][user]}" for part in columns)
        raise SchemaError(f"lists of unequal length for user {names[user]!r}: {found}; send one entry per event in each")
    return lengths["ids"]


def _strings(values: list[Any], column: str, owners: Ints, names: list[str]) -> list[str]:
    for position, value in enumerate(values):
        if not isinstance(value, (str, int, np.integer)) or isinstance(value, bool):
            raise SchemaError(f"{column} of user {names[owners[position]]!r} holds {value!r} ({type(value).__name__}); send strings")
    texts = [str(value) for value in values]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # in which?
        for text, owner in zip(texts, owners, strict=True):
            _check_unicode(text, f"{column} of user {names[owner]!r}")
    return texts


def _check_unicode(text: str, what: str) -> None:
    """JSON may hold half a character, as an emoji that was cut in two leaves one behind; no log does."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(f"{what} holds {text!r}, which is not valid Unicode ({error.reason}); send whole characters") from error


def _raw_microseconds(values: list[Any], column: str, owners: Ints, names: list[str]) -> Ints:
    microseconds = np.empty(len(values), np.int64)
    for position, value in enumerate(values):
        try:
            microseconds[position] = _to_microseconds(value)
        except (ValueError, OverflowError) as error:
            raise SchemaError(
                f"{column} of user {names[owners[position]]!r} holds {value!r}: {error}; "
                "send ISO-8601 with a zone (2026-03-04T09:12:07Z), a datetime with a zone, or seconds since 1970 UTC"
            ) from error
    return microseconds


def _to_microseconds(value: Any) -> int:
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()  # whose product with a million may not fit into its type
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) > _LARGEST_EPOCH:
            raise ValueError(f"beyond {_LARGEST_EPOCH} seconds; milliseconds?")
        return round(value * _MICROSECONDS)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise ValueError(f"{type(value).__name__} is no time")
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return (moment - _EPOCH) // _MICROSECOND
