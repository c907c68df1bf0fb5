"""Promotion: the champion moves, keeps its predecessor, and never moves to what the gate refused."""

import re

import pytest

from mfn_core.errors import ConfigError
from tasks.dag_configs import PromoteConfig
from tasks.promote import promote
from tasks.tracking.registry import (
    CANDIDATE,
    CHAMPION,
    DATA_END,
    GATE,
    GATE_CHAMPION,
    GATE_REASON,
    HORIZON,
    MASK_SEEN,
    delete_alias,
    register_version,
    require_version,
    set_alias,
    versions,
)
from tasks.tracking.runs import open_run

RUN = "asset_triggered__2026-11-28"


@pytest.fixture
def register(registry):
    """Registers a version that is nothing but its gate's verdict."""

    def add(gate="passed", candidate=True, judged_against=None, data_end=None, horizon=None, mask_seen=None):
        from mlflow import MlflowClient

        client = MlflowClient(registry.tracking)
        run_id = open_run(registry, f"{len(versions(registry))}" * 64, {}, {})
        model_id = client.create_logged_model(client.get_run(run_id).info.experiment_id, name="mfn").model_id
        tags = {GATE: gate, GATE_REASON: "because"}
        if judged_against:
            tags[GATE_CHAMPION] = judged_against
        if data_end:
            tags[DATA_END] = data_end
        if horizon:
            tags[HORIZON] = horizon
        if mask_seen:
            tags[MASK_SEEN] = mask_seen
        version = register_version(registry, run_id, model_id, tags)
        if candidate:
            set_alias(registry, CANDIDATE, version.number)
        return version.number

    return add


def aliases(settings):
    return {version.number: version.aliases for version in versions(settings)}


def test_the_candidate_becomes_champion(registry, register):
    register()
    promoted = promote(registry, PromoteConfig(), RUN)
    assert (promoted["version"], promoted["previous"], promoted["changed"]) == (1, None, True)
    assert aliases(registry) == {1: ("champion",)}


def test_the_old_champion_becomes_previous(registry, register):
    register()
    promote(registry, PromoteConfig(), RUN)
    register()
    assert promote(registry, PromoteConfig(), RUN)["previous"] == 1
    assert aliases(registry) == {1: ("previous",), 2: ("champion",)}


def test_without_a_candidate_there_is_nothing_to_do(registry, register):
    register(candidate=False)
    assert promote(registry, PromoteConfig(), RUN) == {"skipped": "no version of mfn has the alias candidate: nothing to promote"}


def test_an_empty_registry_is_nothing_to_do(registry):
    assert "skipped" in promote(registry, PromoteConfig(), RUN)


def test_a_retry_of_the_run_that_promoted_announces_the_champion_and_another_run_does_not(registry, register):
    register()
    first = promote(registry, PromoteConfig(), RUN)  # killed before its task ended: the candidate's alias is gone
    assert promote(registry, PromoteConfig(), RUN) == first | {"changed": False}
    assert "skipped" in promote(registry, PromoteConfig(), "asset_triggered__2026-11-29")


def test_promoting_the_champion_again_changes_nothing(registry, register):
    register()
    register()
    promote(registry, PromoteConfig(version=1), RUN)
    promote(registry, PromoteConfig(version=2), RUN)
    again = promote(registry, PromoteConfig(version=2), RUN)
    assert (again["changed"], again["previous"]) == (False, 1)
    assert aliases(registry) == {1: ("previous",), 2: ("champion",)}


def test_a_candidate_that_was_judged_against_another_champion_does_not_undo_a_rollback(registry, register):
    for number in (1, 2):
        register(candidate=False)
        promote(registry, PromoteConfig(version=number), RUN)
    register(judged_against="2")
    promote(registry, PromoteConfig(version=1), RUN)
    assert promote(registry, PromoteConfig(), RUN)["skipped"] == (
        "version 3 was judged when version 2 was champion, and now it is version 1: clear the task gate of its training, which judges it "
        "anew, or trigger this DAG with version=3"
    )
    assert aliases(registry) == {1: ("champion",), 2: ("previous",), 3: ("candidate",)}
    assert promote(registry, PromoteConfig(version=3), RUN)["changed"]


def test_a_candidate_that_was_judged_against_the_champion_replaces_it(registry, register):
    register()
    promote(registry, PromoteConfig(), RUN)
    register(judged_against="1")
    assert promote(registry, PromoteConfig(), RUN)["changed"]


def test_a_candidate_of_older_data_than_the_champions_waits_for_a_person(registry, register):
    register(data_end="2026-06-28")
    promote(registry, PromoteConfig(), RUN)
    register(data_end="2026-05-31")
    assert promote(registry, PromoteConfig(), RUN)["skipped"] == (
        "version 2 was trained on data before 2026-05-31, the champion on data before 2026-06-28: where an older model is meant, trigger "
        "this DAG with version=2"
    )
    assert aliases(registry) == {1: ("champion",), 2: ("candidate",)}
    assert promote(registry, PromoteConfig(version=2), RUN)["changed"]


@pytest.mark.parametrize("ends", [("2026-06-28", None), (None, "2026-05-31")], ids=["candidate", "champion"])
def test_a_version_that_does_not_say_how_old_its_data_is_is_compared_with_none(registry, register, ends):
    register(data_end=ends[0])
    promote(registry, PromoteConfig(), RUN)
    register(data_end=ends[1])
    assert promote(registry, PromoteConfig(), RUN)["changed"]


