"""Curated days are judged across both logs and against the days before them."""

import logging
from datetime import UTC, date, datetime

import pytest

from mfn_core.errors import AuditError, ConfigError, InsufficientDataError
from mfn_core.schema import APP_LOGS, ITEM_LOGS, LOGS
from tasks import audit, curated, ingest, manifest, plan, storage, validate, validated
from tasks.audit import Verdict
from tasks.dag_configs import ValidateConfig
from tests.tasks.raw_files import app_rows, deliver

NOW = datetime(2026, 7, 1, tzinfo=UTC)
DAYS = [date(2026, 6, day) for day in (1, 2, 3)]
FEW_ROWS = ValidateConfig(min_category_rows=1)  # the days of these tests have too few for the default


@pytest.fixture
def approving_judge(monkeypatch):
    """The names under which the audit was asked, in turn."""
    asked = []

    def judge(_frame, _suite, name, _settings):
        asked.append(name)
        return Verdict("stub", True, 0, (), (), "")

    monkeypatch.setattr(audit, "judge", judge)
    return asked


def publish(settings, log, days):
    """Curate days, each given as (user, category, hour), without asking Great Expectations."""
    for day, rows in days.items():
        table = app_rows([(user, "x", category, f"2026-06-0{day}T{hour:02}:00") for user, category, hour in rows])
        deliver(settings, f"{log.dataset}/dt=2026-06-0{day}/a.parquet", table.rename_columns(list(log.required)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "judge", lambda *_: Verdict("stub", True, 0, (), (), ""))
        ingest.ingest_chunk(settings, log, date(2026, 6, min(days)), date(2026, 6, max(days)), now=NOW)


def validate_day(settings, day, config):
    return validate.validate_range(settings, [day], config)[0]


def metrics(settings, day, config=None):
    return validate_day(settings, date(2026, 6, day), config or ValidateConfig())["facts"]["metrics"]


@pytest.fixture
def three_days(settings):
    """App log of 2, 4 and 3 rows; the item log has one row a day."""
    app_days = {
        1: [("ann", "finance", 12), ("bob", "games", 22)],
        2: [("ann", "finance", 12), ("bob", "games", 13), ("cat", "games", 14), ("dan", "travel", 20)],
        3: [("ann", "finance", 6), ("bob", "music", 7), ("cat", "music", 8)],
    }
    publish(settings, APP_LOGS, app_days)
    publish(settings, ITEM_LOGS, {day: [(user, "film", 23)] for day, user in ((1, "zoe"), (2, "ann"), (3, "dan"))})
    return settings


@pytest.mark.usefixtures("approving_judge")
def test_volume_is_the_rows_by_the_median_of_the_days_before(three_days):
    assert metrics(three_days, 3)["app_logs"]["volume_ratio"] == 1.0  # 3 rows by the median of 2 and 4


@pytest.mark.usefixtures("approving_judge")
def test_a_category_is_new_when_no_reference_day_has_it(three_days):
    assert metrics(three_days, 3, FEW_ROWS)["app_logs"]["new_category_share"] == pytest.approx(2 / 3)
    assert metrics(three_days, 2, FEW_ROWS)["app_logs"]["new_category_share"] == 0.25


@pytest.mark.usefixtures("approving_judge")
def test_a_category_is_new_again_after_the_reference_days(three_days):
    publish(three_days, APP_LOGS, {4: [("ann", "travel", 9), ("ann", "music", 10)]})
    publish(three_days, ITEM_LOGS, {4: [("ann", "film", 9)]})
    config = ValidateConfig(reference_days=1, min_category_rows=1)
    assert metrics(three_days, 4, config)["app_logs"]["new_category_share"] == 0.5


@pytest.mark.usefixtures("approving_judge")
def test_categories_of_few_rows_are_not_compared_and_the_manifest_says_so(three_days):
    facts = validate_day(three_days, DAYS[2], ValidateConfig(min_category_rows=4))["facts"]
    assert facts["metrics"]["app_logs"]["new_category_share"] is None
    assert facts["not_compared"]["app_logs categories"] == (
        "fewer rows than min_category_rows on the day or before it, or categories too rare to compare"
    )


@pytest.mark.usefixtures("approving_judge")
@pytest.mark.parametrize(("rows_before", "share"), [(13, None), (14, 1.0)])
def test_categories_are_not_compared_with_days_that_have_a_few_rows_of_each(settings, rows_before, share):
    # 12 categories before: 12 / 10 of min_category_rows are needed, 13.2 rows.
    before = [("ann", f"brand {number % 12}", number) for number in range(rows_before)]
    publish(settings, APP_LOGS, {1: before, 2: [("ann", "brand x", hour) for hour in range(11)]})
    publish(settings, ITEM_LOGS, {1: [("ann", "film", 9)], 2: [("ann", "film", 9)]})
    assert metrics(settings, 2, ValidateConfig(min_category_rows=11))["app_logs"]["new_category_share"] == share


@pytest.mark.usefixtures("approving_judge")
def test_silent_hours_compare_the_last_event_with_the_days_before(three_days):
    # The last event is at 8:00, 16 hours before midnight; on the days before it is 2 and 4 hours before, the median 3.
    assert metrics(three_days, 3)["app_logs"]["silent_hours"] == 13.0


@pytest.mark.usefixtures("approving_judge")
def test_overlap_is_the_share_of_the_smaller_log_that_the_other_has_seen(three_days):
    assert [metrics(three_days, day)["item_logs"]["user_overlap"] for day in (1, 2, 3)] == [0.0, 1.0, 1.0]


@pytest.mark.usefixtures("approving_judge")
def test_overlap_forgets_users_after_the_reference_days(three_days):
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9), ("bob", "games", 9)]})
    publish(three_days, ITEM_LOGS, {4: [("dan", "film", 9)]})
    assert metrics(three_days, 4, ValidateConfig(reference_days=1))["item_logs"]["user_overlap"] == 0.0


