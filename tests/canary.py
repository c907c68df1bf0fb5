"""Worlds in which each label is told outright by an event: in the past of what it tells of, or at or after it.

* Activity: an active user opens ``app.active`` and meets the item ``tell``; the others open ``app.quiet``.
* Attribute: one group opens ``app.left``, the other ``app.right``.
* Recommendation: each item event has its app event, ``app.item07`` for ``item07``, one second before. In the world of the future it
  comes one second after, or in the very same second: for every held-out event, and for half of the others. The rest teach the
  network what such an app means, so that a leak shows even if it opens in evaluation only.

All else is chance: items are drawn evenly, groups and activity by a coin. In the world of the future the first tell-tale of
a user lies exactly on the cut.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfn_core.data.held_out import HELD_OUT_EVENTS

CUT = date(2026, 6, 22)
HORIZON_DAYS = 7

_ITEM_EVENTS = 8
_NUM_ITEMS = 40
_HOUR = 3600
_DAY = 24 * _HOUR
_CUT_SECONDS = int(datetime(CUT.year, CUT.month, CUT.day, tzinfo=UTC).timestamp())

Event = tuple[str, str, str, int]  # user, id, category, seconds after the cut


@dataclass(frozen=True)
class CanaryWorld:
    """Raw rows of both logs, and the group of each user."""

    app_events: list[Event]
    item_events: list[Event]
    groups: dict[str, str]


def canary_world(when: Literal["past", "future"], num_users: int, seed: int) -> CanaryWorld:
    rng = np.random.default_rng(seed)
    app_events: list[Event] = []
    item_events: list[Event] = []
    groups: dict[str, str] = {}
    # Seconds after the cut. The one on the cut, and the one in the last second before it, find a comparison that is off by one.
    tell_times = (-1, -2 * _DAY, -13 * _DAY) if when == "past" else (0, 1, 5 * _DAY)
    for number in range(num_users):
        user = f"u{number:04d}"
        active, groups[user] = bool(rng.random() < 0.5), str(rng.choice(["left", "right"]))
        for time in tell_times:
            app_events.append((user, "app.active" if active else "app.quiet", "active" if active else "quiet", time))
            app_events.append((user, f"app.{groups[user]}", groups[user], time))
        others = rng.integers([-12 * _DAY, 0], [-_DAY, 5], (3, 2)).tolist()
        app_events += [(user, f"app.other{app}", "other", time) for time, app in others]
        if active:
            item_events.append((user, "tell", "tell", tell_times[-1] if when == "past" else 0))
            item_events.append((user, "item00", "even", int(rng.integers(_DAY, HORIZON_DAYS * _DAY))))

        hours = np.sort(rng.choice(np.arange(-12 * 24, -24), _ITEM_EVENTS, replace=False)).tolist()
        for position, hour in enumerate(hours):
            time, item = hour * _HOUR + int(rng.integers(60, 3000)), int(rng.integers(_NUM_ITEMS))
            is_late = when == "future" and (position >= _ITEM_EVENTS - HELD_OUT_EVENTS or rng.random() < 0.5)
            item_events.append((user, f"item{item:02d}", "odd" if item % 2 else "even", time))
            app_events.append((user, f"app.item{item:02d}", "reveals", time + (int(rng.integers(2)) if is_late else -1)))
    return CanaryWorld(app_events, item_events, groups)


def write_raw(world: CanaryWorld, folder: Path) -> None:
    """Lay the world down as raw logs for a first load."""
    folder.mkdir(parents=True)
    pq.write_table(_table(world.app_events, ("user_id", "app_id", "app_category")), folder / "app_logs.parquet")
    pq.write_table(_table(world.item_events, ("user_id", "item_id", "item_category")), folder / "item_logs.parquet")
    users = pa.table({"user_id": list(world.groups), "group": list(world.groups.values())})
    pq.write_table(users, folder / "users.parquet")


def _table(events: list[Event], names: tuple[str, ...]) -> pa.Table:
    *columns, seconds = zip(*events, strict=True)
    times = pa.array([(_CUT_SECONDS + second) * 1_000_000 for second in seconds]).cast(pa.timestamp("us", "UTC"))
    return pa.table(dict(zip(names, map(pa.array, columns), strict=True)) | {"event_time": times})
