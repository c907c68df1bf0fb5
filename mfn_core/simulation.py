"""A simulated world: raw logs of both views and a users table, with effects planted that a model should find.

Every user has a preference over *interests*; each app category and each item category belongs to one. The micro preference of users
who *agree* comes from their macro preference; that of the others is independent. A *code* is the mean of +1 and -1 over a user's
interests. ``RECIPES`` holds the strengths. Unless a world says otherwise, nobody agrees, no app foretells an item, activity and
gender add a macro and a micro code, and of age a macro code tells the older half, a micro code the upper group of each half.

* ``agreement``: half of the users agree, and that decides activity. Each view alone looks the same in both halves.
* ``product``: gender, half and group are products of a macro code and a micro code.
* ``foretelling``: 60 % of item events follow, within the hour and after the item before, an app event whose place among its
  category's apps names the item's category. The app's own category is an ordinary one of the user.
* ``mixed``, the default: half of the users agree, which decides activity, with a micro code; gender is a product plus a macro code, the
  group of age a product; 35 % of item events are foretold. ``one_view``: the same, a third of the users having one view only.
* ``additive``: activity comes from a micro code alone. Fusion brings nothing anywhere.
* ``correspondence``: 60 % of a micro preference is the macro preference pushed through a dense random matrix, the rest is the user's
  own. Rank correlation of ``World.correspondence`` with the covariances of category shares .86 to .92.

A user visits the content app in spells of whole weeks, from arrival on: the process knows no cut. Sessions are longer where they are
fewer, so the number of events tells little. 37 to 49 % of users are active in the last 7 days. 30 % of item events are the fixed
successor of the item before (a cycle through each category), the others follow the preference, and Zipf popularity in the category.

Reached with 3,000 users, seed 0. AUC (age: mean one-vs-rest) of the planted *odds* (without recency), and in five folds of the better of
logistic regression and gradient boosting on category shares: better *one* view, *both*, both and their *cross* products. HR@10 of
bigrams with the user's *taste* in categories, and of what the last *app* tells. (``one_view``: activity of users with item events.)::

                    activity             gender               age group            next item
                    odds one both cross  odds one both cross  odds one both cross  taste app
    mixed            .88 .60  .82   .84   .96 .74  .78   .84   .95 .82  .85   .85    .46 .55
    agreement        .89 .61  .87   .89   .93 .79  .86   .87   .95 .81  .89   .88    .46 .46
    product          .87 .76  .83   .83   .95 .62  .68   .77   .96 .58  .69   .77    .45 .45
    foretelling      .87 .76  .83   .83   .92 .75  .87   .87   .95 .76  .88   .88    .45 .59
    additive         .86 .84  .84   .84   .92 .75  .85   .85   .95 .77  .89   .89    .46 .46
    one_view         .88 .56  .79   .80   .97 .75  .78   .80   .94 .80  .82   .82    .46 .53
    correspondence   .85 .73  .79   .79   .91 .70  .76   .76   .94 .77  .83   .83    .36 .36

Also: sessions, a daily and a weekly cycle, newcomers (60 %) who arrive during the first 60 % of the days, 3 % of users with
about three events, 5 % with one view only, 2 % of attributes missing. All rows are valid under the contract.
"""

from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Trait:
    """The log-odds of a trait of a user: what each term is multiplied by.

    A code is the mean of a view's +1 and -1 over the user's interests; the two macro codes differ.
    """

    constant: float = 0.0
    agreement: float = 0.0  # times +1 in agreement, -1 in disagreement
    macro: float = 0.0  # times a macro code
    micro: float = 0.0  # times a micro code
    product: float = 0.0  # times another macro code times the micro code


@dataclass(frozen=True)
class Recipe:
    """What is planted in a world; by default nothing that takes both views at once.

    Some constants balance the classes: with the default ten interests a code is below zero on average.
    """

    agreeing_share: float = 0.0  # users whose micro preference comes from their macro preference
    foretold_share: float = 0.0  # item events that an app event foretells
    stay: Trait = Trait(1.2, macro=3.2, micro=3.2)  # another week of visits after a week of them
    back: Trait = Trait(-0.4, macro=2.4, micro=2.4)  # a week of visits after a week without
    male: Trait = Trait(1.5, macro=4.0, micro=4.0)
    older: Trait = Trait(1.2, macro=7.0)  # 35 and more
    upper: Trait = Trait(1.2, micro=7.0)  # the upper group of the younger, of the older
    graded: bool = False  # an interest leads to many interests of the other view, not to the same one
    own_part: float = 0.0  # of an agreeing user's micro preference that comes from elsewhere
    one_view_share: float = 0.05


_MIXED = Recipe(
    agreeing_share=0.5,
    foretold_share=0.35,
    stay=Trait(0.5, agreement=2.2, micro=1.2),
    back=Trait(-1.2, agreement=1.2, micro=0.8),
    male=Trait(macro=4.0, product=18.0),
    older=Trait(macro=7.0),
    upper=Trait(product=16.0),
)
RECIPES = {
    "mixed": _MIXED,
    "agreement": Recipe(agreeing_share=0.5, stay=Trait(0.5, agreement=2.6), back=Trait(-1.2, agreement=1.6)),
    "product": Recipe(male=Trait(product=22.0), older=Trait(product=22.0), upper=Trait(product=22.0)),
    "foretelling": Recipe(foretold_share=0.6),
    "additive": Recipe(stay=Trait(0.6, micro=4.2), back=Trait(-0.8, micro=3.2)),
    "one_view": replace(_MIXED, one_view_share=1 / 3),
    "correspondence": Recipe(
        agreeing_share=1.0,
        graded=True,
        own_part=0.4,
        stay=Trait(1.2, macro=3.0, micro=7.0),
        back=Trait(-0.4, macro=2.0, micro=5.0),
        male=Trait(2.5, macro=3.0, micro=10.0),
        upper=Trait(2.5, micro=16.0),
    ),
}
SUCCESSOR_SHARE = 0.3