@pytest.mark.usefixtures("approving_judge")
@pytest.mark.parametrize("ids_at_once", [1, 100], ids=["a day at a time", "all days at once"])
def test_overlap_of_a_range_forgets_users_day_by_day(three_days, monkeypatch, ids_at_once):
    monkeypatch.setattr(validate, "_IDS_AT_ONCE", ids_at_once)
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9), ("bob", "games", 9)]})
    publish(three_days, ITEM_LOGS, {4: [("dan", "film", 9)]})  # whom the app log saw on the 2nd: one day before the 3rd, two before the 4th
    judged = validate.validate_range(three_days, [date(2026, 6, 3), date(2026, 6, 4)], ValidateConfig(reference_days=1))
    assert [each["facts"]["metrics"]["item_logs"]["user_overlap"] for each in judged] == [1.0, 0.0]


@pytest.mark.usefixtures("approving_judge")
def test_the_first_day_is_not_compared_and_its_manifest_says_so(three_days):
    facts = validate_day(three_days, DAYS[0], ValidateConfig())["facts"]
    assert facts["metrics"]["app_logs"]["volume_ratio"] is None
    assert facts["not_compared"]["app_logs volume, last event"] == "no reference day before it"


def test_a_range_is_judged_in_one_run_each_day_by_its_own_reference_days(three_days, approving_judge):
    publish(three_days, APP_LOGS, {4: [("zoe", "travel", 9)], 5: [("ann", "finance", 9), ("bob", "finance", 9)]})
    publish(three_days, ITEM_LOGS, {4: [("eve", "film", 9), ("fay", "film", 9)], 5: [("dan", "film", 9)]})
    days = [*DAYS, date(2026, 6, 4), date(2026, 6, 5)]
    found = validate.validate_range(three_days, days, ValidateConfig(reference_days=1, min_category_rows=1))
    # Travel was last seen on the 2nd, finance on the 3rd; zoe was in the item log on the 1st only, dan in the app log on the 2nd.
    app_logs = [each["facts"]["metrics"]["app_logs"] for each in found]
    assert approving_judge == ["days-2026-06-01-2026-06-05"]
    assert [each["volume_ratio"] for each in app_logs] == [None, 2.0, 0.75, pytest.approx(1 / 3), 2.0]
    assert [each["new_category_share"] for each in app_logs] == [None, 0.25, pytest.approx(2 / 3), 1.0, 1.0]
    assert [each["user_overlap"] for each in app_logs] == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_a_validated_day_is_no_work_and_the_log_says_so(three_days, approving_judge, caplog):
    first = validate.validate_range(three_days, DAYS, ValidateConfig())
    with caplog.at_level(logging.INFO, "tasks"):
        assert validated.days_to_validate(three_days, ValidateConfig()) == []
        assert validate.validate_range(three_days, DAYS, ValidateConfig()) == first
    assert len(approving_judge) == 1
    assert caplog.text.count("nothing to do") == 2


