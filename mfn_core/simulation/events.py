"""The events of a world: visits and items by preference and by successor, apps on their own account and before items."""

from dataclasses import dataclass

import numpy as np

from mfn_core.config import SimulationConfig
from mfn_core.simulation.catalogue import Catalogue, Ints
from mfn_core.simulation.population import DAY, Flags, Floats, Population, draw_codes, log_odds_of, sigmoid
from mfn_core.simulation.recipes import RECIPES

_SUCCESSOR_SHARE = 0.3
_WEEK = 7 * DAY
_BACKGROUND = 0.1  # share of events that ignore the preference
_ZIPF = 0.8
_SESSIONS_PER_WEEK = 2.5
_MEDIAN_GAP = 90.0  # seconds between the item events of a session
_REDRAWS = 6
_WEEKDAY_WEIGHTS = np.array([0.85, 0.8, 0.8, 0.85, 1.0, 1.2, 1.2]) / 1.2  # Monday first
_HOUR_WEIGHTS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 8, 7, 6, 6, 8, 8, 7, 6, 6, 7, 9, 11, 12, 12, 9, 5], dtype=np.float64)


@dataclass(frozen=True)
class Events:
    """Events of one view: user row, seconds since the first midnight, entry of the catalogue."""

    users: Ints
    seconds: Ints
    entries: Ints


def draw_item_events(rng: np.random.Generator, config: SimulationConfig, population: Population, items: Catalogue) -> Events:
    """Item events, sorted by user and time."""
    users, seconds = _draw_visits(rng, config, population)
    return Events(users, seconds, _draw_items(rng, population.micro_preference, items, users))


def draw_app_events(
    rng: np.random.Generator, config: SimulationConfig, population: Population, apps: Catalogue, item_categories: Ints, micro: Events
) -> Events:
    """App events on the user's own account, all along, and those that foretell an item event."""
    foretold_share = RECIPES[config.world].foretold_share
    own_counts = rng.poisson(population.macro_events * (1 - foretold_share) / _WEEKDAY_WEIGHTS.mean())
    own_users = np.repeat(np.arange(config.num_users), own_counts)
    since = np.maximum(population.arrival[own_users], 0)
    own_users, own_seconds = _cycled(rng, config, own_users, since + rng.random(len(own_users)) * (config.num_days * DAY - since))
    own_entries = _draw_entries(rng, apps, _draw_categories(rng, population.macro_preference, apps, own_users))

    # The app event comes after the item event before, so that it is the last one before the item it foretells.
    is_first = np.diff(micro.users, prepend=-1) != 0
    room = np.minimum(np.where(is_first, micro.seconds, np.diff(micro.seconds, prepend=0)), 3600)
    foretold = (rng.random(len(micro.users)) < foretold_share) & (population.macro_events[micro.users] > 0) & (room > 1)
    told_users = micro.users[foretold]
    told_seconds = micro.seconds[foretold] - rng.integers(1, room[foretold])
    told_categories = _draw_categories(rng, population.macro_preference, apps, told_users)
    place = item_categories[foretold] % apps.sizes[told_categories]
    told_entries = apps.members[apps.first[told_categories] + place]

    users = np.concatenate([own_users, told_users])
    seconds = np.concatenate([own_seconds, told_seconds])
    order = np.lexsort((seconds, users))
    return Events(users[order], seconds[order], np.concatenate([own_entries, told_entries])[order])


