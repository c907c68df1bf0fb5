"""A simulated world: raw logs of both views and a users table, with effects planted that a model should find.

Every user has a preference over *interests*. Each app category and each item category belongs to one interest: the
planted correspondence of the views. What is planted, and how strong it is:

* **Agreement** (half of the users): the micro view follows the same preference as the macro view; in the other half it
  follows another, independent one. Each view alone looks the same in both halves.
* **Activity**: from arrival on, a user visits the content app in spells of whole weeks. The log-odds of another week after
  a week of visits are 0.5 + 2.2 a + 1.2 s, after a week without -1.2 + 1.2 a + 0.8 s, where a is +1 in agreement and -1 in
  disagreement, and s in [-1, 1] says how sticky the user's interests are. The process knows no cut: it runs the same from
  the first day to the last. Sessions are longer where they are fewer, so the number of events tells little.
  45 to 50 % of users are active in the last 7 days. AUC of a alone .84, of the true odds .88; gradient boosting on 2,000
  users: category counts of one view .52 or .64, of both views .82, with recency .89.
* **Gender**: log-odds 18 x (macro code x micro code) + 4 x (another macro code): a product of the views plus a direct effect.
  Codes are means of +1 and -1 over the user's interests. AUC of the true odds .96; gradient boosting: one view .73, both .80.
* **Age group**: older or younger by a direct effect (log-odds 7 x macro code), and within these by a product (log-odds
  16 x macro code x micro code). AUC (macro one-vs-rest) of the true odds .94; gradient boosting: one view .80, both .84.
* **Next item**: 30 % of item events are the fixed successor of the item before (one cycle through each category). The
  others follow the category preference, and Zipf popularity within the category; the user has met 11 % of them before.
  HR@10 of popularity .07, of the bigram rule .37.
* **Foretelling**: 35 % of item events follow, within the hour and after the item before, an app event whose place among
  its category's apps names the item's category. The app's own category is an ordinary one of the user.

Also: sessions, a daily and a weekly cycle, newcomers (60 %) who arrive during the first 60 % of the days, 3 % of users with
about three events, 5 % with one view only, 2 % of attributes missing. All rows are valid under the contract: no rejects, no
duplicates.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError
from mfn_core.schema import APP_LOGS, EVENT_TIME, EVENT_TYPE, ITEM_LOGS, SEQ_NO, USER_ID, LogSchema, View

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SUCCESSOR_SHARE = 0.3
FORETOLD_SHARE = 0.35
AGREEING_SHARE = 0.5

# Log-odds: constant, agreement, stickiness.
STAY = (0.5, 2.2, 1.2)
BACK = (-1.2, 1.2, 0.8)
# Log-odds: product of the views' codes, direct effect of a macro code.
GENDER = (18.0, 4.0)
AGE = (16.0, 7.0)

_DAY = 86_400
_WEEK = 7 * _DAY
_ONE_VIEW_SHARE = 0.05
_FEW_EVENTS_SHARE = 0.03
_MISSING_SHARE = 0.02
_BACKGROUND = 0.1  # share of events that ignore the preference
_ZIPF = 0.8
_SESSIONS_PER_WEEK = 2.5
_MEDIAN_GAP = 90.0  # seconds between the item events of a session
_REDRAWS = 6
_WEEKDAY_WEIGHTS = np.array([0.85, 0.8, 0.8, 0.85, 1.0, 1.2, 1.2]) / 1.2  # Monday first
_HOUR_WEIGHTS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 8, 7, 6, 6, 8, 8, 7, 6, 6, 7, 9, 11, 12, 12, 9, 5], dtype=np.float64)
_APP_CATEGORIES = ("finance", "social", "games", "music", "travel", "health", "shopping", "news", "education", "tools", "food", "sports")
_ITEM_CATEGORIES = ("drama", "science", "cooking", "soccer", "fashion", "economy", "comedy", "gadgets", "nature", "cars", "history", "art")
_GENDERS = ("female", "male")
_AGE_GROUPS = ("18-24", "25-34", "35-49", "50+")


@dataclass(frozen=True)
class _Style:
    """What the optional columns of a log hold."""

    event_types: tuple[str, str]
    second_type_share: float
    median_duration: float  # seconds


_STYLES: dict[View, _Style] = {"macro": _Style(("open", "install"), 0.1, 90.0), "micro": _Style(("view", "like"), 0.15, 30.0)}


@dataclass(frozen=True)
class World:
    """Raw tables under the contract of ``mfn_core.schema``; logs are sorted by event time."""

    app_logs: pa.Table
    item_logs: pa.Table
    users: pa.Table


@dataclass(frozen=True)
class _Catalogue:
    """The apps or the items: entry ``members[first[c] + p]`` is the p-th most popular of category c."""

    names: NDArray[np.str_]  # [entries]
    category_names: NDArray[np.str_]  # [categories]
    category_of: Ints  # [entries]
    interest_of: Ints  # [categories]
    members: Ints  # [entries] grouped by category
    first: Ints  # [categories + 1]

    @property
    def sizes(self) -> Ints:
        return np.diff(self.first)


@dataclass(frozen=True)
class _Population:
    """What is true of the U users, hidden from the logs."""

    macro_preference: Floats  # [U, interests]
    micro_preference: Floats  # [U, interests]
    agrees: Flags  # [U]
    arrival: Floats  # [U] seconds since the first midnight; negative: already there
    macro_events: Floats  # [U] expected number, 0 where the view is absent
    micro_events: Floats  # [U]


@dataclass(frozen=True)
class _Events:
    """Events of one view: user row, seconds since the first midnight, entry of the catalogue."""

    users: Ints
    seconds: Ints
    entries: Ints


def simulate(config: SimulationConfig) -> World:
    """Simulate a world. The same config gives the same tables.

    Raises:
        ConfigError: fewer apps or items than categories to put them in.
    """
    _check(config)
    rng = np.random.default_rng(config.seed)
    num_interests = min(config.num_app_categories, config.num_item_categories)
    app_categories = _category_names(_APP_CATEGORIES, config.num_app_categories)
    item_categories = _category_names(_ITEM_CATEGORIES, config.num_item_categories)
    apps = _draw_catalogue(rng, "com.{category}.app{number}", config.num_apps, app_categories, num_interests)
    items = _draw_catalogue(rng, "i{number}", config.num_items, item_categories, num_interests)
    population = _draw_population(rng, config, num_interests)

    micro_users, micro_seconds = _draw_visits(rng, config, population)
    micro = _Events(micro_users, micro_seconds, _draw_items(rng, population.micro_preference, items, micro_users))
    macro = _draw_app_events(rng, config, population, apps, items.category_of[micro.entries], micro)

    user_names = np.array([f"u{_number(user, max(config.num_users, 100_000))}" for user in range(config.num_users)])
    midnight = int(datetime.combine(config.last_day, time(), UTC).timestamp()) - (config.num_days - 1) * _DAY
    return World(
        app_logs=_log_table(rng, APP_LOGS, macro, apps, user_names, midnight),
        item_logs=_log_table(rng, ITEM_LOGS, micro, items, user_names, midnight),
        users=_users_table(rng, population, user_names),
    )


def _check(config: SimulationConfig) -> None:
    for entries, categories in (("num_apps", "num_app_categories"), ("num_items", "num_item_categories")):
        count, limit = getattr(config, entries), getattr(config, categories)
        if count < limit:
            raise ConfigError(f"{entries}={count} is less than {categories}={limit}: a category would be empty; raise {entries}")


def _draw_catalogue(
    rng: np.random.Generator, name: str, num_entries: int, category_names: NDArray[np.str_], num_interests: int
) -> _Catalogue:
    num_categories = len(category_names)
    category_of = rng.permutation(np.arange(num_entries) % num_categories)
    # A stable sort of shuffled entries: which entry is popular in its category is left to chance.
    shuffled = rng.permutation(num_entries)
    return _Catalogue(
        names=np.array([name.format(category=category_names[c], number=_number(i, num_entries)) for i, c in enumerate(category_of)]),
        category_names=category_names,
        category_of=category_of,
        interest_of=rng.permutation(np.arange(num_categories) % num_interests),
        members=shuffled[np.argsort(category_of[shuffled], kind="stable")],
        first=np.concatenate([[0], np.cumsum(np.bincount(category_of, minlength=num_categories))]),
    )


def _draw_population(rng: np.random.Generator, config: SimulationConfig, num_interests: int) -> _Population:
    num_users = config.num_users
    concentration = np.full(num_interests, 0.25)
    macro_preference = rng.dirichlet(concentration, num_users)
    agrees = rng.random(num_users) < AGREEING_SHARE
    micro_preference = np.where(agrees[:, None], macro_preference, rng.dirichlet(concentration, num_users))

    newcomers = rng.random(num_users) < 0.6
    arrival = np.where(newcomers, rng.uniform(0, 0.6 * config.num_days * _DAY, num_users), rng.uniform(-6 * _DAY, 0, num_users))

    size = rng.lognormal(0, 0.4, num_users)
    few = rng.random(num_users) < _FEW_EVENTS_SHARE
    view = rng.random(num_users)
    expected: list[Floats] = []
    for absent in (view < _ONE_VIEW_SHARE / 2, view > 1 - _ONE_VIEW_SHARE / 2):
        relative = np.where(absent | few, 0.0, size * rng.lognormal(0, 0.3, num_users))
        scaled = relative * config.events_per_user * num_users / relative.sum()
        expected.append(np.where(few & ~absent, 3.0, scaled))
    return _Population(macro_preference, micro_preference, agrees, arrival, expected[0], expected[1])


def _codes(rng: np.random.Generator, num_interests: int) -> Floats:
    """Three codes, [3, interests]: each interest is +1 or -1 in each; near-orthogonal from eight interests on."""
    places = np.minimum(np.arange(3), (num_interests - 1).bit_length() - 1)
    bits = (rng.permutation(num_interests) >> places[:, None]) & 1
    return np.where(bits == 1, 1.0, -1.0)


def _draw_visits(rng: np.random.Generator, config: SimulationConfig, population: _Population) -> tuple[Ints, Ints]:
    """Users and times of the item events: sessions in the weeks of a two-state Markov chain that starts at arrival."""
    stays, returns = _spell_chances(rng, population)
    num_users, end = config.num_users, config.num_days * _DAY
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


def _spell_chances(rng: np.random.Generator, population: _Population) -> tuple[Floats, Floats]:
    """Chance of each user to stay another week, and to come back in a week after one away."""
    agreement = np.where(population.agrees, 1.0, -1.0)
    stickiness = population.micro_preference @ _codes(rng, population.micro_preference.shape[1])[0]
    return _sigmoid(STAY[0] + STAY[1] * agreement + STAY[2] * stickiness), _sigmoid(BACK[0] + BACK[1] * agreement + BACK[2] * stickiness)


def _cycled(rng: np.random.Generator, config: SimulationConfig, users: Ints, seconds: Floats) -> tuple[Ints, Ints]:
    """Thin events by the day of the week, move them by the hour of the day, drop what is outside the days."""
    days = np.floor(seconds / _DAY).astype(np.int64)
    first_weekday = (config.last_day.weekday() - (config.num_days - 1)) % 7
    kept = rng.random(len(days)) < _WEEKDAY_WEIGHTS[(days + first_weekday) % 7]
    kept &= (days >= 0) & (days < config.num_days)
    users, days = users[kept], days[kept]
    hours = rng.choice(24, len(days), p=_HOUR_WEIGHTS / _HOUR_WEIGHTS.sum())
    return users, days * _DAY + hours * 3600 + rng.integers(0, 3600, len(days))


def _draw_items(rng: np.random.Generator, preference: Floats, items: _Catalogue, users: Ints) -> Ints:
    """Item of each event, events being sorted by user and time."""
    fresh = rng.random(len(users)) >= SUCCESSOR_SHARE
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


def _successor_cycle(rng: np.random.Generator, items: _Catalogue) -> tuple[Ints, Ints]:
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


def _draw_app_events(
    rng: np.random.Generator, config: SimulationConfig, population: _Population, apps: _Catalogue, item_categories: Ints, micro: _Events
) -> _Events:
    """App events on the user's own account, all along, and those that foretell an item event."""
    own_counts = rng.poisson(population.macro_events * (1 - FORETOLD_SHARE) / _WEEKDAY_WEIGHTS.mean())
    own_users = np.repeat(np.arange(config.num_users), own_counts)
    since = np.maximum(population.arrival[own_users], 0)
    own_users, own_seconds = _cycled(rng, config, own_users, since + rng.random(len(own_users)) * (config.num_days * _DAY - since))
    own_entries = _draw_entries(rng, apps, _draw_categories(rng, population.macro_preference, apps, own_users))

    # The app event comes after the item event before, so that it is the last one before the item it foretells.
    is_first = np.diff(micro.users, prepend=-1) != 0
    room = np.minimum(np.where(is_first, micro.seconds, np.diff(micro.seconds, prepend=0)), 3600)
    foretold = (rng.random(len(micro.users)) < FORETOLD_SHARE) & (population.macro_events[micro.users] > 0) & (room > 1)
    told_users = micro.users[foretold]
    told_seconds = micro.seconds[foretold] - rng.integers(1, room[foretold])
    told_categories = _draw_categories(rng, population.macro_preference, apps, told_users)
    place = item_categories[foretold] % apps.sizes[told_categories]
    told_entries = apps.members[apps.first[told_categories] + place]

    users = np.concatenate([own_users, told_users])
    seconds = np.concatenate([own_seconds, told_seconds])
    order = np.lexsort((seconds, users))
    return _Events(users[order], seconds[order], np.concatenate([own_entries, told_entries])[order])