def test_only_the_day_that_changed_is_judged_again(three_days, approving_judge):
    validate.validate_range(three_days, DAYS, ValidateConfig())
    publish(three_days, APP_LOGS, {2: [("ann", "finance", 12)]})
    assert validated.days_to_validate(three_days, ValidateConfig()) == [date(2026, 6, 2)]
    validate.validate_range(three_days, DAYS, ValidateConfig())
    assert approving_judge[1:] == ["days-2026-06-02-2026-06-02"]


@pytest.mark.usefixtures("approving_judge")
def test_a_day_that_changed_keeps_the_limits_it_was_judged_by_unless_the_form_says_others(three_days):
    def limit(config):
        publish(three_days, ITEM_LOGS, {2: [("ann", "film", next(hours))]})
        return validate_day(three_days, DAYS[1], config)["config"]["max_new_category_share"]

    hours = iter(range(24))
    by_hand = ValidateConfig(first_day=DAYS[1], last_day=DAYS[1], max_new_category_share=1)
    assert [limit(by_hand), limit(ValidateConfig()), limit(ValidateConfig(max_new_category_share=0.5))] == [1, 1, 0.5]


@pytest.mark.usefixtures("approving_judge")
def test_a_day_that_changed_is_compared_with_as_many_days_as_before(three_days):
    winter = date(2026, 2, 1)
    deliver(three_days, f"app_logs/dt={winter}/a.parquet", app_rows([("ann", "x", "finance", "2026-02-01T12:00")]))
    ingest.ingest_chunk(three_days, APP_LOGS, winter, winter, now=NOW)
    far_back = ValidateConfig(first_day=DAYS[0], last_day=DAYS[0], reference_days=200)
    assert metrics(three_days, 1, far_back)["app_logs"]["volume_ratio"] == 2.0  # 2 rows by the 1 of February
    publish(three_days, ITEM_LOGS, {1: [("ann", "film", 9)]})
    assert metrics(three_days, 1)["app_logs"]["volume_ratio"] == 2.0


@pytest.mark.usefixtures("approving_judge")
def test_a_day_of_late_rows_alone_is_judged_with_the_next_partition(settings):
    late = ("cat", "games", 23)
    publish(settings, APP_LOGS, {2: [("ann", "games", 12)]})
    table = app_rows([("ann", "x", "games", "2026-06-03T12:00"), ("cat", "x", "games", "2026-06-01T23:59")])
    deliver(settings, "app_logs/dt=2026-06-03/a.parquet", table)
    ingest.ingest_chunk(settings, APP_LOGS, DAYS[2], DAYS[2], now=NOW)
    publish(settings, ITEM_LOGS, {2: [late], 3: [late]})
    validate_day(settings, DAYS[1], ValidateConfig())
    assert plan.plan_validation(settings, ValidateConfig(), DAYS[2])["others"] == ["2026-06-01"]
    assert plan.plan_validation(settings, ValidateConfig(), DAYS[1])["others"] == ["2026-06-01"]


def test_the_plan_keeps_to_the_range(three_days):
    config = ValidateConfig(first_day=date(2026, 6, 2), last_day=date(2026, 6, 3))
    assert validated.days_to_validate(three_days, config) == DAYS[1:]


def test_a_day_with_one_log_missing_is_an_error(settings):
    publish(settings, APP_LOGS, {1: [("ann", "finance", 12)]})
    with pytest.raises(
        InsufficientDataError, match=r"2026-06-01 is not published in item_logs, expected in every log of MFN_VIEWS"
    ) as caught:
        validate_day(settings, date(2026, 6, 1), ValidateConfig())
    assert "take the view out of MFN_VIEWS" in str(caught.value)


def test_a_plan_leaves_out_days_with_one_log_missing_and_the_log_names_them(three_days, caplog):
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9)]})
    assert validated.days_to_validate(three_days, ValidateConfig()) == DAYS
    assert "1 days lack one of the logs and are left out: 2026-06-04" in caplog.text


