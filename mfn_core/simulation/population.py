"""The users of a world, as no log shows them: preferences, who agrees, how much they do; and the log-odds of their traits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_core.config import SimulationConfig
from mfn_core.simulation.recipes import RECIPES, Trait

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

DAY = 86_400  # seconds
_FEW_EVENTS_SHARE = 0.03


@dataclass(frozen=True)
class Population:
    """What is true of the U users, hidden from the logs."""

    macro_preference: Floats  # [U, interests]
    micro_preference: Floats  # [U, interests]
    link: Floats  # [interests, interests] macro to micro preference of those who agree; rows sum to 1
    agrees: Flags  # [U]
    arrival: Floats  # [U] seconds since the first midnight; negative: already there
    macro_events: Floats  # [U] expected number, 0 where the view is absent
    micro_events: Floats  # [U]


def draw_population(rng: np.random.Generator, config: SimulationConfig, num_interests: int) -> Population:
    """The users of ``config.world``."""
    recipe, num_users = RECIPES[config.world], config.num_users
    concentration = np.full(num_interests, 0.25)
    macro_preference = rng.dirichlet(concentration, num_users)
    agrees = rng.random(num_users) < recipe.agreeing_share
    own_preference = rng.dirichlet(concentration, num_users)
    link = _draw_graded_link(rng, num_interests) if recipe.graded else np.eye(num_interests)
    led = (1 - recipe.own_part) * (macro_preference @ link) + recipe.own_part * own_preference
    micro_preference = np.where(agrees[:, None], led, own_preference)

    newcomers = rng.random(num_users) < 0.6
    arrival = np.where(newcomers, rng.uniform(0, 0.6 * config.num_days * DAY, num_users), rng.uniform(-6 * DAY, 0, num_users))

    size = rng.lognormal(0, 0.4, num_users)
    few = rng.random(num_users) < _FEW_EVENTS_SHARE
    view = rng.random(num_users)
    expected: list[Floats] = []
    for absent in (view < recipe.one_view_share / 2, view > 1 - recipe.one_view_share / 2):
        relative = np.where(absent | few, 0.0, size * rng.lognormal(0, 0.3, num_users))
        scaled = relative * config.events_per_user * num_users / relative.sum()
        expected.append(np.where(few & ~absent, 3.0, scaled))
    return Population(macro_preference, micro_preference, link, agrees, arrival, expected[0], expected[1])


def _draw_graded_link(rng: np.random.Generator, num_interests: int) -> Floats:
    """Dirichlet rows, balanced so that no interest is led to more than another: strength is then not mixed up with popularity."""
    link = rng.dirichlet(np.ones(num_interests), num_interests)
    for _ in range(30):
        link /= link.sum(axis=0)
        link /= link.sum(axis=1, keepdims=True)
    return link


def draw_codes(rng: np.random.Generator, num_interests: int) -> Floats:
    """Three codes, [3, interests]: each interest is +1 or -1 in each; near-orthogonal from eight interests on."""
    places = np.minimum(np.arange(3), (num_interests - 1).bit_length() - 1)
    bits = (rng.permutation(num_interests) >> places[:, None]) & 1
    return np.where(bits == 1, 1.0, -1.0)


def log_odds_of(trait: Trait, population: Population, codes: Floats) -> Floats:
    """Log-odds of each user; ``codes`` are the macro one, the micro one, and the macro one of the product."""
    macro, multiplied = (population.macro_preference @ code for code in codes[[0, 2]])
    micro = population.micro_preference @ codes[1]
    agreement = np.where(population.agrees, 1.0, -1.0)
    additive = trait.constant + trait.agreement * agreement + trait.macro * macro + trait.micro * micro
    return additive + trait.product * multiplied * micro


def sigmoid(log_odds: Floats) -> Floats:
    """Probabilities of log-odds."""
    return 1 / (1 + np.exp(-log_odds))
