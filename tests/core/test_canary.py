"""A model must not know the future: where only future events tell a label, it scores at chance; where past ones do, it finds them.

The rows take the project's own way: raw files, ingest, dataset, training, evaluation.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from mfn_core.data.dataset import Dataset
from mfn_core.evaluation.evaluator import evaluate
from mfn_core.inference.predictor import Predictor
from mfn_core.schema import APP_LOGS, ITEM_LOGS, DownstreamTask
from tasks.build_dataset import build_dataset
from tasks.dag_configs import TrainConfig
from tasks.ingest import ingest_chunk
from tasks.ingest_plan import plan_ingest
from tasks.ingest_users import ingest_users
from tasks.settings import Settings
from tasks.train import train_managed
from tests.canary import CUT, HORIZON_DAYS, canary_world, write_raw
from tests.factories import planned

pytestmark = pytest.mark.canary

NUM_USERS = 800
FINGERPRINT = "0123456789abcdef" * 4
AFTER_ALL = datetime(2026, 7, 1, tzinfo=UTC)
CONFIG = TrainConfig(
    cut=CUT,
    horizon_days=HORIZON_DAYS,
    width=32,
    num_layers=1,
    num_alignment_filters=4,
    dropout=0.1,
    batch_size=64,
    learning_rate=5e-3,
    max_epochs=14,
    patience=14,
    mask_seen="off",  # then every item has the same chance
    device="cpu",
)


@dataclass(frozen=True)
class Score:
    """A figure of the test users, and what chance would give."""

    value: float
    chance: float
    standard_error: float  # of chance

    @property
    def is_chance(self) -> bool:
        return abs(self.value - self.chance) < 3 * self.standard_error


def auc_score(value: float, labels: NDArray[np.integer]) -> Score:
    """An AUC, with Hanley and McNeil's standard error at one half."""
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    return Score(value, 0.5, sqrt((positives + negatives + 1) / (12 * positives * negatives)))


def hit_rate_score(value: float, num_users: int, num_items: int) -> Score:
    """A share of users whose item is among 10 of ``num_items``."""
    chance = 10 / num_items
    return Score(value, chance, sqrt(chance * (1 - chance) / num_users))


def scores_of(when: Literal["past", "future"], settings: Settings) -> dict[DownstreamTask, Score]:
    """The figures of a world, from raw files to evaluation."""
    write_raw(canary_world(when, NUM_USERS, seed=11), Path(settings.raw))
    for log in (APP_LOGS, ITEM_LOGS):
        for chunk in plan_ingest(settings, log, None, None, 366, now=AFTER_ALL):
            ingest_chunk(settings, log, date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"]), now=AFTER_ALL)
    ingest_users(settings)
    built = build_dataset(settings, CONFIG, planned(settings, FINGERPRINT), mask_seen=CONFIG.mask_seen)
    trained = train_managed(settings, CONFIG, built, FINGERPRINT, lambda _: None)

    dataset = Dataset.open(Path(built["uri"]))
    predictor = Predictor.load(Path(trained["uri"]) / "bundle", device="cpu")
    measured = {task: evaluate(predictor, dataset, task, mask_seen=False, samples=10) for task in dataset.tasks}
    activity, attribute, recommendation = (measured[task] for task in ("activity", "attribute", "recommendation"))
    ranked = recommendation.measurements["recommendation"]
    return {
        "activity": auc_score(activity.measurements["activity"].metrics["auc"], activity.scores["label"].to_numpy()),
        "attribute": auc_score(attribute.measurements["group"].metrics["auc"], attribute.scores["label"].to_numpy()),
        "recommendation": hit_rate_score(ranked.metrics["hr@10"], ranked.n, len(dataset.vocabularies.micro_id.tokens)),
    }


def test_what_only_the_future_tells_is_not_known(settings: Settings):
    scores = scores_of("future", settings)
    assert [task for task, score in scores.items() if not score.is_chance] == [], scores


def test_what_the_past_tells_is_found(settings: Settings):
    scores = scores_of("past", settings)
    assert [task for task, score in scores.items() if score.value <= 0.8] == [], scores
