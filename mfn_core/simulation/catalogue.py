"""The apps and the items of a world: names, categories, interests, popularity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

APP_CATEGORIES = ("finance", "social", "games", "music", "travel", "health", "shopping", "news", "education", "tools", "food", "sports")
ITEM_CATEGORIES = ("drama", "science", "cooking", "soccer", "fashion", "economy", "comedy", "gadgets", "nature", "cars", "history", "art")


@dataclass(frozen=True)
class Catalogue:
    """The apps or the items: entry ``members[first[c] + p]`` is the p-th most popular of category c."""

    names: NDArray[np.str_]  # [entries]
    category_names: NDArray[np.str_]  # [categories]
    category_of: Ints  # [entries]
    interest_of: Ints  # [categories]
    members: Ints  # [entries] grouped by category
    first: Ints  # [categories + 1]

    @property
    def sizes(self) -> Ints:
        """Entries of each category [categories]."""
        return np.diff(self.first)


def draw_catalogue(
    rng: np.random.Generator, name: str, num_entries: int, category_names: NDArray[np.str_], num_interests: int
) -> Catalogue:
    """A catalogue of categories of like size, each of one interest; ``name`` has places for ``category`` and ``number``."""
    num_categories = len(category_names)
    category_of = rng.permutation(np.arange(num_entries) % num_categories)
    # A stable sort of shuffled entries: which entry is popular in its category is left to chance.
    shuffled = rng.permutation(num_entries)
    return Catalogue(
        names=np.array([name.format(category=category_names[c], number=numbered(i, num_entries)) for i, c in enumerate(category_of)]),
        category_names=category_names,
        category_of=category_of,
        interest_of=rng.permutation(np.arange(num_categories) % num_interests),
        members=shuffled[np.argsort(category_of[shuffled], kind="stable")],
        first=np.concatenate([[0], np.cumsum(np.bincount(category_of, minlength=num_categories))]),
    )


def name_categories(known: tuple[str, ...], count: int) -> NDArray[np.str_]:
    """The known names, and numbers for what is beyond them [count]."""
    return np.array([known[i] if i < len(known) else f"category{numbered(i, count)}" for i in range(count)])


def numbered(index: int, count: int) -> str:
    """Digits of an index below count, all of one length."""
    return str(index).zfill(len(str(count - 1)))