def _draw_visits(rng: np.random.Generator, config: SimulationConfig, population: Population) -> tuple[Ints, Ints]:
    """Users and times of the item events: sessions in the weeks of a two-state Markov chain that starts at arrival."""
    recipe, codes = RECIPES[config.world], draw_codes(rng, len(population.link))
    stays, returns = (sigmoid(log_odds_of(trait, population, codes[[1, 0, 2]])) for trait in (recipe.stay, recipe.back))
    num_users, end = config.num_users, config.num_days * DAY
    num_weeks = -(-end // _WEEK) + 1
    present = np.ones((num_weeks, num_users), dtype=np.bool_)
    chance = np.ones(num_users)
    expected_weeks = np.zeros(num_users)
    for week in range(num_weeks):
        if week:
            chance = chance * stays + (1 - chance) * returns
            present[week] = rng.random(num_users) < np.where(present[week - 1], stays, returns)
        starts = population.arrival + week * _WEEK
        expected_weeks += chance * np.clip(np.minimum(starts + _WEEK, end) - np.maximum(starts, 0), 0, None) / _WEEK

    events_per_week = population.micro_events / expected_weeks
    sessions_per_week = np.minimum(_SESSIONS_PER_WEEK, events_per_week)
    counts = rng.poisson(np.where(present, sessions_per_week / _WEEKDAY_WEIGHTS.mean(), 0.0)).T
    users, weeks = (np.repeat(index, counts.ravel()) for index in np.divmod(np.arange(counts.size), num_weeks))
    users, starts = _cycled(rng, config, users, population.arrival[users] + (weeks + rng.random(len(users))) * _WEEK)

    length = events_per_week / np.maximum(sessions_per_week, 1e-9)
    lengths = 1 + rng.poisson(np.maximum(length - 1, 0)[users])
    gaps = np.ceil(_MEDIAN_GAP * rng.lognormal(0, 1, lengths.sum())).astype(np.int64)
    elapsed = np.cumsum(gaps)
    session = np.repeat(np.arange(len(users)), lengths)
    first = np.cumsum(lengths) - lengths
    users, seconds = users[session], starts[session] + elapsed - elapsed[first][session]
    inside = seconds < end
    users, seconds = users[inside], seconds[inside]
    order = np.lexsort((seconds, users))
    return users[order], seconds[order]


def _cycled(rng: np.random.Generator, config: SimulationConfig, users: Ints, seconds: Floats) -> tuple[Ints, Ints]:
    """Thin events by the day of the week, move them by the hour of the day, drop what is outside the days."""
    days = np.floor(seconds / DAY).astype(np.int64)
    first_weekday = (config.last_day.weekday() - (config.num_days - 1)) % 7
    kept = rng.random(len(days)) < _WEEKDAY_WEIGHTS[(days + first_weekday) % 7]
    kept &= (days >= 0) & (days < config.num_days)
    users, days = users[kept], days[kept]
    hours = rng.choice(24, len(days), p=_HOUR_WEIGHTS / _HOUR_WEIGHTS.sum())
    return users, days * DAY + hours * 3600 + rng.integers(0, 3600, len(days))


def _draw_items(rng: np.random.Generator, preference: Floats, items: Catalogue, users: Ints) -> Ints:
    """Item of each event, events being sorted by user and time."""
    fresh = rng.random(len(users)) >= _SUCCESSOR_SHARE
    fresh[np.flatnonzero(np.diff(users, prepend=-1))] = True
    run = np.maximum.accumulate(np.where(fresh, np.arange(len(users)), 0))  # the fresh event that each event descends from
    categories = _draw_categories(rng, preference, items, users)[run]
    cycle, place = _successor_cycle(rng, items)

    drawn = _draw_entries(rng, items, categories)
    for remaining in range(_REDRAWS, -1, -1):
        steps = np.arange(len(users)) - run
        entries = cycle[items.first[categories] + (place[drawn[run]] + steps) % items.sizes[categories]]
        again = fresh & _repeated(users, entries)
        if not remaining or not again.any():
            return entries
        drawn[again] = _draw_entries(rng, items, categories[again])
    raise AssertionError("the loop returns")


def _successor_cycle(rng: np.random.Generator, items: Catalogue) -> tuple[Ints, Ints]:
    """A random order of each category's items, laid out like ``members``, and every item's place in it."""
    shuffled = rng.permutation(len(items.category_of))
    cycle = shuffled[np.argsort(items.category_of[shuffled], kind="stable")]
    place = np.empty_like(cycle)
    place[cycle] = np.arange(len(cycle)) - items.first[items.category_of[cycle]]
    return cycle, place


def _repeated(users: Ints, entries: Ints) -> Flags:
    """Whether the user has met the entry before."""
    _, first_seen = np.unique(users * (entries.max(initial=0) + 1) + entries, return_index=True)
    repeated = np.ones(len(users), dtype=np.bool_)
    repeated[first_seen] = False
    return repeated


def _draw_categories(rng: np.random.Generator, preference: Floats, catalogue: Catalogue, users: Ints) -> Ints:
    """A category for each event, by the preference of its user."""
    shared_by = np.bincount(catalogue.interest_of)
    weights = preference[:, catalogue.interest_of] / shared_by[catalogue.interest_of]
    weights = (1 - _BACKGROUND) * weights + _BACKGROUND / len(catalogue.interest_of)
    bounds = np.cumsum(weights, axis=1)[:, :-1]
    uniform = rng.random(len(users))
    categories = np.zeros(len(users), dtype=np.int64)
    for bound in bounds.T:
        categories += uniform >= bound[users]
    return categories


def _draw_entries(rng: np.random.Generator, catalogue: Catalogue, categories: Ints) -> Ints:
    """An entry of each category, by Zipf popularity."""
    uniform = rng.random(len(categories))
    ranks = np.arange(1, catalogue.sizes.max() + 1, dtype=np.float64) ** -_ZIPF
    cumulative = np.cumsum(ranks)
    places = np.searchsorted(cumulative, uniform * cumulative[catalogue.sizes[categories] - 1], side="right")
    return catalogue.members[catalogue.first[categories] + np.minimum(places, catalogue.sizes[categories] - 1)]
