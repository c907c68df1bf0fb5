"""What a run is to do follows from the manifests alone."""

from collections.abc import Sequence
from datetime import date

import pytest

from mfn_core.errors import ConfigError, InsufficientDataError
from mfn_core.schema import APP_LOGS, ITEM_LOGS, LogSchema
from tasks import curated, manifest, plan
from tasks.dag_configs import TrainConfig, ValidateConfig
from tasks.manifest import Manifest
from tasks.plan import plan_training, plan_validation
from tasks.settings import Settings
from tasks.tracking.registry import Version
from tasks.validated import refused_uri, validated_among, validated_uri
from tests.factories import planned

MONDAY, TUESDAY, WEDNESDAY, SATURDAY, SUNDAY = (date(2026, 6, day) for day in (22, 23, 24, 27, 28))


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Version]:
    """Versions by fingerprint: an empty registry."""
    found: dict[str, Version] = {}
    monkeypatch.setattr("tasks.tracking.registry.find_version", lambda settings, fingerprint: found.get(fingerprint))
    return found


def publish(settings: Settings, log: LogSchema, day: date, digest: str) -> None:
    facts = {"dt": str(day), "files": []}
    manifest.write(
        Manifest(kind="curated", uri=curated.partition_uri(settings, log, day), digest=digest, rows={"accepted": 1}, facts=facts)
    )


def validate(settings: Settings, day: date, **digests: str) -> None:
    facts = {"dt": str(day)}
    uri = validated_uri(settings, day)
    manifest.write(Manifest(kind="validated", uri=uri, digest=manifest.digest_of(digests), inputs=digests, facts=facts))


def refuse(settings: Settings, day: date, **digests: str) -> None:
    uri = refused_uri(settings, day)
    manifest.write(Manifest(kind="refused", uri=uri, digest=manifest.digest_of(digests), inputs=digests, facts={"dt": str(day)}))


def expected(*days: date, others: Sequence[date] = (), late: Sequence[date] = ()) -> dict[str, list[str]]:
    return {"days": [str(day) for day in days], "others": [str(day) for day in others], "late": [str(day) for day in late]}


def publish_and_validate(settings: Settings, *days: date) -> None:
    for day in days:
        publish(settings, APP_LOGS, day, f"app{day}")
        publish(settings, ITEM_LOGS, day, f"item{day}")
        validate(settings, day, app_logs=f"app{day}", item_logs=f"item{day}")


def publish_only(settings: Settings, day: date) -> None:
    publish(settings, APP_LOGS, day, f"app{day}")
    publish(settings, ITEM_LOGS, day, f"item{day}")