def test_a_candidate_that_recommends_by_another_rule_than_the_champion_waits_for_a_person(registry, register):
    register(mask_seen="True")
    promote(registry, PromoteConfig(), RUN)
    register(mask_seen="False")
    assert promote(registry, PromoteConfig(), RUN)["skipped"] == (
        "version 2 recommends what a user has met too, the champion leaves out what a user has met: top_items would mean something else to "
        "whoever reads it. Where that is meant, trigger this DAG with version=2; else train with mask_seen=on, as the default of the field "
        "to have it in weekly runs"
    )
    assert aliases(registry) == {1: ("champion",), 2: ("candidate",)}
    assert promote(registry, PromoteConfig(version=2), RUN)["changed"]


@pytest.mark.parametrize("rules", [("True", "True"), ("True", None), (None, "False")], ids=["same", "candidate untold", "champion untold"])
def test_a_candidate_of_no_other_rule_of_recommendation_replaces_the_champion(registry, register, rules):
    register(mask_seen=rules[0])
    promote(registry, PromoteConfig(), RUN)
    register(mask_seen=rules[1])
    assert promote(registry, PromoteConfig(), RUN)["changed"]


def test_a_champion_whose_alias_was_deleted_is_what_a_rollback_goes_back_to(registry, register):
    for number in (1, 2):
        register(candidate=False)
        promote(registry, PromoteConfig(version=number), RUN)
    delete_alias(registry, CHAMPION)
    register(candidate=False)
    assert promote(registry, PromoteConfig(version=3), RUN)["previous"] == 2
    assert aliases(registry) == {1: (), 2: ("previous",), 3: ("champion",)}
    assert require_version(registry, 2).tags["mfn.replaced_by"] == "3"


def test_a_champion_that_gets_its_deleted_alias_back_is_not_previous_to_itself(registry, register):
    for number in (1, 2):
        register(candidate=False)
        promote(registry, PromoteConfig(version=number), RUN)
    delete_alias(registry, CHAMPION)
    assert promote(registry, PromoteConfig(version=2), RUN)["previous"] == 1
    assert aliases(registry) == {1: ("previous",), 2: ("champion",)}


def test_a_candidate_of_the_champions_data_replaces_it(registry, register):
    register(data_end="2026-06-28")
    promote(registry, PromoteConfig(), RUN)
    register(data_end="2026-06-28")
    assert promote(registry, PromoteConfig(), RUN)["changed"]


def test_a_candidate_of_another_horizon_than_the_champions_waits_for_a_person(registry, register):
    register(horizon="7")
    promote(registry, PromoteConfig(), RUN)
    register(horizon="14")
    assert promote(registry, PromoteConfig(), RUN)["skipped"] == (
        "version 2 tells who is active within 14 days, the champion within 7: activity_probability would mean something else to whoever "
        "reads it. Where that is meant, trigger this DAG with version=2; else train with horizon_days=7, as the default of the field to "
        "have it in weekly runs"
    )
    assert aliases(registry) == {1: ("champion",), 2: ("candidate",)}
    assert promote(registry, PromoteConfig(version=2), RUN)["changed"]


@pytest.mark.parametrize("horizons", [("7", "7"), (None, "7"), ("None", "7")], ids=["the same", "not told", "no activity"])
def test_a_candidate_of_no_other_horizon_replaces_the_champion(registry, register, horizons):
    for horizon in horizons:
        register(horizon=horizon)
        assert promote(registry, PromoteConfig(), RUN)["changed"]


def lose_alias(settings):
    delete_alias(settings, CHAMPION)


def lose_version(settings):
    from mlflow import MlflowClient

    MlflowClient(settings.tracking).delete_model_version("mfn", "2")


@pytest.mark.parametrize(("lose", "last"), [(lose_alias, 2), (lose_version, 1)])
def test_where_the_champion_was_lost_a_person_names_the_next(registry, register, lose, last):
    for number in (1, 2):
        register(candidate=False)
        promote(registry, PromoteConfig(version=number), RUN)
    lose(registry)
    register(judged_against="None")
    assert re.fullmatch(
        rf"model mfn has lost its champion: the last of its versions to be promoted is {last} \(20\S+\), and none has the alias champion. "
        rf"Trigger mfn_promote with version={last}, or with that of another which passed the gate",
        promote(registry, PromoteConfig(), "asset_triggered__2026-11-29")["skipped"],
    )
    assert "candidate" in aliases(registry)[3]
    assert promote(registry, PromoteConfig(version=3), "manual__1")["changed"]
    assert aliases(registry)[3] == ("champion",)


def test_a_retry_of_a_first_promotion_that_broke_off_before_the_alias_moved_goes_on(registry, register, monkeypatch):
    register()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.tracking.registry.set_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(registry, PromoteConfig(), RUN)
    assert promote(registry, PromoteConfig(), RUN)["changed"]


def test_reason_and_time_are_tags_of_the_version(registry, register):
    register()
    promote(registry, PromoteConfig(reason="looks good"), RUN)
    tags = require_version(registry, 1).tags
    assert tags["mfn.promotion.reason"] == "looks good"
    assert tags["mfn.promoted_at"].endswith("+00:00")


def test_a_version_that_failed_the_gate_is_refused_and_those_that_passed_are_named(registry, register):
    register()
    register(gate="failed")
    with pytest.raises(ConfigError, match=r"mfn version 2 did not pass the gate \(because\); versions that passed: 1"):
        promote(registry, PromoteConfig(version=2), RUN)
    assert aliases(registry)[1] == ()


def test_a_version_that_is_not_there_is_refused_and_those_that_are_there_are_named(registry, register):
    register()
    with pytest.raises(ConfigError, match=r"no version or alias 9; versions: 1 \(candidate\)"):
        promote(registry, PromoteConfig(version=9), RUN)
