"""The permutation test: what a model gains from the macro view must vanish once that view is another user's.

Three models are measured on the same users: one that reads the item log alone, one that reads both views, and one of the same kind
trained and measured on ``mfn_core.data.shuffling.shuffle_macro`` of the dataset. A gain that outlives the shuffling comes from more
parameters, from the mere length of a history or from a leak, not from what apps tell of their user.
"""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from mfn_core.evaluation.comparison import Comparison, compare
from mfn_core.schema import DownstreamTask

PermutationVerdict = Literal["vanishes", "remains", "no gain", "undefined"]


@dataclass(frozen=True)
class PermutationResult:
    """One label of a downstream task; ``champion`` of both comparisons is the model that reads the item log alone."""

    gain: Comparison  # of the model that reads both views
    shuffled_gain: Comparison  # of the model that reads other users' apps

    @property
    def verdict(self) -> PermutationVerdict:
        """Whether there is a gain, beyond its 95 % interval, and whether a shuffled macro view gives one too."""
        if "undefined" in (self.gain.verdict, self.shuffled_gain.verdict):
            return "undefined"
        if self.gain.verdict != "better":
            return "no gain"
        return "remains" if self.shuffled_gain.verdict == "better" else "vanishes"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object without NaN."""
        return {"gain": self.gain.to_json(), "shuffled_gain": self.shuffled_gain.to_json(), "verdict": self.verdict}


def permutation_test(
    task: DownstreamTask, micro_only: pa.Table, both_views: pa.Table, shuffled: pa.Table, *, samples: int, seed: int = 0
) -> list[PermutationResult]:
    """Test every label that all three models know.

    Args:
        task: of all three tables.
        micro_only: ``Evaluation.scores`` of the model that reads the item log alone.
        both_views: the same of the model that reads both views.
        shuffled: the same of that model trained and measured with macro histories shuffled.
        samples: bootstrap resamples.
        seed: of the resamples.
    """
    gains = compare(task, micro_only, both_views, samples=samples, seed=seed)
    shuffled_gains = {each.label: each for each in compare(task, micro_only, shuffled, samples=samples, seed=seed)}
    return [PermutationResult(gain, shuffled_gains[gain.label]) for gain in gains if gain.label in shuffled_gains]
