"""The events of a dataset in the engine, and every question that is asked of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table, TimestampScalar
from numpy.typing import NDArray

from mfn_core.data.dataset import MISSING
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.data.window import NEVER, Window
from mfn_core.schema import EVENT_TIME, LOGS, SEQ_NO, USER_ID, View
from tasks import curated, engine
from tasks.manifest import Manifest

_ROW = "row"
_MICROSECONDS = 1_000_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Both logs of a range of days, loaded once: thousands of daily files are opened a single time."""

    connection: Backend
    logs: Mapping[View, Table]

    @classmethod
    def load(cls, connection: Backend, partitions: Mapping[View, list[Manifest]]) -> "Events":
        """The rows of curated partitions."""
        return cls(connection, {view: _load(connection, view, found) for view, found in partitions.items()})

    def last_time(self) -> int:
        """Time of the last event of either log, in seconds UTC."""
        lasts = [_seconds(log.agg(last=log[EVENT_TIME].max()).to_pyarrow()["last"]) for log in self.logs.values()]
        return int(np.max(lasts))

    def user_spans(self, cut: int | None) -> tuple[Ints, Ints]:
        """First event of each user in either log, and the micro event that ``choose_window`` asks for."""
        micro = self.logs["micro"]
        if cut is None:
            chosen = micro.group_by(USER_ID).agg(micro_event=micro[EVENT_TIME].max())
        else:
            later = micro.filter(micro[EVENT_TIME] >= _timestamp(cut))
            chosen = later.group_by(USER_ID).agg(micro_event=later[EVENT_TIME].min())
        users = self._first_events()
        spans = users.left_join(chosen, USER_ID).select(users.first_event, chosen.micro_event).to_pyarrow()
        return _seconds(spans["first_event"]), _seconds(spans["micro_event"])

    def users_before(self, cut: int) -> NDArray[np.object_]:
        """Sorted ids of the users with an event before the cut."""
        users = self._first_events()
        known = users.filter(users.first_event < _timestamp(cut)).select(USER_ID).order_by(USER_ID).to_pyarrow()
        return np.asarray(known[USER_ID].to_pylist(), dtype=object)

    def activity_times(self, window: Window, user_ids: NDArray[np.object_]) -> Ints:
        """First item event of each user in ``[cut, label_end)``, in seconds UTC; -1 without one."""
        times = np.full(len(user_ids), MISSING, np.int64)
        if window.horizon_days is None:
            return times
        micro = self.logs["micro"]
        labels = micro.filter((micro[EVENT_TIME] >= _timestamp(window.cut)) & (micro[EVENT_TIME] < _timestamp(window.label_end)))
        found = labels.group_by(USER_ID).agg(first=labels[EVENT_TIME].min()).to_pyarrow()
        rows = pc.fill_null(pc.index_in(found[USER_ID], value_set=pa.array(user_ids, pa.string())), MISSING).to_numpy()
        times[rows[rows != MISSING]] = _seconds(found["first"])[rows != MISSING]
        return times

    def draft_vocabularies(self, cut: int) -> Vocabularies:
        """Every token before the cut, held-out ones too: a coding to count in, never kept."""
        drafts = {}
        for view, log in LOGS.items():
            for part, column in (("id", log.id), ("category", log.category)):
                tokens = pa.array([], pa.string())
                if view in self.logs:
                    tokens = self._before(view, cut).select(column).distinct().to_pyarrow()[column].combine_chunks()
                drafts[f"{view}_{part}"] = Vocabulary.fit(tokens, np.ones(len(tokens), np.int64))
        return Vocabularies(**drafts)

    def number_users(self, user_ids: NDArray[np.object_]) -> Table:
        """The users with their rows in the dataset, as ``histories_of`` joins them."""
        rows = pa.table({USER_ID: pa.array(user_ids, pa.string()), _ROW: pa.array(np.arange(len(user_ids)))})
        return self.connection.create_table("population", rows, temp=True)

    def histories_of(self, view: View, users: Table, user_ids: NDArray[np.object_], part: slice, cut: int) -> pa.Table | None:
        """One view's events before the cut of the users in rows ``part``, in the order of histories; None without that log."""
        if view not in self.logs:
            return None
        log = LOGS[view]
        members = users.filter((users[_ROW] >= part.start) & (users[_ROW] < part.stop))
        # Category last: rows that differ in nothing else still come in the same order on every run.
        order = [_ROW, EVENT_TIME, SEQ_NO, log.id, log.category]
        joined = self._before(view, cut).inner_join(members, USER_ID)
        found = joined.order_by(order).select(_ROW, log.id, log.category, EVENT_TIME).to_pyarrow()
        owners = pc.subtract(found[_ROW].combine_chunks(), part.start)
        named = pa.DictionaryArray.from_arrays(owners, pa.array(user_ids[part], pa.string()))
        return found.drop_columns([_ROW]).append_column(USER_ID, named)

    def _before(self, view: View, cut: int) -> Table:
        log = self.logs[view]
        return log.filter(log[EVENT_TIME] < _timestamp(cut))

    def _first_events(self) -> Table:
        firsts = [log.group_by(USER_ID).agg(first_event=log[EVENT_TIME].min()) for log in self.logs.values()]
        either = ibis.union(*firsts)
        return either.group_by(USER_ID).agg(first_event=either.first_event.min())


def _load(connection: Backend, view: View, partitions: list[Manifest]) -> Table:
    log = LOGS[view]
    rows = engine.read_parquet(connection, [uri for each in partitions for uri in curated.part_uris(each)])
    return connection.create_table(f"{view}_events", rows.select(USER_ID, log.id, log.category, EVENT_TIME, SEQ_NO), temp=True)


def _timestamp(seconds: int) -> TimestampScalar:
    return ibis.literal(datetime.fromtimestamp(seconds, UTC), type="timestamp('UTC')")


def _seconds(times: pa.ChunkedArray) -> Ints:
    """Whole seconds, rounded down; NEVER for null."""
    microseconds = pc.fill_null(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), NEVER).to_numpy()
    return np.where(microseconds == NEVER, NEVER, microseconds // _MICROSECONDS)