def _draw_categories(rng: np.random.Generator, preference: Floats, catalogue: _Catalogue, users: Ints) -> Ints:
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


def _draw_entries(rng: np.random.Generator, catalogue: _Catalogue, categories: Ints) -> Ints:
    """An entry of each category, by Zipf popularity."""
    uniform = rng.random(len(categories))
    ranks = np.arange(1, catalogue.sizes.max() + 1, dtype=np.float64) ** -_ZIPF
    cumulative = np.cumsum(ranks)
    places = np.searchsorted(cumulative, uniform * cumulative[catalogue.sizes[categories] - 1], side="right")
    return catalogue.members[catalogue.first[categories] + np.minimum(places, catalogue.sizes[categories] - 1)]


def _log_table(
    rng: np.random.Generator, schema: LogSchema, events: _Events, catalogue: _Catalogue, user_names: NDArray[np.str_], midnight: int
) -> pa.Table:
    """The events as raw rows. ``seq_no`` counts a user's events, so ties in time keep one order."""
    style = _STYLES[schema.view]
    num_events = len(events.users)
    kinds = (rng.random(num_events) < style.second_type_share).astype(np.int64)
    durations = np.round(style.median_duration * rng.lognormal(0, 1, num_events), 1)
    position = np.arange(num_events) - np.searchsorted(events.users, events.users, side="left")
    order = np.argsort(events.seconds, kind="stable")
    entries = events.entries[order]
    return pa.table(
        {
            USER_ID: _decoded(events.users[order], user_names),
            schema.id: _decoded(entries, catalogue.names),
            schema.category: _decoded(catalogue.category_of[entries], catalogue.category_names),
            EVENT_TIME: pa.array((events.seconds[order] + midnight) * 1_000_000).cast(pa.timestamp("us", "UTC")),
            EVENT_TYPE: _decoded(kinds, np.array(style.event_types)),
            schema.duration: pa.array(durations),
            SEQ_NO: pa.array(position[order]),
        }
    )