@pytest.mark.usefixtures("approving_judge")
def test_a_day_whose_other_log_is_lost_is_judged_where_a_person_accepts_that(three_days):
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9)]})
    accepting = ValidateConfig(first_day=date(2026, 6, 4), last_day=date(2026, 6, 4), accept_missing_log=True)
    assert plan.plan_validation(three_days, accepting, None)["days"] == ["2026-06-04"]
    facts = validate_day(three_days, date(2026, 6, 4), accepting)["facts"]
    assert (sorted(facts["metrics"]), facts["not_compared"]["user overlap"]) == (["app_logs"], "one log only")
    assert validated.validated_among(three_days, ["2026-06-04"]) == ["2026-06-04"]


def test_a_day_that_no_log_has_is_passed_over_where_a_person_accepts_that(three_days, approving_judge):
    day = date(2026, 6, 4)
    accepting = ValidateConfig(first_day=day, last_day=day, accept_missing_log=True)
    assert plan.plan_validation(three_days, accepting, None)["days"] == ["2026-06-04"]
    made = validate_day(three_days, day, accepting)
    assert (made["rows"], made["inputs"], made["facts"]["accepted_without"]) == ({}, {}, ["app_logs", "item_logs"])
    assert validated.validated_among(three_days, ["2026-06-04"]) == ["2026-06-04"]
    assert approving_judge == []


@pytest.mark.usefixtures("approving_judge")
def test_a_day_that_was_passed_over_is_judged_when_it_is_delivered_after_all(three_days):
    validate.validate_range(three_days, DAYS, ValidateConfig())
    day = date(2026, 6, 4)
    validate_day(three_days, day, ValidateConfig(first_day=day, last_day=day, accept_missing_log=True))
    for log in (APP_LOGS, ITEM_LOGS):
        publish(three_days, log, {4: [("ann", "finance", 9)]})
    assert plan.plan_validation(three_days, ValidateConfig(), date(2026, 6, 5))["others"] == ["2026-06-04"]
    assert validate_day(three_days, day, ValidateConfig())["rows"] == {"app_logs": 1, "item_logs": 1}


def test_a_day_that_no_log_has_is_refused_by_the_plan_with_the_way_past_it(three_days):
    day = date(2026, 6, 4)
    with pytest.raises(
        InsufficientDataError, match=r"2026-06-04 is not published in app_logs and item_logs.*or nobody used it .* with accept_missing_log"
    ):
        plan.plan_validation(three_days, ValidateConfig(first_day=day, last_day=day), None)


@pytest.mark.usefixtures("approving_judge")
def test_other_limits_do_not_ask_again_for_a_log_that_is_lost(three_days):
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9)]})
    validate_day(three_days, date(2026, 6, 4), ValidateConfig(accept_missing_log=True))
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9), ("bob", "games", 10)]})
    validate_day(three_days, date(2026, 6, 4), ValidateConfig(max_new_category_share=0.5))
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9), ("bob", "games", 10), ("cho", "games", 11)]})
    assert validate_day(three_days, date(2026, 6, 4), ValidateConfig())["rows"] == {"app_logs": 3}


@pytest.mark.usefixtures("approving_judge")
def test_a_day_that_had_both_logs_is_not_accepted_without_one(three_days):
    validate_day(three_days, date(2026, 6, 3), ValidateConfig(accept_missing_log=True))
    storage.remove(curated.partition_uri(three_days, ITEM_LOGS, date(2026, 6, 3)))
    with pytest.raises(InsufficientDataError, match="2026-06-03 is not published in item_logs"):
        validate_day(three_days, date(2026, 6, 3), ValidateConfig())


def test_a_log_is_accepted_to_be_missing_for_one_day_at_a_time(three_days):
    with pytest.raises(ConfigError, match=r"first_day=2026-06-01, last_day=None; give the day that lacks a log as both"):
        plan.plan_validation(three_days, ValidateConfig(first_day=date(2026, 6, 1), accept_missing_log=True), None)


@pytest.mark.usefixtures("approving_judge")
def test_late_rows_of_a_day_whose_other_log_is_lost_need_no_person(three_days):
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9)]})
    validate_day(three_days, date(2026, 6, 4), ValidateConfig(accept_missing_log=True))
    publish(three_days, APP_LOGS, {4: [("ann", "finance", 9), ("bob", "games", 10)]})
    assert plan.plan_validation(three_days, ValidateConfig(), DAYS[2])["others"] == ["2026-06-01", "2026-06-02", "2026-06-04"]
    assert validate_day(three_days, date(2026, 6, 4), ValidateConfig())["rows"] == {"app_logs": 2}