_DAY = 86_400
_WEEK = 7 * _DAY
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
    """Raw tables under the contract of ``mfn_core.schema``, logs sorted by event time; and what links the views."""

    app_logs: pa.Table
    item_logs: pa.Table
    users: pa.Table
    correspondence: pa.Table  # app_category, item_category, strength: part of the micro preference that the app category leads there


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
    link: Floats  # [interests, interests] macro to micro preference of those who agree; rows sum to 1
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
    recipe = RECIPES[config.world]
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
        users=_users_table(rng, recipe, population, user_names),
        correspondence=_correspondence_table(recipe.agreeing_share * (1 - recipe.own_part) * population.link, apps, items),
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
    recipe, num_users = RECIPES[config.world], config.num_users
    concentration = np.full(num_interests, 0.25)
    macro_preference = rng.dirichlet(concentration, num_users)
    agrees = rng.random(num_users) < recipe.agreeing_share
    own_preference = rng.dirichlet(concentration, num_users)
    link = _draw_graded_link(rng, num_interests) if recipe.graded else np.eye(num_interests)
    led = (1 - recipe.own_part) * (macro_preference @ link) + recipe.own_part * own_preference
    micro_preference = np.where(agrees[:, None], led, own_preference)

    newcomers = rng.random(num_users) < 0.6
    arrival = np.where(newcomers, rng.uniform(0, 0.6 * config.num_days * _DAY, num_users), rng.uniform(-6 * _DAY, 0, num_users))

    size = rng.lognormal(0, 0.4, num_users)
    few = rng.random(num_users) < _FEW_EVENTS_SHARE
    view = rng.random(num_users)
    expected: list[Floats] = []
    for absent in (view < recipe.one_view_share / 2, view > 1 - recipe.one_view_share / 2):
        relative = np.where(absent | few, 0.0, size * rng.lognormal(0, 0.3, num_users))
        scaled = relative * config.events_per_user * num_users / relative.sum()
        expected.append(np.where(few & ~absent, 3.0, scaled))
    return _Population(macro_preference, micro_preference, link, agrees, arrival, expected[0], expected[1])


def _draw_graded_link(rng: np.random.Generator, num_interests: int) -> Floats:
    """Dirichlet rows, balanced so that no interest is led to more than another: strength is then not mixed up with popularity."""
    link = rng.dirichlet(np.ones(num_interests), num_interests)
    for _ in range(30):
        link /= link.sum(axis=0)
        link /= link.sum(axis=1, keepdims=True)
    return link


def _codes(rng: np.random.Generator, num_interests: int) -> Floats:
    """Three codes, [3, interests]: each interest is +1 or -1 in each; near-orthogonal from eight interests on."""
    places = np.minimum(np.arange(3), (num_interests - 1).bit_length() - 1)
    bits = (rng.permutation(num_interests) >> places[:, None]) & 1
    return np.where(bits == 1, 1.0, -1.0)


def _draw_visits(rng: np.random.Generator, config: SimulationConfig, population: _Population) -> tuple[Ints, Ints]:
    """Users and times of the item events: sessions in the weeks of a two-state Markov chain that starts at arrival."""
    recipe, codes = RECIPES[config.world], _codes(rng, len(population.link))
    stays, returns = (_sigmoid(_log_odds(trait, population, codes[[1, 0, 2]])) for trait in (recipe.stay, recipe.back))
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


def _log_odds(trait: Trait, population: _Population, codes: Floats) -> Floats:
    """Log-odds of each user; ``codes`` are the macro one, the micro one, and the macro one of the product."""
    macro, multiplied = (population.macro_preference @ code for code in codes[[0, 2]])
    micro = population.micro_preference @ codes[1]
    agreement = np.where(population.agrees, 1.0, -1.0)
    additive = trait.constant + trait.agreement * agreement + trait.macro * macro + trait.micro * micro
    return additive + trait.product * multiplied * micro


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
    foretold_share = RECIPES[config.world].foretold_share
    own_counts = rng.poisson(population.macro_events * (1 - foretold_share) / _WEEKDAY_WEIGHTS.mean())
    own_users = np.repeat(np.arange(config.num_users), own_counts)
    since = np.maximum(population.arrival[own_users], 0)
    own_users, own_seconds = _cycled(rng, config, own_users, since + rng.random(len(own_users)) * (config.num_days * _DAY - since))
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


def _correspondence_table(strengths: Floats, apps: _Catalogue, items: _Catalogue) -> pa.Table:
    """One row for each app category and item category: the strength between their interests."""
    app_rows, item_rows = np.indices((len(apps.category_names), len(items.category_names)))
    return pa.table(
        {
            APP_LOGS.category: _decoded(app_rows.ravel(), apps.category_names),
            ITEM_LOGS.category: _decoded(item_rows.ravel(), items.category_names),
            "strength": pa.array(strengths[apps.interest_of[app_rows], items.interest_of[item_rows]].ravel()),
        }
    )


def _users_table(rng: np.random.Generator, recipe: Recipe, population: _Population, user_names: NDArray[np.str_]) -> pa.Table:
    num_users, num_interests = population.macro_preference.shape
    gender_codes, age_codes = _codes(rng, num_interests), _codes(rng, num_interests)
    male = _flip(rng, _log_odds(recipe.male, population, gender_codes[[2, 1, 0]]))
    older = _flip(rng, _log_odds(recipe.older, population, age_codes[[2, 0, 1]]))
    upper = _flip(rng, _log_odds(recipe.upper, population, age_codes[[2, 1, 0]]))
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
