"""The answer to a serving request: raw histories in, one JSON-able row per user out."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from math import ceil
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mfn_core.data.sequences import raw_columns, raw_histories
from mfn_core.errors import ConfigError
from mfn_core.inference.predictor import Predictions, Predictor
from mfn_core.schema import USER_ID, View

BUNDLE_ARTIFACT = "bundle"  # name of the bundle among the registered model's artifacts
REQUEST_LISTS = (*raw_columns("macro").values(), *raw_columns("micro").values())
DEFAULT_TOP_K = 10
MAX_TOP_K = 1000

_EXAMPLE: dict[View, dict[str, list[str]]] = {
    "macro": {
        "ids": ["com.bank.app", "com.chat.app"],
        "categories": ["finance", "social"],
        "times": ["2026-03-04T09:12:07Z", "2026-03-05T18:30:00Z"],
    },
    "micro": {
        "ids": ["item-7", "item-12"],
        "categories": ["sports", "news"],
        "times": ["2026-03-04T20:01:15Z", "2026-03-06T07:45:59Z"],
    },
}


def answer(
    predictor: Predictor,
    request: pd.DataFrame,
    *,
    top_k: int = DEFAULT_TOP_K,
    as_of: str | None = None,
    facts: Mapping[str, str | None] = MappingProxyType({}),
) -> pd.DataFrame:
    """Answer one request, in its row order.

    Args:
        predictor: the model.
        request: ``user_id`` and lists of ids, categories and times per view; see ``raw_histories``.
        top_k: items per user, 1 to 1000.
        as_of: ISO-8601 day (00:00 UTC) or time with a zone; events at or after its whole second are not read. Empty: now.
        facts: further columns, the same in every row.

    Returns:
        ``user_id, embedding, activity_probability, attribute_probabilities, top_items, top_scores``. What the model did not
        learn is null or empty.

    Raises:
        SchemaError: the request breaks its contract.
        ConfigError: ``top_k`` or ``as_of`` is out of range or no time.
    """
    if not 1 <= top_k <= MAX_TOP_K:
        raise ConfigError(f"top_k={top_k} is outside 1 to {MAX_TOP_K}; ask for fewer items")
    histories = raw_histories(request, predictor.bundle.vocabularies)
    said = predictor.predict(histories, query_time=_seconds(as_of), top_k=top_k)
    activity = [None] * len(said) if said.activity_B is None else said.activity_B.tolist()
    columns = {
        USER_ID: said.user_ids.tolist(),
        "embedding": _cells(said.embedding_BD.tolist()),
        "activity_probability": activity,
        "attribute_probabilities": _cells(_attribute_rows(said)),
        "top_items": _cells([items.tolist() for items in said.top_items]),
        "top_scores": _cells([scores.tolist() for scores in said.top_scores]),
        **{name: [value] * len(said) for name, value in facts.items()},
    }
    return pd.DataFrame(columns)


def example_request() -> pd.DataFrame:
    """A request of two users: one with both views, one of whom nothing is known."""
    lists = {column: values[part] for view, values in _EXAMPLE.items() for part, column in raw_columns(view).items()}
    return pd.DataFrame([{USER_ID: "u1", **lists}, {USER_ID: "u2", **{column: [] for column in lists}}])


def _attribute_rows(said: Predictions) -> list[dict[str, dict[str, float]]]:
    rows: list[dict[str, dict[str, float]]] = [{} for _ in range(len(said))]
    for name, probability_BC in said.attributes.items():
        for row, probabilities in zip(rows, probability_BC.tolist(), strict=True):
            row[name] = dict(zip(said.attribute_classes[name], probabilities, strict=True))
    return rows


def _cells(values: list[Any]) -> NDArray[np.object_]:
    """Lists or mappings as the cells of a column: pandas takes an array of them as it is, and searches through a list of them."""
    return np.fromiter(values, object, len(values))


def _seconds(as_of: str | None) -> int:
    """Seconds UTC of an ISO-8601 day or time, its fraction cut, as those of events are; without one the end of the second that runs."""
    if not as_of:
        return ceil(datetime.now(UTC).timestamp())
    try:
        moment: Any = datetime.fromisoformat(as_of)
        if len(as_of) == len(date.min.isoformat()):
            moment = moment.replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigError(f"as_of={as_of!r} is no ISO-8601 time ({error}); send for example 2026-03-04T09:12:07Z") from error
    if moment.tzinfo is None:
        raise ConfigError(f"as_of={as_of!r} has no time zone; send for example 2026-03-04T09:12:07Z")
    return int(moment.timestamp())