@pytest.mark.usefixtures("approving_judge")
def test_a_day_without_rows_in_a_first_load_is_normal(settings):
    for log, times in ((APP_LOGS, ("2026-06-01T09:00", "2026-06-02T09:00")), (ITEM_LOGS, ("2026-06-01T09:00", "2026-06-03T09:00"))):
        table = app_rows([("ann", "x", "y", time) for time in times]).rename_columns(list(log.required))
        deliver(settings, f"{log.dataset}.parquet", table)
        ingest.ingest_chunk(settings, log, DAYS[0], DAYS[2], now=NOW)
    assert validated.days_to_validate(settings, ValidateConfig()) == DAYS
    assert [sorted(each["rows"]) for each in validate.validate_range(settings, DAYS, ValidateConfig())] == [
        ["app_logs", "item_logs"],
        ["app_logs"],
        ["item_logs"],
    ]


@pytest.mark.usefixtures("approving_judge")
@pytest.mark.parametrize("view", ["macro", "micro"])
def test_a_deployment_of_one_view_is_judged_by_its_log(settings, view):
    one_view = settings.model_copy(update={"views": (view,)})
    publish(one_view, LOGS[view], {1: [("ann", "finance", 12)]})
    found = validate_day(one_view, date(2026, 6, 1), ValidateConfig())
    assert list(found["facts"]["metrics"]) == [LOGS[view].dataset]
    assert found["facts"]["not_compared"]["user overlap"] == "one log only"


def test_volume_out_of_its_limits_warns_and_the_day_counts_as_validated(three_days):
    verdict = validate_day(three_days, DAYS[2], ValidateConfig(max_volume_ratio=0.5))["facts"]["verdict"]
    assert verdict["success"]
    assert any(warning.startswith("volume_ratio = 1.0") and "2026-06-03 app_logs" in warning for warning in verdict["warnings"])
    assert validated.days_to_validate(three_days, ValidateConfig(first_day=DAYS[2])) == []


def test_volume_out_of_its_limits_stops_the_day_by_setting(three_days):
    with pytest.raises(AuditError, match=r"volume_ratio = 1\.0.* at day 2026-06-03 app_logs.*expected .*0\.5"):
        validate_day(three_days, DAYS[2], ValidateConfig(max_volume_ratio=0.5, fail_on_drift=True))


def test_an_unknown_category_above_the_limit_stops_the_day(three_days):
    with pytest.raises(AuditError, match=r"new_category_share = 0\.66\d+ at day 2026-06-03 app_logs \(music\), expected at most 0\.2"):
        validate_day(three_days, DAYS[2], FEW_ROWS)
    assert DAYS[2] in validated.days_to_validate(three_days, ValidateConfig())


def test_a_refusal_stands_until_the_day_is_mended(three_days):
    with pytest.raises(AuditError):
        validate_day(three_days, DAYS[2], FEW_ROWS)
    as_refused = validated.published_days(three_days, DAYS[2], DAYS[2])
    publish(three_days, APP_LOGS, {3: [("ann", "finance", 6), ("bob", "games", 7)]})
    mended = validated.published_days(three_days, DAYS[2], DAYS[2])
    assert [validated.is_refused(three_days, found, DAYS[2]) for found in (as_refused, mended)] == [True, False]


def test_a_refusal_is_no_pass_and_says_why(three_days):
    with pytest.raises(AuditError):
        validate_day(three_days, DAYS[2], FEW_ROWS)
    assert not validated.is_validated(three_days, validated.published_days(three_days, DAYS[2], DAYS[2]), DAYS[2])
    assert "new_category_share = 0.66" in manifest.read(validated.refused_uri(three_days, DAYS[2])).facts["reason"]


def test_a_day_that_wider_limits_let_pass_is_refused_no_longer(three_days):
    with pytest.raises(AuditError):
        validate_day(three_days, DAYS[2], FEW_ROWS)
    validate_day(three_days, DAYS[2], FEW_ROWS.model_copy(update={"max_new_category_share": 1}))
    assert not validated.is_refused(three_days, validated.published_days(three_days, DAYS[2], DAYS[2]), DAYS[2])


def test_a_day_that_was_refused_is_not_what_the_next_is_measured_by(three_days, caplog):
    validate_day(three_days, DAYS[0], FEW_ROWS)
    publish(three_days, APP_LOGS, {day: [("ann", "renamed", 12), ("bob", "renamed", 22)] for day in (2, 3)})
    for day in DAYS[1:]:
        with pytest.raises(AuditError, match="new_category_share"):
            validate_day(three_days, day, FEW_ROWS)
    assert "1 days that are not validated as they stand are not compared with: 2026-06-02" in caplog.text


