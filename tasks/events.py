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
_CODES = {"id": "id_code", "category": "category_code"}
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
        logs = {view: _load(connection, view, found) for view, found in partitions.items()}
        return cls(connection, logs, {view: _users(connection, view, log) for view, log in logs.items()})

    def last_time(self) -> int:
        """Time of the last event of either log, in seconds UTC."""
        lasts = [_seconds(users.agg(last=users.last_event.max()).to_pyarrow()["last"]) for users in self.users.values()]
        return int(np.max(lasts))

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

    def draft_vocabularies(self, cut: int) -> Vocabularies:
        """Every token before the cut, held-out ones too: a coding to count in, never kept."""
        drafts = {}
        for view, log in LOGS.items():
            pairs = pa.table({log.id: pa.array([], pa.string()), log.category: pa.array([], pa.string())})
            if view in self.logs:
                pairs = self._before(view, cut).select(log.id, log.category).distinct().to_pyarrow()
            for part, column in (("id", log.id), ("category", log.category)):
                tokens = pc.unique(pairs[column])
                drafts[f"{view}_{part}"] = Vocabulary.fit(tokens, np.ones(len(tokens), np.int64))
        return Vocabularies(**drafts)

    def encode(self, user_ids: NDArray[np.object_], vocabularies: Vocabularies, cut: int) -> "CodedEvents":
        """The events before the cut in numbers, so that they are joined and carried as text only once.

        Args:
            user_ids: of the dataset, in its order.
            vocabularies: that hold every token before the cut.
            cut: seconds UTC.
        """
        users = self._numbered("population", USER_ID, pa.array(user_ids, pa.string()), _ROW)
        tables: dict[View, Table] = {}
        for view in self.logs:
            log, rows = LOGS[view], self._before(view, cut).join(users, USER_ID)
            for part, column in (("id", log.id), ("category", log.category)):
                tokens = getattr(vocabularies, f"{view}_{part}").tokens
                rows = rows.join(self._numbered(f"{view}_{part}", column, tokens, _CODES[part]), column)
            coded = rows.select(_ROW, *_CODES.values(), EVENT_TIME, SEQ_NO)
            tables[view] = self.connection.create_table(f"{view}_coded", coded, temp=True)
        return CodedEvents(tables, user_ids, vocabularies)

    def _numbered(self, name: str, column: str, values: pa.Array, number: str) -> Table:
        return self.connection.create_table(
            name, pa.table({column: values, number: pa.array(np.arange(len(values)), pa.int32())}), temp=True
        )

    def _before(self, view: View, cut: int) -> Table:
        log = self.logs[view]
        return log.filter(log[EVENT_TIME] < _timestamp(cut))

    def _first_events(self) -> Table:
        either = ibis.union(*(users.select(USER_ID, "first_event") for users in self.users.values()))
        return either.group_by(USER_ID).agg(first_event=either.first_event.min())


@dataclass(frozen=True)
class CodedEvents:
    """Events as positions in the users and the tokens of a dataset."""

    tables: Mapping[View, Table]
    user_ids: NDArray[np.object_]
    vocabularies: Vocabularies

    def of_users(self, view: View, part: slice) -> pa.Table | None:
        """One view's events of the users in rows ``part``, in any order, dictionary-encoded; None without that log."""
        if view not in self.tables:
            return None
        log, coded = LOGS[view], self.tables[view]
        members = coded.filter((coded[_ROW] >= part.start) & (coded[_ROW] < part.stop))
        found = members.to_pyarrow().combine_chunks()
        names = {part: getattr(self.vocabularies, f"{view}_{part}").tokens for part in _CODES}
        owners = pc.subtract(found[_ROW], pa.scalar(part.start, pa.int32()))
        return pa.table(
            {
                USER_ID: _dictionary(owners, pa.array(self.user_ids[part], pa.string())),
                log.id: _dictionary(found[_CODES["id"]], names["id"]),
                log.category: _dictionary(found[_CODES["category"]], names["category"]),
                EVENT_TIME: found[EVENT_TIME],
                SEQ_NO: found[SEQ_NO],
            }
        )


def _dictionary(codes: pa.ChunkedArray, values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(codes.combine_chunks(), values)


def _load(connection: Backend, view: View, partitions: list[Manifest]) -> Table:
    log = LOGS[view]
    rows = engine.read_parquet(connection, [uri for each in partitions for uri in curated.part_uris(each)])
    return rows.select(USER_ID, log.id, log.category, EVENT_TIME, SEQ_NO)


def _users(connection: Backend, view: View, log: Table) -> Table:
    found = log.group_by(USER_ID).agg(first_event=log[EVENT_TIME].min(), last_event=log[EVENT_TIME].max())
    return connection.create_table(f"{view}_users", found, temp=True)


def _timestamp(seconds: int) -> TimestampScalar:
    return ibis.literal(datetime.fromtimestamp(seconds, UTC), type="timestamp('UTC')")


def _seconds(times: pa.ChunkedArray) -> Ints:
    """Whole seconds, rounded down; NEVER for null."""
    microseconds = pc.fill_null(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), NEVER).to_numpy()
    return np.where(microseconds == NEVER, NEVER, microseconds // _MICROSECONDS)
