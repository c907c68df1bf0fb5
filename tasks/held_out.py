"""The users that a model of the next item is measured on, whoever made it."""

import numpy as np
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.data.held_out import HELD_OUT_EVENTS
from mfn_core.errors import ConfigError, InsufficientDataError


def held_out_rows(dataset: Dataset) -> NDArray[np.int64]:
    """The rows of the users with held-out events.

    Raises:
        ConfigError: the dataset leaves the recommendation out.
        InsufficientDataError: there are none.
    """
    if "recommendation" not in dataset.tasks:
        raise ConfigError(
            f"downstream task recommendation cannot be scored: {dataset.skipped['recommendation']}; can be: {', '.join(dataset.tasks)}"
        )
    rows = np.flatnonzero(dataset.held_out_B == HELD_OUT_EVENTS)
    if len(rows) == 0:
        raise InsufficientDataError(
            "downstream task recommendation: 0 users have held-out events, 1 is needed; "
            f"give users of more than {HELD_OUT_EVENTS} item events"
        )
    return rows
