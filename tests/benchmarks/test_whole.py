"""How long tasks ran that overlap."""

from datetime import UTC, datetime

import pytest

from benchmarks.whole import covered


def at(second: int) -> datetime:
    return datetime(2026, 3, 4, 12, 0, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 4)], 3),
        ([(5, 9), (1, 4)], 7),
        ([(1, 6), (2, 3), (4, 8)], 7),
    ],
)
def test_a_second_counts_once_however_many_tasks_ran_in_it(spans: list[tuple[int, int]], seconds: float) -> None:
    assert covered([(at(began), at(ended)) for began, ended in spans]) == seconds
