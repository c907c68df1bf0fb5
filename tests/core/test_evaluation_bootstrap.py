"""Percentile intervals by resampling users."""

import numpy as np
import pytest

from mfn_core.evaluation.bootstrap import intervals


def mean_of(values):
    values = np.asarray(values, float)
    return lambda chosen: {"mean": float(values[chosen].mean())}


def test_the_interval_of_a_mean_is_two_standard_errors_wide():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = intervals(mean_of(values), 400, samples=2000)["mean"]
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_the_rarer_an_interval_may_miss_the_wider_it_is():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = intervals(mean_of(values), 400, samples=4000, error=0.01)["mean"]
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 2.576 * error, abs=0.03)
    assert high == pytest.approx(values.mean() + 2.576 * error, abs=0.03)


def test_a_constant_has_an_interval_without_width():
    assert intervals(mean_of([3, 3, 3]), 3, samples=100) == {"mean": (3.0, 3.0)}


def test_the_same_seed_draws_the_same_users():
    assert intervals(mean_of([1, 2, 9]), 3, samples=100, seed=4) == intervals(mean_of([1, 2, 9]), 3, samples=100, seed=4)


def test_resamples_in_which_a_figure_is_undefined_are_left_out():
    drawn = iter(range(100))
    assert intervals(lambda chosen: {"figure": None if next(drawn) % 4 == 0 else 1.0}, 2, samples=100) == {"figure": (1.0, 1.0)}


def test_a_figure_that_is_mostly_undefined_has_no_interval():
    drawn = iter(range(100))
    assert intervals(lambda chosen: {"figure": 1.0 if next(drawn) < 49 else None}, 2, samples=100) == {"figure": None}


def test_nobody_to_draw_from_gives_no_interval():
    assert intervals(mean_of([]), 0, samples=100) == {}
