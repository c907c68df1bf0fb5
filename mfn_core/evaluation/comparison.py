"""Is one model worse than another on the same users? Paired bootstrap of the difference."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfn_core.evaluation.bootstrap import ERROR, Figures, intervals
from mfn_core.evaluation.evaluator import by_label, figures_of
from mfn_core.schema import USER_ID, DownstreamTask

DECISIVE: dict[DownstreamTask, str] = {"activity": "auc", "attribute": "auc", "recommendation": "ndcg@10"}

Verdict = Literal["better", "worse", "no difference", "undefined"]


@dataclass(frozen=True)
class Comparison:
    """One label of a downstream task: candidate minus champion on the users that both were asked about."""

    task: DownstreamTask
    label: str  # the attribute's name, else the task's
    metric: str
    n: int
    champion: float | None
    candidate: float | None
    difference: float | None
    low: float | None  # interval of the difference
    high: float | None
    level: float  # of the interval: .95 for one label alone
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """As a JSON object without NaN."""
        return asdict(self)


def compare(
    task: DownstreamTask, champion: pa.Table, candidate: pa.Table, *, samples: int, seed: int = 0, num_together: int = 1
) -> list[Comparison]:
    """Compare two models' scores, label by label, on their common users.

    A label is worse (better) where the whole interval of the difference lies below (above) zero.

    Args:
        task: of both tables.
        champion: ``Evaluation.scores`` of the champion.
        candidate: the same of the candidate.
        samples: bootstrap resamples.
        seed: of the resamples.
        num_together: labels that are judged together, this task's among them: all their intervals hold with about 95 % (Bonferroni).
    """
    error = ERROR / num_together
    old, new = by_label(task, champion), by_label(task, candidate)
    return [_compare(task, label, old[label], new[label], samples, seed, error) for label in new if label in old]


def _compare(
    task: DownstreamTask, label: str, champion: pa.Table, candidate: pa.Table, samples: int, seed: int, error: float
) -> Comparison:
    champion, candidate = _on_common_users(champion, candidate)
    metric = DECISIVE[task]
    old, new = figures_of(task, champion), figures_of(task, candidate)

    def difference(chosen: NDArray[np.int64]) -> Figures:
        before, after = old(chosen)[metric], new(chosen)[metric]
        return {metric: None if before is None or after is None else after - before}

    everybody = np.arange(candidate.num_rows)
    interval = intervals(difference, candidate.num_rows, samples, seed, error).get(metric)
    low, high = interval or (None, None)
    return Comparison(
        task=task,
        label=label,
        metric=metric,
        n=candidate.num_rows,
        champion=old(everybody)[metric],
        candidate=new(everybody)[metric],
        difference=difference(everybody)[metric],
        low=low,
        high=high,
        level=1 - error,
        verdict=_verdict(low, high),
    )


def _verdict(low: float | None, high: float | None) -> Verdict:
    if low is None or high is None:
        return "undefined"
    return "worse" if high < 0 else "better" if low > 0 else "no difference"


def _on_common_users(champion: pa.Table, candidate: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both tables' rows of the users they share, both in the order of the ids' bytes: whoever sorts them draws the same resamples."""
    # Ids stay in Arrow: NumPy would give every id the length of the longest, and drop NULs at its end.
    candidate = candidate.take(pc.sort_indices(candidate[USER_ID]))
    rows = pc.index_in(candidate[USER_ID], value_set=champion[USER_ID])
    return champion.take(rows.drop_null()), candidate.filter(rows.is_valid())
