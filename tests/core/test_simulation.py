"""The simulated world keeps the contract, and what is planted in it can be found from what a model sees."""

import time
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError
from mfn_core.simulation import World, simulate

CONFIG = SimulationConfig(num_users=2000, num_days=56, last_day=date(2026, 6, 28), events_per_user=60, seed=7)
CUT = pd.Timestamp("2026-06-22", tz="UTC")
WEEK = pd.Timedelta(days=7)


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(CONFIG)


@pytest.fixture(scope="module")
def apps(world: World) -> pd.DataFrame:
    return world.app_logs.to_pandas()


@pytest.fixture(scope="module")
def items(world: World) -> pd.DataFrame:
    return world.item_logs.to_pandas()


@pytest.fixture(scope="module")
def users(world: World) -> pd.DataFrame:
    return world.users.to_pandas().set_index("user_id")


@pytest.fixture(scope="module")
def tastes(apps: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Each user's share of every app category and of every item category before the cut, one row per user of ``users``."""
    before = (apps[apps.event_time < CUT], items[items.event_time < CUT])
    counts = [
        pd.crosstab(log.user_id, log[category]).reindex(users.index, fill_value=0)
        for log, category in zip(before, ("app_category", "item_category"), strict=True)
    ]
    macro, micro = (count.to_numpy() / np.maximum(count.to_numpy().sum(axis=1, keepdims=True), 1) for count in counts)
    return macro, micro


def crossed(macro: np.ndarray, micro: np.ndarray) -> np.ndarray:
    return np.sqrt(macro[:, :, None] * micro[:, None, :]).reshape(len(macro), -1)


def achievable_auc(features: np.ndarray, labels: np.ndarray) -> float:
    """AUC of a logistic regression on users that it has not seen."""
    model = LogisticRegression(C=3.0, max_iter=300)
    return float(roc_auc_score(labels, cross_val_predict(model, features, labels, cv=3, method="predict_proba")[:, 1]))


def test_the_raw_contract_is_kept(world: World):
    time_type = pa.timestamp("us", "UTC")
    assert world.app_logs.schema == pa.schema(
        {
            "user_id": pa.string(),
            "app_id": pa.string(),
            "app_category": pa.string(),
            "event_time": time_type,
            "event_type": pa.string(),
            "duration_s": pa.float64(),
            "seq_no": pa.int64(),
        }
    )
    assert world.item_logs.schema == pa.schema(
        {
            "user_id": pa.string(),
            "item_id": pa.string(),
            "item_category": pa.string(),
            "event_time": time_type,
            "event_type": pa.string(),
            "dwell_s": pa.float64(),
            "seq_no": pa.int64(),
        }
    )
    assert world.users.schema == pa.schema({"user_id": pa.string(), "gender": pa.string(), "age_group": pa.string()})


def test_the_same_config_gives_the_same_rows(world: World):
    again = simulate(CONFIG)
    assert (again.app_logs.equals(world.app_logs), again.item_logs.equals(world.item_logs), again.users.equals(world.users)) == (True,) * 3


def test_another_seed_gives_other_rows(world: World):
    assert not simulate(CONFIG.model_copy(update={"seed": 8})).item_logs.equals(world.item_logs)


def test_the_demo_world_takes_less_than_three_seconds():
    started = time.perf_counter()
    simulate(CONFIG)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize("log", ["app_logs", "item_logs"])
def test_no_row_would_be_rejected(world: World, log: str):
    frame = getattr(world, log).to_pandas()
    assert not frame.isna().any().any()
    assert not frame.duplicated(["user_id", "seq_no"]).any()
    assert frame.event_time.min() >= pd.Timestamp("2026-05-04", tz="UTC")
    assert frame.event_time.max() < pd.Timestamp("2026-06-29", tz="UTC")
    assert frame.event_time.is_monotonic_increasing


def test_seq_no_follows_the_time_of_each_user(items: pd.DataFrame):
    ordered = items.sort_values(["user_id", "seq_no"])
    assert (ordered.groupby("user_id").event_time.diff().dropna() >= pd.Timedelta(0)).all()


def test_an_app_and_an_item_have_one_category(apps: pd.DataFrame, items: pd.DataFrame):
    assert apps.groupby("app_id").app_category.nunique().max() == 1
    assert items.groupby("item_id").item_category.nunique().max() == 1


def test_events_per_user_and_view_are_as_asked(apps: pd.DataFrame, items: pd.DataFrame):
    assert len(apps) / 2000 == pytest.approx(60, rel=0.05)
    assert len(items) / 2000 == pytest.approx(60, rel=0.05)


def test_every_day_has_rows(apps: pd.DataFrame, items: pd.DataFrame):
    assert apps.event_time.dt.date.nunique() == 56
    assert items.event_time.dt.date.nunique() == 56


def test_some_users_have_one_view_only_and_few_have_no_event(apps: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame):
    in_macro, in_micro = (users.index.isin(log.user_id) for log in (apps, items))
    assert 0.04 < (in_macro ^ in_micro).mean() < 0.15
    assert (~in_macro & ~in_micro).mean() < 0.01


def test_a_handful_of_attributes_is_missing(users: pd.DataFrame):
    assert users.gender.isna().mean() == pytest.approx(0.02, abs=0.01)
    assert users.age_group.isna().mean() == pytest.approx(0.02, abs=0.01)


def test_evenings_are_busier_than_nights(items: pd.DataFrame):
    hours = items.event_time.dt.hour
    assert (hours.between(19, 21)).sum() > 5 * (hours.between(2, 4)).sum()


def test_week_ends_are_busier_than_week_days(apps: pd.DataFrame):
    per_day = apps[apps.event_time >= CUT - 3 * WEEK].groupby(apps.event_time.dt.day_of_week).size()
    assert per_day[[5, 6]].mean() > 1.15 * per_day[[0, 1, 2]].mean()


def test_half_of_the_users_are_active_after_any_cut(apps: pd.DataFrame, items: pd.DataFrame):
    rates: list[float] = []
    for cut in (CUT - 2 * WEEK, CUT - WEEK, CUT):
        known = set(apps.user_id[apps.event_time < cut]) | set(items.user_id[items.event_time < cut])
        active = set(items.user_id[(items.event_time >= cut) & (items.event_time < cut + WEEK)])
        rates.append(len(known & active) / len(known))
    assert all(0.4 < rate < 0.6 for rate in rates), rates


def test_only_both_views_together_tell_who_stays(items: pd.DataFrame, users: pd.DataFrame, tastes: tuple[np.ndarray, np.ndarray]):
    macro, micro = tastes
    active = users.index.isin(items.user_id[items.event_time >= CUT])
    present = (macro.sum(axis=1) > 0) & (micro.sum(axis=1) > 0)
    additive = achievable_auc(np.hstack([macro, micro])[present], active[present])
    fused = achievable_auc(crossed(macro, micro)[present], active[present])
    assert additive < 0.68
    assert fused > 0.78


@pytest.mark.parametrize(("attribute", "positive"), [("gender", {"male"}), ("age_group", {"25-34", "50+"})])
def test_only_both_views_together_tell_an_attribute(
    users: pd.DataFrame, tastes: tuple[np.ndarray, np.ndarray], attribute: str, positive: set[str]
):
    macro, micro = tastes
    known = users[attribute].notna().to_numpy()
    labels = users[attribute].isin(positive).to_numpy()[known]
    additive = achievable_auc(np.hstack([macro, micro])[known], labels)
    fused = achievable_auc(crossed(macro, micro)[known], labels)
    assert fused > 0.75
    assert fused > additive + 0.03


def test_one_view_tells_the_older_half(users: pd.DataFrame, tastes: tuple[np.ndarray, np.ndarray]):
    known = users.age_group.notna().to_numpy()
    labels = users.age_group.isin({"35-49", "50+"}).to_numpy()[known]
    assert achievable_auc(tastes[0][known], labels) > 0.85


def test_thirty_percent_of_items_have_one_fixed_successor(items: pd.DataFrame):
    ordered = items.sort_values(["user_id", "seq_no"])
    following = ordered.groupby("user_id").item_id.shift(-1)
    pairs = pd.crosstab(ordered.item_id, following).to_numpy()
    assert pairs.max(axis=1).sum() / pairs.sum() == pytest.approx(0.33, abs=0.05)


def test_popularity_is_skewed(items: pd.DataFrame):
    counts = items.item_id.value_counts().to_numpy()
    assert counts[:60].sum() > 0.2 * counts.sum()


def test_the_app_before_an_item_foretells_its_category(apps: pd.DataFrame, items: pd.DataFrame):
    item_events = items.sort_values("event_time").assign(previous=lambda log: log.groupby("user_id").event_time.shift())
    joined = pd.merge_asof(
        item_events,
        apps[["user_id", "event_time", "app_id", "app_category"]].assign(app_time=apps.event_time),
        on="event_time",
        by="user_id",
        allow_exact_matches=False,
        tolerance=pd.Timedelta(hours=1),
    )
    joined = joined[joined.app_time.notna() & ~(joined.app_time <= joined.previous)]

    def hit_rate(column: str) -> float:
        counts = pd.crosstab(joined[column], joined.item_category).to_numpy()
        return counts.max(axis=1).sum() / counts.sum()

    assert hit_rate("app_id") > 0.7
    assert hit_rate("app_category") < 0.3


@pytest.mark.parametrize(
    "shape",
    [
        {"num_users": 20, "num_days": 7, "events_per_user": 0.1},
        {"num_users": 50, "num_app_categories": 2, "num_item_categories": 2},
        {"num_users": 50, "num_days": 800, "num_app_categories": 30},
    ],
)
def test_small_and_odd_worlds_are_made_too(shape: dict[str, float]):
    world = simulate(SimulationConfig.model_validate({"seed": 1} | shape))
    assert world.users.num_rows == shape["num_users"]


def test_fewer_apps_than_categories_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match="num_apps=10 is less than num_app_categories=11"):
        simulate(SimulationConfig(num_apps=10, num_app_categories=11))
