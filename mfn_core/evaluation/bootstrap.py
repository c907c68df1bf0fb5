"""Percentile intervals by resampling users, of 95 % where nothing else is asked."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Figures = Mapping[str, float | None]
Interval = tuple[float, float]

ERROR = 0.05  # how often an interval may miss
PERCENTILES = (50 * ERROR, 100 - 50 * ERROR)
MIN_DEFINED_SHARE = 0.5  # of the resamples: of fewer there is no interval


def intervals(
    figures: Callable[[NDArray[np.int64]], Figures], num_users: int, samples: int, seed: int = 0, error: float = ERROR
) -> dict[str, Interval | None]:
    """An interval per figure.

    A resample in which a figure is undefined (one class only) is left out of that figure's interval; where more than half
    are, the interval is None.

    Args:
        figures: from the positions of the resampled users, which may repeat, to figures by name.
        num_users: users to draw from, as many at a time.
        samples: number of resamples.
        seed: the same seed draws the same users, so two models are compared on the same resamples.
        error: share of the resamples that lie outside, half on either side.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(samples if num_users else 0):
        for name, value in figures(generator.integers(0, num_users, num_users)).items():
            drawn.setdefault(name, []).extend([] if value is None else [value])
    return {name: _interval(values, samples, error) for name, values in drawn.items()}


def _interval(values: list[float], samples: int, error: float) -> Interval | None:
    if len(values) < MIN_DEFINED_SHARE * samples:
        return None
    low, high = np.percentile(values, (50 * error, 100 - 50 * error))
    return float(low), float(high)


def reflected(low: float, high: float, value: float) -> Interval:
    """The interval of an ECE: the percentiles of its resamples, mirrored at it and widened to it; ``evaluator.measure`` says why."""
    return max(2 * value - high, 0.0), max(2 * value - low, value)
