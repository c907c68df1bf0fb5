"""The events of a dataset in the engine, and every question that is asked of its users."""

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
from mfn_core.data.window import NEVER, Window
from mfn_core.schema import EVENT_TIME, USER_ID, View
from tasks import curated, engine
from tasks.manifest import Manifest

_MICROSECONDS = 1_000_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Both logs of a range of days, with the first and last event of every user."""

    connection: Backend
    logs: Mapping[View, Table]
    users: Mapping[View, Table]

    @classmethod
    def load(cls, connection: Backend, partitions: Mapping[View, list[Manifest]]) -> "Events":
        """The rows of curated partitions."""
        logs = {view: _load(connection, found) for view, found in partitions.items()}
        return cls(connection, logs, {view: _users(connection, view, log) for view, log in logs.items()})

    def last_times(self) -> dict[View, int]:
        """Time of the last event of each log, in seconds UTC."""
        lasts = {view: users.agg(last=users.last_event.max()).to_pyarrow()["last"] for view, users in self.users.items()}
        return {view: int(_seconds(last)[0]) for view, last in lasts.items()}

    def first_time(self, view: View) -> int:
        """Time of the first event of a log, in seconds UTC."""
        users = self.users[view]
        return int(_seconds(users.agg(first=users.first_event.min()).to_pyarrow()["first"])[0])

    def user_spans(self, cut: int | None) -> tuple[Ints, Ints]:
        """First event of each user in either log, and the micro event that ``choose_window`` asks for."""
        if cut is None:
            chosen = self.users["micro"].select(USER_ID, micro_event="last_event")
        else:
            micro = self.logs["micro"]
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

    def _first_events(self) -> Table:
        either = ibis.union(*(users.select(USER_ID, "first_event") for users in self.users.values()))
        return either.group_by(USER_ID).agg(first_event=either.first_event.min())


def _load(connection: Backend, partitions: list[Manifest]) -> Table:
    rows = engine.read_parquet(connection, [uri for each in partitions for uri in curated.part_uris(each)])
    return rows.select(USER_ID, EVENT_TIME)


def _users(connection: Backend, view: View, log: Table) -> Table:
    found = log.group_by(USER_ID).agg(first_event=log[EVENT_TIME].min(), last_event=log[EVENT_TIME].max())
    return connection.create_table(f"{view}_users", found, temp=True)


def _timestamp(seconds: int) -> TimestampScalar:
    return ibis.literal(datetime.fromtimestamp(seconds, UTC), type="timestamp('UTC')")


def _seconds(times: pa.ChunkedArray) -> Ints:
    """Whole seconds, rounded down; NEVER for null."""
    microseconds = pc.fill_null(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), NEVER).to_numpy()
    return np.where(microseconds == NEVER, NEVER, microseconds // _MICROSECONDS)