def _users_table(rng: np.random.Generator, population: _Population, user_names: NDArray[np.str_]) -> pa.Table:
    macro, micro = population.macro_preference, population.micro_preference
    num_users = len(macro)
    gender_codes, age_codes = _codes(rng, macro.shape[1]), _codes(rng, macro.shape[1])
    male = _flip(rng, GENDER[0] * (macro @ gender_codes[0]) * (micro @ gender_codes[1]) + GENDER[1] * (macro @ gender_codes[2]))
    older = _flip(rng, AGE[1] * (macro @ age_codes[2]))
    upper = _flip(rng, AGE[0] * (macro @ age_codes[0]) * (micro @ age_codes[1]))
    missing = rng.random((2, num_users)) < _MISSING_SHARE
    return pa.table(
        {
            USER_ID: pa.array(user_names, pa.string()),
            "gender": pa.array(np.array(_GENDERS)[male.astype(np.int64)], pa.string(), mask=missing[0]),
            "age_group": pa.array(np.array(_AGE_GROUPS)[2 * older.astype(np.int64) + upper], pa.string(), mask=missing[1]),
        }
    )


def _flip(rng: np.random.Generator, log_odds: Floats) -> Flags:
    return rng.random(len(log_odds)) < _sigmoid(log_odds)


def _sigmoid(log_odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-log_odds))


def _decoded(codes: Ints, names: NDArray[np.str_]) -> Any:
    """Names of codes as an Arrow string array, without a Python string per row."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string())).dictionary_decode()


def _category_names(known: tuple[str, ...], count: int) -> NDArray[np.str_]:
    return np.array([known[i] if i < len(known) else f"category{_number(i, count)}" for i in range(count)])


def _number(index: int, count: int) -> str:
    """Digits of an index below count, all of one length."""
    return str(index).zfill(len(str(count - 1)))