def test_training_reads_all_validated_days(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    planned = plan_training(settings, TrainConfig())
    assert (planned["days"], planned["partitions"], planned["skip"]) == (["2026-06-22", "2026-06-23"], {"macro": 2, "micro": 2}, None)


def test_the_plan_names_its_inputs_so_that_what_changes_before_they_are_read_is_noticed(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    assert plan_training(settings, TrainConfig())["inputs"] == planned(settings, "fingerprint", MONDAY, TUESDAY)["inputs"]


def test_training_leaves_later_days_that_are_not_validated_yet(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    publish_only(settings, WEDNESDAY)
    assert plan_training(settings, TrainConfig())["days"] == ["2026-06-22", "2026-06-23"]


def test_a_gap_in_the_validated_days_stops_training_and_names_the_day(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, WEDNESDAY)
    publish_only(settings, TUESDAY)
    with pytest.raises(
        InsufficientDataError,
        match=r"1 of 3 days up to 2026-06-24 are not validated as they stand: 2026-06-23; run mfn_validate .*; then clear plan",
    ):
        plan_training(settings, TrainConfig())


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (TrainConfig(num_heads=3), "num_heads=3 does not divide width=128 into heads of an even width"),
        (TrainConfig(preset="paper", gate=False), "gate cannot be changed with preset=paper"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_its_dataset_is(settings: Settings, config: TrainConfig, why: str) -> None:
    publish_and_validate(settings, MONDAY)
    with pytest.raises(ConfigError, match=why):
        plan_training(settings, config)


def test_a_day_that_no_log_has_is_told(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    publish_and_validate(settings, MONDAY, WEDNESDAY)
    plan_training(settings, TrainConfig())
    assert "1 of the 3 days from 2026-06-22 to 2026-06-24 have no log of any kind: 2026-06-23; if" in caplog.text


def test_days_without_a_gap_are_not_worth_a_word(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY, WEDNESDAY)
    plan_training(settings, TrainConfig())
    assert "no log of any kind" not in caplog.text


def test_a_day_that_was_ingested_again_does_not_count_as_validated(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    publish(settings, APP_LOGS, MONDAY, "corrected")
    with pytest.raises(InsufficientDataError, match="2026-06-22"):
        plan_training(settings, TrainConfig())


def test_training_without_a_validated_day_says_what_to_run(settings: Settings) -> None:
    publish_only(settings, MONDAY)
    with pytest.raises(
        InsufficientDataError, match=r"none of the 1 published days from the first to 2026-06-22 is validated; .* mfn_validate"
    ):
        plan_training(settings, TrainConfig(last_day=MONDAY))


def test_training_reads_the_days_of_its_form_only(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY, WEDNESDAY)
    assert plan_training(settings, TrainConfig(first_day=TUESDAY, last_day=TUESDAY))["days"] == ["2026-06-23", "2026-06-23"]


def test_the_fingerprint_is_the_same_however_the_same_days_are_named(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    named = TrainConfig(first_day=MONDAY, last_day=TUESDAY)
    assert plan_training(settings, named)["fingerprint"] == plan_training(settings, TrainConfig())["fingerprint"]


@pytest.mark.parametrize("change", ["partition", "users", "config", "code", "another day"])
def test_the_fingerprint_follows_every_input(settings: Settings, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    publish_and_validate(settings, MONDAY)
    before = plan_training(settings, TrainConfig())["fingerprint"]
    if change == "partition":
        publish(settings, APP_LOGS, MONDAY, "corrected")
        validate(settings, MONDAY, app_logs="corrected", item_logs=f"item{MONDAY}")
    if change == "users":
        manifest.write(Manifest(kind="curated", uri=curated.users_uri(settings), digest="users"))
    if change == "code":
        monkeypatch.setattr(plan.manifest, "code_digest", lambda: "other")
    if change == "another day":
        publish_and_validate(settings, TUESDAY)
    config = TrainConfig(seed=1) if change == "config" else TrainConfig()
    assert plan_training(settings, config)["fingerprint"] != before


def test_what_is_registered_already_is_skipped_by_its_version(settings: Settings, registry: dict[str, Version]) -> None:
    publish_and_validate(settings, MONDAY)
    registry[plan_training(settings, TrainConfig())["fingerprint"]] = Version(number=7, run_id="run", tags={}, aliases=())
    skip = plan_training(settings, TrainConfig())["skip"]
    assert skip == "already trained as version 7: the same partitions, users, config and code"


def test_force_trains_what_is_registered_already(settings: Settings, registry: dict[str, Version]) -> None:
    publish_and_validate(settings, MONDAY)
    registry[plan_training(settings, TrainConfig())["fingerprint"]] = Version(number=7, run_id="run", tags={}, aliases=())
    assert plan_training(settings, TrainConfig(force=True))["skip"] is None


def test_a_run_for_a_partition_validates_its_day_and_those_that_changed_since(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    publish(settings, APP_LOGS, MONDAY, "with late rows")
    publish_only(settings, WEDNESDAY)
    assert plan_validation(settings, ValidateConfig(), WEDNESDAY) == expected(WEDNESDAY, others=[MONDAY])


def test_a_run_for_a_partition_takes_along_an_earlier_day_whose_own_run_never_judged_it(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY)
    publish_only(settings, TUESDAY)
    publish_only(settings, WEDNESDAY)
    assert plan_validation(settings, ValidateConfig(), WEDNESDAY) == expected(WEDNESDAY, others=[TUESDAY], late=[TUESDAY])


def test_days_of_a_first_load_are_taken_along_though_a_later_one_was_validated_first(settings: Settings) -> None:
    publish_and_validate(settings, TUESDAY)
    publish_only(settings, MONDAY)
    publish_only(settings, WEDNESDAY)
    assert plan_validation(settings, ValidateConfig(), WEDNESDAY) == expected(WEDNESDAY, others=[MONDAY], late=[MONDAY])


def test_a_later_day_that_was_never_judged_is_left_to_its_own_run(settings: Settings) -> None:
    publish_only(settings, MONDAY)
    publish_only(settings, TUESDAY)
    publish_only(settings, WEDNESDAY)
    publish_only(settings, SUNDAY)
    assert plan_validation(settings, ValidateConfig(), TUESDAY) == expected(TUESDAY, others=[MONDAY])


@pytest.mark.parametrize(("last_item_day", "late"), [(SATURDAY, True), (SUNDAY, False)])
def test_of_a_first_load_whose_logs_end_in_different_weeks_the_week_that_both_have_is_announced(
    settings: Settings, last_item_day: date, late: bool
) -> None:
    week_before = [date(2026, 6, day) for day in range(15, 22)]
    for day in (*week_before, MONDAY, last_item_day):
        publish_only(settings, day)
    publish(settings, APP_LOGS, date(2026, 7, 1), "app")
    planned = plan_validation(settings, ValidateConfig(), MONDAY)
    assert planned == expected(MONDAY, others=week_before, late=week_before if late else ())


def test_an_earlier_day_that_lacks_a_log_is_not_taken_along(settings: Settings) -> None:
    publish(settings, APP_LOGS, MONDAY, "alone")
    publish_only(settings, TUESDAY)
    assert plan_validation(settings, ValidateConfig(), TUESDAY) == expected(TUESDAY)


def test_a_day_that_was_refused_as_it_stands_is_not_taken_along_again(settings: Settings) -> None:
    publish_only(settings, MONDAY)
    publish_only(settings, TUESDAY)
    refuse(settings, MONDAY, app_logs=f"app{MONDAY}", item_logs=f"item{MONDAY}")
    assert plan_validation(settings, ValidateConfig(), TUESDAY) == expected(TUESDAY)


def test_a_day_that_was_refused_is_taken_along_when_it_has_changed(settings: Settings) -> None:
    publish_and_validate(settings, TUESDAY)
    publish_only(settings, MONDAY)
    publish_only(settings, WEDNESDAY)
    refuse(settings, MONDAY, app_logs="before it was mended", item_logs=f"item{MONDAY}")
    assert plan_validation(settings, ValidateConfig(), WEDNESDAY) == expected(WEDNESDAY, others=[MONDAY], late=[MONDAY])


def test_a_manual_run_judges_a_refused_day_again(settings: Settings) -> None:
    publish_only(settings, MONDAY)
    refuse(settings, MONDAY, app_logs=f"app{MONDAY}", item_logs=f"item{MONDAY}")
    assert plan_validation(settings, ValidateConfig(), None) == expected(MONDAY)


def test_a_refused_day_stops_training_as_one_that_is_not_validated(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, WEDNESDAY)
    publish_only(settings, TUESDAY)
    refuse(settings, TUESDAY, app_logs=f"app{TUESDAY}", item_logs=f"item{TUESDAY}")
    with pytest.raises(InsufficientDataError, match="1 of 3 days up to 2026-06-24 are not validated as they stand: 2026-06-23"):
        plan_training(settings, TrainConfig())


def test_a_run_for_a_partition_announces_its_day_though_it_was_validated_by_hand(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY)
    assert plan_validation(settings, ValidateConfig(), MONDAY) == expected(MONDAY)


def test_a_manual_run_validates_what_is_not_validated_as_it_stands(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY)
    publish_only(settings, TUESDAY)
    assert plan_validation(settings, ValidateConfig(), None) == expected(TUESDAY)


def test_of_the_days_of_a_run_those_are_announced_that_are_validated_as_they_stand(settings: Settings) -> None:
    publish_and_validate(settings, MONDAY, TUESDAY)
    publish(settings, APP_LOGS, MONDAY, "with late rows")
    publish_only(settings, WEDNESDAY)
    assert validated_among(settings, [str(MONDAY), str(TUESDAY), str(WEDNESDAY)]) == [str(TUESDAY)]
    assert validated_among(settings, []) == []
