"""Where a model is good and where it is not: the figures of one downstream task on parts of its users.

What a model is given decides a user's slice: the events before the cut or, for recommendation, before the target, which in the
item log is its place and in the app log its second. Slices overlap.

=============== =====================================================================================================
all             every user measured
short histories events of both views at most the 1/3 quantile of the users measured
long histories  events of both views above their 2/3 quantile
both views      at least one app event and one item event
macro missing   no app event
micro missing   no item event
cold users      fewer than 5 events of both views together
head items      the target is of the fifth of the catalogue with the most training events (recommendation)
tail items      the target is none of them, or is outside the vocabulary (recommendation)
cold items      the target has fewer than 5 training events, maybe none (recommendation)
=============== =====================================================================================================
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.data.held_out import DROPPED
from mfn_core.data.vocabulary import Vocabulary
from mfn_core.evaluation.evaluator import by_label, figures_of, measure
from mfn_core.schema import FIRST_KNOWN, UNKNOWN, USER_ID, DownstreamTask

MIN_USERS = 30  # a figure of fewer says nothing
COLD_EVENTS = 5
_HEAD_DIVISOR = 5  # the head is one fifth of the catalogue

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SliceRow:
    """One figure of one slice."""

    task: DownstreamTask
    label: str  # the attribute's name, else the task's
    slice: str
    n: int  # users measured
    metric: str
    value: float | None  # None: fewer than MIN_USERS users, or undefined on them
    low: float | None  # 95 % interval
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object without NaN."""
        return asdict(self)


def slice_rows(
    task: DownstreamTask,
    scores: pa.Table,
    dataset: Dataset,
    *,
    split: Literal["validation", "test"] = "test",
    samples: int = 200,
    seed: int = 0,
) -> list[SliceRow]:
    """The figures of every label on every slice, in the order of the table above.

    Args:
        task: of the scores.
        scores: ``Evaluation.scores``.
        dataset: what they were measured on.
        split: they were measured on.
        samples: bootstrap resamples.
        seed: of the resamples.
    """
    rows: list[SliceRow] = []
    for label, table in by_label(task, scores).items():
        for name, members_B in _members(task, _rows_of(table, dataset), dataset, split).items():
            rows += _measured(task, label, name, table.filter(pa.array(members_B)), samples, seed)
    return rows


def as_markdown(rows: Sequence[SliceRow]) -> str:
    """One table per label: a line per slice, a column per metric, each figure with its interval."""
    parts: list[str] = []
    for label in dict.fromkeys(row.label for row in rows):
        own = [row for row in rows if row.label == label]
        metrics = list(dict.fromkeys(row.metric for row in own))
        cells = {(row.slice, row.metric): _cell(row) for row in own}
        lines = [f"## {label}", "", f"| slice | n | {' | '.join(metrics)} |", f"| --- |{' ---: |' * (1 + len(metrics))}"]
        lines += [
            f"| {name} | {n:,} | {' | '.join(cells[name, metric] for metric in metrics)} |"
            for name, n in dict.fromkeys((row.slice, row.n) for row in own)
        ]
        parts.append("\n".join(lines))
    note = f"95 % intervals in brackets; no figures below {MIN_USERS} users. ECE and Brier score: lower is better."
    return "\n\n".join([*parts, note]) + "\n"


def _measured(task: DownstreamTask, label: str, name: str, table: pa.Table, samples: int, seed: int) -> list[SliceRow]:
    n = table.num_rows
    figures = figures_of(task, table)
    values, spans = measure(figures, n, samples, seed) if n >= MIN_USERS else (dict.fromkeys(figures(np.arange(0))), {})
    return [SliceRow(task, label, name, n, metric, value, *(spans.get(metric) or (None, None))) for metric, value in values.items()]


def _members(task: DownstreamTask, rows_B: Ints, dataset: Dataset, split: Literal["validation", "test"]) -> dict[str, Flags]:
    """Who is in each slice; positions are those of ``rows_B``."""
    histories, macro, micro = dataset.histories, dataset.histories.macro, dataset.histories.micro
    macro_B, micro_B, of_items = macro.lengths[rows_B], micro.lengths[rows_B], {}
    if task == "recommendation":
        target_B = micro.offsets[rows_B + 1] - DROPPED[split]
        macro_B, micro_B = histories.macro_before[target_B].astype(np.int64), target_B - micro.offsets[rows_B]
        of_items = _item_members(micro.ids[target_B].astype(np.int64), dataset.vocabularies.micro_id)
    events_B = macro_B + micro_B
    short, long = np.quantile(events_B, [1 / 3, 2 / 3]) if len(events_B) else (0, 0)
    return {
        "all": np.ones(len(rows_B), np.bool_),
        "short histories": events_B <= short,
        "long histories": events_B > long,
        "both views": (macro_B > 0) & (micro_B > 0),
        "macro missing": macro_B == 0,
        "micro missing": micro_B == 0,
        "cold users": events_B < COLD_EVENTS,
        **of_items,
    }


def _item_members(target_B: Ints, items: Vocabulary) -> dict[str, Flags]:
    """A vocabulary is ordered by training events, the most first."""
    head_size = -(-len(items.tokens) // _HEAD_DIVISOR)
    head_B = (target_B > UNKNOWN) & (target_B < FIRST_KNOWN + head_size)
    return {"head items": head_B, "tail items": ~head_B, "cold items": items.counts[target_B] < COLD_EVENTS}


def _rows_of(scores: pa.Table, dataset: Dataset) -> Ints:
    found = pc.index_in(scores[USER_ID].combine_chunks(), value_set=pa.array(dataset.histories.user_ids, pa.string()))
    assert found.null_count == 0, "the scores are of users outside the dataset"
    return found.to_numpy().astype(np.int64)


def _cell(row: SliceRow) -> str:
    if row.value is None:
        return ""
    span = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.value:.3f}{span}"
