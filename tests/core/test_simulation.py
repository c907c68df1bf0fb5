"""The simulated world keeps the contract, and what is planted in it can be found from what a model sees."""

from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError
from mfn_core.simulation import RECIPES, World, simulate

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
    return tastes_of(apps, items, users)


def tastes_of(apps: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
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


@dataclass(frozen=True)
class Tried:
    """AUC, on users with both views, of what category shares tell."""

    macro: float
    micro: float
    both: float
    crossed: float


@cache
def world_named(name: str) -> World:
    return simulate(CONFIG.model_copy(update={"world": name}))


def attempts(world: World, trait: str) -> Tried:
    apps, items, users = world.app_logs.to_pandas(), world.item_logs.to_pandas(), world.users.to_pandas().set_index("user_id")
    macro, micro = tastes_of(apps, items, users)
    known = (macro.sum(axis=1) > 0) & (micro.sum(axis=1) > 0)
    if trait == "activity":
        labels = users.index.isin(items.user_id[items.event_time >= CUT])
    else:
        column, positive = {"gender": ("gender", {"male"}), "older": ("age_group", {"35-49", "50+"})}[trait]
        known &= users[column].notna().to_numpy()
        labels = users[column].isin(positive).to_numpy()
    both = np.hstack([macro, micro])
    tried = (macro, micro, both, np.hstack([both, crossed(macro, micro)]))
    return Tried(*(achievable_auc(features[known], labels[known]) for features in tried))


def told_apart(world: World, column: str) -> float:
    """How often the last app event within the hour before an item, after the item before, tells the item's category."""
    apps, items = world.app_logs.to_pandas(), world.item_logs.to_pandas()
    item_events = items.assign(previous=items.groupby("user_id").event_time.shift())
    joined = pd.merge_asof(
        item_events,
        apps[["user_id", "event_time", "app_id", "app_category"]].assign(app_time=apps.event_time),
        on="event_time",
        by="user_id",
        allow_exact_matches=False,
        tolerance=pd.Timedelta(hours=1),
    )
    joined = joined[joined.app_time.notna() & ~(joined.app_time <= joined.previous)]
    counts = pd.crosstab(joined[column], joined.item_category).to_numpy()
    return counts.max(axis=1).sum() / counts.sum()


def strengths(world: World) -> pd.DataFrame:
    """Planted strengths, app categories by item categories."""
    return world.correspondence.to_pandas().pivot_table("strength", "app_category", "item_category")


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


def test_the_app_before_an_item_foretells_its_category(world: World):
    assert told_apart(world, "app_id") > 0.7
    assert told_apart(world, "app_category") < 0.3


def test_every_world_of_the_form_has_its_recipe():
    assert get_args(SimulationConfig.model_fields["world"].annotation) == tuple(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_half_of_the_users_are_active_in_every_world(name: str):
    items = world_named(name).item_logs.to_pandas()
    assert items.user_id[items.event_time >= CUT].nunique() / 2000 == pytest.approx(0.45, abs=0.1)


def test_agreement_alone_tells_activity_in_the_world_of_agreement():
    activity = attempts(world_named("agreement"), "activity")
    assert activity.crossed > 0.8 > 0.68 > activity.both


@pytest.mark.parametrize("trait", ["gender", "older"])
def test_products_tell_attributes_in_the_world_of_products(trait: str):
    tried = attempts(world_named("product"), trait)
    assert tried.crossed > tried.both + 0.08


@pytest.mark.parametrize(("name", "trait"), [("agreement", "gender"), ("product", "activity")])
def test_what_is_not_planted_in_a_product_or_in_agreement_adds_up_from_both_views(name: str, trait: str):
    tried = attempts(world_named(name), trait)
    assert tried.both > max(tried.macro, tried.micro) + 0.03
    assert tried.crossed < tried.both + 0.02


def test_apps_foretell_most_items_of_the_foretelling_world_and_none_of_others():
    assert told_apart(world_named("foretelling"), "app_id") > 0.8
    assert [told_apart(world_named(name), "app_id") < 0.4 for name in ("agreement", "product", "additive", "correspondence")] == [True] * 4


@pytest.mark.parametrize("trait", ["activity", "gender", "older"])
def test_crosses_bring_nothing_in_the_additive_world(trait: str):
    tried = attempts(world_named("additive"), trait)
    assert tried.both > 0.75
    assert tried.crossed < tried.both + 0.01


def test_the_micro_view_alone_tells_activity_in_the_additive_world():
    activity = attempts(world_named("additive"), "activity")
    assert activity.micro > activity.both - 0.01
    assert activity.macro < 0.55


def test_a_third_of_the_users_have_one_view_in_the_world_of_one_view():
    in_macro, in_micro = (set(log["user_id"].to_pylist()) for log in (world_named("one_view").app_logs, world_named("one_view").item_logs))
    assert 0.15 < len(in_macro - in_micro) / 2000 < 0.22  # some of them have the micro view, but no event in it yet
    assert 0.15 < len(in_micro - in_macro) / 2000 < 0.22


def test_the_planted_correspondence_is_graded_and_seen_in_the_logs():
    world = world_named("correspondence")
    planted = strengths(world)
    users = world.users.to_pandas().set_index("user_id")
    macro, micro = tastes_of(world.app_logs.to_pandas(), world.item_logs.to_pandas(), users)
    present = (macro.sum(axis=1) > 0) & (micro.sum(axis=1) > 0)
    num_apps = macro.shape[1]
    seen = np.cov(macro[present], micro[present], rowvar=False)[:num_apps, num_apps:]
    assert planted.shape == (10, 12)
    assert planted.to_numpy().min() > 0
    assert len(np.unique(planted)) == 100  # ten interests; of the twelve item categories two share their interest with another
    assert pd.Series(planted.to_numpy().ravel()).corr(pd.Series(seen.ravel()), method="spearman") > 0.75


@pytest.mark.parametrize(
    ("name", "linked"), [("mixed", 0.5), ("agreement", 0.5), ("additive", 0.0), ("product", 0.0), ("foretelling", 0.0)]
)
def test_elsewhere_a_category_leads_to_those_of_its_interest_as_far_as_users_agree(name: str, linked: float):
    planted = strengths(simulate(SimulationConfig(world=name, num_users=20, num_app_categories=2, num_item_categories=2)))
    assert sorted(planted.to_numpy().ravel()) == [0.0, 0.0, linked, linked]
    assert planted.sum(axis=1).tolist() == [linked, linked]


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