def test_a_day_that_changed_since_its_verdict_is_not_what_the_next_is_measured_by(three_days):
    validate.validate_range(three_days, DAYS[:2], ValidateConfig())
    publish(three_days, APP_LOGS, {day: [("ann", "renamed", 12), ("bob", "renamed", 22)] for day in (2, 3)})
    with pytest.raises(AuditError, match=r"new_category_share = 1\.0 at day 2026-06-03 app_logs \(renamed\)"):
        validate_day(three_days, DAYS[2], FEW_ROWS)


def test_a_refused_day_is_no_measure_though_no_day_is_validated(three_days):
    with pytest.raises(AuditError):
        validate_day(three_days, DAYS[0], ValidateConfig(min_user_overlap=0.1))
    assert metrics(three_days, 2)["app_logs"]["volume_ratio"] is None


def test_a_change_that_was_let_pass_by_hand_is_known_to_the_next_day_though_late_rows_came(settings):
    users = [f"u{number}" for number in range(100)]  # as many rows as the default limits compare categories of
    publish(settings, APP_LOGS, {day: [(user, category, 12) for user in users] for day, category in enumerate(("old", "new", "new"), 1)})
    publish(settings, ITEM_LOGS, {day: [("u1", "film", 12)] for day in (1, 2, 3)})
    validate_day(settings, DAYS[0], ValidateConfig())
    validate_day(settings, DAYS[1], ValidateConfig(max_new_category_share=1))
    publish(settings, APP_LOGS, {2: [(user, "new", 12) for user in [*users, "late"]]})
    assert len(validate.validate_range(settings, DAYS[1:], ValidateConfig())) == 2


def test_of_days_that_are_judged_apart_only_the_bad_one_is_refused_and_named_with_its_page(three_days):
    publish(three_days, APP_LOGS, {3: [("ann", "finance", 6), ("bob", "games", 7)], 4: [("ann", "games", 9)]})
    publish(three_days, APP_LOGS, {2: [("ann", "renamed", 12), ("bob", "renamed", 13)]})
    publish(three_days, ITEM_LOGS, {4: [("ann", "film", 9)]})
    days = [*DAYS, date(2026, 6, 4)]
    with pytest.raises(AuditError, match=r"1 of 4 days were refused(?s:.*)day 2026-06-02 app_logs \(renamed\)(?s:.*)Report: .*html"):
        validate.validate_apart(three_days, days, FEW_ROWS)
    assert validated.days_to_validate(three_days, ValidateConfig()) == [DAYS[1]]


def test_what_is_broken_on_two_days_that_are_judged_apart_is_refused_twice(three_days):
    publish(three_days, APP_LOGS, {day: [("ann", "renamed", 12), ("bob", "renamed", 22)] for day in (2, 3)})
    with pytest.raises(AuditError, match="2 of 3 days were refused"):
        validate.validate_apart(three_days, DAYS, FEW_ROWS)
    assert plan.plan_validation(three_days, ValidateConfig(), date(2026, 6, 4))["others"] == []


def test_days_that_are_judged_apart_take_one_pass_if_none_is_bad(three_days, approving_judge):
    assert validate.validate_apart(three_days, DAYS, ValidateConfig()) == {"days": 3}
    assert approving_judge == ["days-2026-06-01-2026-06-03"]


def test_user_ids_that_do_not_meet_stop_the_day(three_days):
    with pytest.raises(
        AuditError, match=r"user_overlap = 0\.0, 0\.0 at day 2026-06-01 app_logs, 2026-06-01 item_logs, expected at least 0\.1"
    ):
        validate_day(three_days, DAYS[0], ValidateConfig(min_user_overlap=0.1))


@pytest.mark.usefixtures("approving_judge")
def test_a_day_that_was_withdrawn_since_the_plan_is_told_and_the_others_are_validated(three_days):
    with pytest.raises(AuditError, match=r"1 of 4 days were refused or are not published, the others are validated:\n.*2026-06-09"):
        validate.validate_apart(three_days, [*DAYS, date(2026, 6, 9)], ValidateConfig())
    assert validated.days_to_validate(three_days, ValidateConfig()) == []
