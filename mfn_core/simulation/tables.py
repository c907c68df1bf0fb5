"""A world as raw tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.schema import APP_LOGS, EVENT_TIME, EVENT_TYPE, ITEM_LOGS, SEQ_NO, USER_ID, LogSchema, View
from mfn_core.simulation.catalogue import Catalogue, Ints
from mfn_core.simulation.events import Events
from mfn_core.simulation.population import Flags, Floats, Population, draw_codes, log_odds_of, sigmoid
from mfn_core.simulation.recipes import Recipe

_MISSING_SHARE = 0.02
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


def log_table(
    rng: np.random.Generator, schema: LogSchema, events: Events, catalogue: Catalogue, user_names: NDArray[np.str_], midnight: int
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


def users_table(rng: np.random.Generator, recipe: Recipe, population: Population, user_names: NDArray[np.str_]) -> pa.Table:
    """One row for each user: gender and age group, some of them missing."""
    num_users, num_interests = population.macro_preference.shape
    gender_codes, age_codes = draw_codes(rng, num_interests), draw_codes(rng, num_interests)
    male = _flip(rng, log_odds_of(recipe.male, population, gender_codes[[2, 1, 0]]))
    older = _flip(rng, log_odds_of(recipe.older, population, age_codes[[2, 0, 1]]))
    upper = _flip(rng, log_odds_of(recipe.upper, population, age_codes[[2, 1, 0]]))
    missing = rng.random((2, num_users)) < _MISSING_SHARE
    return pa.table(
        {
            USER_ID: pa.array(user_names, pa.string()),
            "gender": pa.array(np.array(_GENDERS)[male.astype(np.int64)], pa.string(), mask=missing[0]),
            "age_group": pa.array(np.array(_AGE_GROUPS)[2 * older.astype(np.int64) + upper], pa.string(), mask=missing[1]),
        }
    )


def correspondence_table(strengths: Floats, apps: Catalogue, items: Catalogue) -> pa.Table:
    """One row for each app category and item category: the strength between their interests."""
    app_rows, item_rows = np.indices((len(apps.category_names), len(items.category_names)))
    return pa.table(
        {
            APP_LOGS.category: _decoded(app_rows.ravel(), apps.category_names),
            ITEM_LOGS.category: _decoded(item_rows.ravel(), items.category_names),
            "strength": pa.array(strengths[apps.interest_of[app_rows], items.interest_of[item_rows]].ravel()),
        }
    )


def _flip(rng: np.random.Generator, log_odds: Floats) -> Flags:
    return rng.random(len(log_odds)) < sigmoid(log_odds)


def _decoded(codes: Ints, names: NDArray[np.str_]) -> Any:
    """Names of codes as an Arrow string array, without a Python string per row."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string())).dictionary_decode()
