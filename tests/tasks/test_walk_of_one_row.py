"""One literal raw row, met again at every stage: curated, validated, in the dataset, in the scores, and at the served model."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.config import SimulationConfig
from mfn_core.data.dataset import Dataset
from mfn_core.schema import APP_LOGS, ITEM_LOGS
from tasks import manifest
from tasks.build_dataset import build_dataset
from tasks.dag_configs import PromoteConfig, ScoreConfig, TrainConfig, ValidateConfig
from tasks.evaluate import evaluate
from tasks.gate import gate
from tasks.ingest import ingest_chunk
from tasks.ingest_plan import plan_ingest
from tasks.ingest_users import ingest_users
from tasks.plan import plan_training
from tasks.promote import promote
from tasks.register import register
from tasks.score import plan_score, score
from tasks.settings import Settings
from tasks.simulate import simulate
from tasks.tracking.models import load_model
from tasks.train import train
from tasks.validate import validate_range
from tasks.validated import days_to_validate, validated_uri
from tests.tasks.raw_files import curated_files
from tests.tasks.registry import AIRFLOW

DAY = date(2026, 6, 10)
TIME = datetime(2026, 6, 10, 9, 12, 7, tzinfo=UTC)
SECONDS = 1_781_082_727
ROW = {"user_id": "u8817", "app_id": "com.bank.app", "app_category": "finance", "event_time": TIME}
NOW = datetime(2026, 7, 1, tzinfo=UTC)
WORLD = SimulationConfig(num_users=150, num_days=28, last_day=date(2026, 6, 28), events_per_user=15)
CONFIG = TrainConfig(width=8, num_heads=2, num_layers=1, num_alignment_filters=2, max_epochs=1, bootstrap_samples=100, device="cpu")


@pytest.fixture
def walk(registry: Settings) -> tuple[Settings, dict[str, Any]]:
    """The row among the rows of a small world, taken from raw Parquet to the champion's scores."""
    simulate(registry, WORLD)
    pq.write_table(pa.Table.from_pylist([ROW]), Path(registry.raw) / APP_LOGS.dataset / f"dt={DAY}" / "walk.parquet")
    for log in (APP_LOGS, ITEM_LOGS):
        for chunk in plan_ingest(registry, log, None, None, 31, now=NOW):
            ingest_chunk(registry, log, date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"]), now=NOW)
    ingest_users(registry)
    validate_range(registry, days_to_validate(registry, ValidateConfig()), ValidateConfig())
    planned = plan_training(registry, CONFIG)
    dataset = build_dataset(registry, CONFIG, planned, mask_seen="on")
    training = train(registry, CONFIG, dataset, planned["fingerprint"], AIRFLOW)
    evaluations = [evaluate(registry, CONFIG, dataset, training, task) for task in ("activity", "attribute", "recommendation")]
    register(registry, CONFIG, dataset, training, evaluations, gate(registry, CONFIG, dataset, training, evaluations))
    promote(registry, PromoteConfig(), "by hand")
    return registry, dataset


def test_one_row_from_raw_parquet_to_a_prediction(walk: tuple[Settings, dict[str, Any]]) -> None:
    settings, built = walk

    # Curated: cast to the contract, in the partition of its day.
    rows = [row for uri in curated_files(settings, APP_LOGS, DAY) for row in pq.read_table(uri).to_pylist()]
    assert [row for row in rows if row["user_id"] == "u8817"] == [ROW | {"seq_no": 0, "event_type": None, "duration_s": None}]

    # Validated: with the rest of its day.
    assert manifest.read(validated_uri(settings, DAY)).kind == "validated"

    # Dataset: before the cut, under the ids of the vocabularies, the only event of its user.
    dataset = Dataset.open(Path(built["uri"]))
    (user,) = np.flatnonzero(dataset.histories.user_ids == "u8817")
    macro, micro = dataset.histories.macro, dataset.histories.micro
    (event,) = range(macro.offsets[user], macro.offsets[user + 1])
    assert dataset.vocabularies.macro_id.decode(macro.ids[event : event + 1]).tolist() == ["com.bank.app"]
    assert dataset.vocabularies.macro_category.decode(macro.categories[event : event + 1]).tolist() == ["finance"]
    assert macro.times[event] == SECONDS
    assert micro.offsets[user] == micro.offsets[user + 1]

    # Scores: a prediction of the champion for its user.
    scored = score(settings, ScoreConfig(), plan_score(settings, ScoreConfig()))
    (said,) = [row for row in pq.read_table(Path(scored["uri"]) / scored["facts"]["files"][0]).to_pylist() if row["user_id"] == "u8817"]
    assert 0 < said["activity_probability"] < 1
    assert len(set(said["top_items"])) == 10
    assert said["model_version"] == 1

    # Serving: the same row, sent as a request, gets the same answer.
    request = pd.DataFrame(
        [{"user_id": "u8817", "macro_ids": ["com.bank.app"], "macro_categories": ["finance"], "macro_times": ["2026-06-10T09:12:07Z"]}]
    )
    (served,) = load_model(settings, "models:/mfn@champion").predict(request, params={"as_of": "2026-06-29"}).to_dict("records")
    assert served["top_items"] == said["top_items"]
    assert served["embedding"] == pytest.approx(said["embedding"], abs=1e-5)
    assert served["activity_probability"] == pytest.approx(said["activity_probability"], abs=1e-5)
