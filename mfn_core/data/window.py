"""The cut and the horizon: what is history, and what is the future that activity labels come from."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from mfn_core.errors import ConfigError, InsufficientDataError

DAY = 86_400
AUTO_HORIZONS = (7, 14, 28, 56, 91, 182, 3, 1)  # in the order of preference: the last two are for short logs and for daily users
AUTO_ACTIVE_SHARE = 0.1
_NO_HORIZON = (
    f"no horizon of {', '.join(map(str, sorted(AUTO_HORIZONS)))} days {{place}} in which at least {AUTO_ACTIVE_SHARE:.0%} of the users, "
    "but not all, have an item event"
)

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Window:
    """Histories are events before ``cut``; a micro event in ``[cut, label_end)`` makes a user active."""

    cut: int  # seconds UTC
    horizon_days: int | None  # None: no activity label
    reason: str  # why there is none, else empty

    @property
    def label_end(self) -> int:
        """Seconds UTC; the cut itself where there is no horizon."""
        return self.cut + (self.horizon_days or 0) * DAY


def end_of_data(last_event_time: int) -> int:
    """The first midnight UTC after the last event, in seconds."""
    return (last_event_time // DAY + 1) * DAY


def seconds_of(day: date) -> int:
    """00:00 UTC of a day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def day_of(seconds: int) -> date:
    """The UTC day of a time."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))).date()


def choose_window(
    *, start: int, end: int, cut: date | None, horizon_days: int | None, first_event_U: NDArray[np.int64], micro_event_U: NDArray[np.int64]
) -> Window:
    """The window that the settings ask for, or the first that labels enough users.

    A horizon left open is the first of ``AUTO_HORIZONS`` in which at least ``AUTO_ACTIVE_SHARE`` of the users known at the cut, but not all
    of them, are active; where fewer than that share are inactive, a shorter one, if there is one in which as many are. Where the cut is
    open too, the item log before it is no shorter than the horizon: what comes after the cut is lost to every other task. If there is
    none, activity is left out, and a cut left open moves to that end.

    Args:
        start: first day of the item log, 00:00 UTC.
        end: exclusive end of the item log, from which the labels come.
        cut: day of the cut; None: the end minus the horizon.
        horizon_days: None: to be chosen.
        first_event_U: first event of each user in either view; seconds UTC.
        micro_event_U: the first micro event of each user at or after ``cut``, or, where ``cut`` is None, the last of all; ``NEVER`` for a
            user without one.

    Raises:
        ConfigError: the labels of a given cut and horizon would need data that is not there yet.
        InsufficientDataError: at the given horizon everybody is active, or nobody.
    """
    if horizon_days is not None:
        return _given_horizon(end, cut, horizon_days, first_event_U, micro_event_U)
    shares: dict[int, float] = {}
    for days in AUTO_HORIZONS:
        window = _window(end, cut, days)
        is_there = window.label_end <= end and (cut is not None or window.cut - start >= days * DAY)
        share = _active_share(window, first_event_U, micro_event_U)
        if is_there and share is not None and AUTO_ACTIVE_SHARE <= share < 1:
            shares[days] = share
    if shares:
        first = next(iter(shares))
        shorter = [days for days, share in shares.items() if days < first and share <= 1 - AUTO_ACTIVE_SHARE]
        return _window(end, cut, shorter[0] if shares[first] > 1 - AUTO_ACTIVE_SHARE and shorter else first)
    if cut is None:
        place = f"at the end of the item log ({day_of(end)}), no longer than the log before it,"
        return Window(end, None, _NO_HORIZON.format(place=place))
    return Window(seconds_of(cut), None, _NO_HORIZON.format(place=f"between the cut {cut} and the end of the item log ({day_of(end)})"))


def _window(end: int, cut: date | None, days: int) -> Window:
    return Window(end - days * DAY if cut is None else seconds_of(cut), days, "")


def _given_horizon(
    end: int, cut: date | None, horizon_days: int, first_event_U: NDArray[np.int64], micro_event_U: NDArray[np.int64]
) -> Window:
    window = _window(end, cut, horizon_days)
    if window.label_end > end:
        raise ConfigError(
            f"cut={cut} with horizon_days={horizon_days} needs item logs up to {day_of(window.label_end)}, but they end before "
            f"{day_of(end)}; "
            "choose an earlier cut, a shorter horizon, or leave one of them empty"
        )
    share = _active_share(window, first_event_U, micro_event_U)
    if share in (0, 1):
        raise InsufficientDataError(
            f"activity has one class only: {'every' if share else 'no'} user known at the cut {day_of(window.cut)} has an item event in "
            f"the {horizon_days} days after it; choose another horizon_days or cut, or leave horizon_days empty"
        )
    return window


def _active_share(window: Window, first_event_U: NDArray[np.int64], micro_event_U: NDArray[np.int64]) -> float | None:
    known_U = first_event_U < window.cut
    if not known_U.any():
        return None
    events = micro_event_U[known_U]
    return float(np.mean((events >= window.cut) & (events < window.label_end)))
