"""The cut and the horizon. Days are counted from 2026-01-01; the logs end before 2026-07-01, day 181."""

from datetime import date

import numpy as np
import pytest

from mfn_core.data.window import DAY, NEVER, Window, choose_window, day_of, end_of_data, seconds_of
from mfn_core.errors import ConfigError, InsufficientDataError

START = seconds_of(date(2026, 1, 1))
END = seconds_of(date(2026, 7, 1))


def _choose(
    micro_days: list[int | None],
    cut: date | None = None,
    horizon_days: int | None = None,
    first_days: list[int] | None = None,
    first_day_of_items: int = 0,
) -> Window:
    """Users with an event on ``first_days`` (by default day 0) and the item event that ``choose_window`` asks for on ``micro_days``."""
    return choose_window(
        start=START + first_day_of_items * DAY,
        end=END,
        cut=cut,
        horizon_days=horizon_days,
        first_event_U=START + np.array(first_days or [0] * len(micro_days)) * DAY,
        micro_event_U=np.array([NEVER if day is None else START + day * DAY for day in micro_days]),
    )


def test_data_end_at_the_midnight_after_the_last_event() -> None:
    assert end_of_data(END - 1) == END
    assert end_of_data(END) == END + DAY


def test_days_and_seconds_are_utc() -> None:
    assert (seconds_of(date(2026, 3, 4)), day_of(1_772_582_399 + 1)) == (1_772_582_400, date(2026, 3, 4))


def test_the_shortest_horizon_with_a_tenth_active_is_taken() -> None:
    # one of ten last seen on day 160, 21 days before the end
    assert _choose([160] + [None] * 9) == Window(END - 28 * DAY, 28, "")


def test_less_than_a_tenth_is_not_enough() -> None:
    assert _choose([180] + [None] * 10).horizon_days is None


def test_an_item_event_at_the_cut_is_in_the_horizon() -> None:
    assert _choose([174, None]) == Window(END - 7 * DAY, 7, "")


def test_users_first_seen_at_the_cut_or_later_do_not_count() -> None:
    # without the newcomer of day 174, one of ten is active within seven days only by day 153
    assert _choose([153, 180] + [None] * 9, first_days=[0, 174] + [0] * 9).horizon_days == 28


def test_a_horizon_in_which_everybody_is_active_is_passed_over() -> None:
    assert _choose([180, 180]).horizon_days is None


def test_a_horizon_in_which_nearly_everybody_is_active_yields_to_one_that_tells_users_apart() -> None:
    # Within seven days nineteen of twenty are active, within three, on days 178 to 180, two of them.
    days: list[int | None] = [178, 180, *[174] * 17, None]
    assert _choose(days) == Window(END - 3 * DAY, 3, "")
    # Nobody is active within three days: seven, though nearly everybody is.
    assert _choose([174] * 19 + [None]) == Window(END - 7 * DAY, 7, "")


def test_a_longer_horizon_is_not_taken_for_telling_users_apart() -> None:
    # Within seven days 19 of 21 users are active; fourteen days before the end twelve of them are known, ten of whom are.
    days: list[int | None] = [*[174] * 19, None, None]
    first = [*[160] * 10, *[170] * 9, 160, 160]
    assert _choose(days, first_days=first) == Window(END - 7 * DAY, 7, "")


@pytest.mark.parametrize(("first_day", "horizon"), [(167, 7), (168, 3), (175, 3), (176, 1), (179, 1)])
def test_the_item_log_before_the_cut_is_no_shorter_than_the_horizon(first_day: int, horizon: int) -> None:
    # Half of the users are active on the last day, 180.
    assert _choose([180, None], first_day_of_items=first_day) == Window(END - horizon * DAY, horizon, "")


def test_an_item_log_of_one_day_leaves_activity_out() -> None:
    assert _choose([180, None], first_day_of_items=180).horizon_days is None


def test_a_given_cut_may_leave_a_short_history() -> None:
    assert _choose([176, None], cut=date(2026, 6, 24), first_day_of_items=173) == Window(END - 7 * DAY, 7, "")


def test_without_a_horizon_the_history_ends_with_the_data() -> None:
    window = _choose([None, None])
    assert (window.cut, window.horizon_days) == (END, None)
    assert "no horizon of 1, 3, 7, 14, 28, 56, 91, 182 days at the end of the item log (2026-07-01), no longer than" in window.reason


def test_a_given_cut_limits_the_horizon_to_the_data_after_it() -> None:
    # the first item event after the cut (day 151) is on day 170: 28 days would hold it, but the logs end after 26
    window = _choose([170, None], cut=date(2026, 6, 5))
    assert (window.cut, window.horizon_days) == (seconds_of(date(2026, 6, 5)), None)
    assert "between the cut 2026-06-05 and the end of the item log (2026-07-01)" in window.reason


def test_a_given_cut_keeps_its_day_and_gets_the_shortest_horizon() -> None:
    assert _choose([160, None], cut=date(2026, 6, 1)) == Window(seconds_of(date(2026, 6, 1)), 14, "")


def test_a_given_horizon_is_counted_from_the_end() -> None:
    assert _choose([170, None], horizon_days=21) == Window(END - 21 * DAY, 21, "")


def test_cut_and_horizon_are_taken_as_given() -> None:
    assert _choose([152, None], cut=date(2026, 6, 1), horizon_days=3) == Window(seconds_of(date(2026, 6, 1)), 3, "")


def test_an_item_event_at_cut_plus_horizon_is_outside() -> None:
    with pytest.raises(InsufficientDataError, match="no user known at the cut 2026-06-01 has an item event in the 3 days"):
        _choose([154, None], cut=date(2026, 6, 1), horizon_days=3)


def test_everybody_active_is_one_class() -> None:
    with pytest.raises(InsufficientDataError, match=r"one class only: every user.*horizon_days"):
        _choose([180, 180], horizon_days=7)


def test_labels_beyond_the_data_are_refused_with_the_day_they_need() -> None:
    with pytest.raises(ConfigError, match=r"horizon_days=60 needs item logs up to 2026-07-31, but they end before 2026-07-01"):
        _choose([160, None], cut=date(2026, 6, 1), horizon_days=60)
