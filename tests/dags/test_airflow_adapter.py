"""The form and the code cannot disagree; a run's conf is refused with a message; every failure is retried or not for a reason."""

import json
import runpy
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout, ParamValidationError
from pydantic import ValidationError

from mfn_core import errors
from mfn_core.config import Config
from mfn_core.errors import ConfigError
from mfn_core.schema import LOGS
from tasks import airflow_adapter, curated, dag_configs, manifest
from tasks.manifest import Manifest
from tasks.settings import Settings
from tasks.validated import validated_uri

MODELS = [
    dag_configs.SimulateConfig,
    dag_configs.IngestConfig,
    dag_configs.IngestUsersConfig,
    dag_configs.ValidateConfig,
    dag_configs.TrainConfig,
    dag_configs.PromoteConfig,
    dag_configs.ScoreConfig,
]
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]
PROBES: list[Any] = [
    None,
    True,
    "",
    "x" * 1001,
    "cpu",
    "bfloat16",
    "2026-06-28",
    "2026-06-31",
    [],
    ["gender"],
    [1],
    "manual",
    "off",
    "paper",
    "mixed",
    ["micro"],
    -1,
    0,
    0.5,
    1,
    2,
    3,
]
PROBES += [7, 10, 100, 366, 367, 512, 513, 1000, 1001, 2048, 4096, 4097, 10_000_001, 2.5]


class Event:
    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self.keys: list[str] = []

    def add_partitions(self, keys: str | list[str]) -> None:
        self.keys += [keys] if isinstance(keys, str) else keys


class Run:
    """The part of Airflow's context that the adapter reads, and what it leaves there."""

    def __init__(self, conf: dict[str, Any] | None, partition_key: str | None, run_type: str) -> None:
        self.xcoms: dict[str, Any] = {}
        self.events: dict[Any, Event] = {asset: Event() for asset in (airflow_adapter.VALIDATED_ASSET, airflow_adapter.CANDIDATE_ASSET)}
        self.context: Any = {
            "dag_run": SimpleNamespace(
                dag_id="mfn_train", run_id="manual__1+00:00", conf=conf, partition_key=partition_key, run_type=run_type
            ),
            "ti": SimpleNamespace(try_number=2, xcom_push=self.xcoms.__setitem__),
            "outlet_events": self.events,
        }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def enter(conf: dict[str, Any] | None = None, partition_key: str | None = None, run_type: str = "manual") -> Run:
        entered = Run(conf, partition_key, run_type)
        monkeypatch.setattr(airflow_adapter, "get_current_context", lambda: entered.context)
        return entered

    return enter


def accepted_by_config(model: type[Config], name: str, value: Any) -> bool:
    try:
        model.model_validate_json(json.dumps({name: value}), strict=True)
    except ValidationError:
        return False
    return True


def accepted_by_form(model: type[Config], name: str, value: Any) -> bool:
    try:
        airflow_adapter.params_from(model)[name].resolve(value)
    except ParamValidationError:
        return False
    return True


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_the_form_accepts_a_value_exactly_where_the_config_does(model: type[Config], name: str) -> None:
    by_config = {repr(probe): accepted_by_config(model, name, probe) for probe in PROBES}
    by_form = {repr(probe): accepted_by_form(model, name, probe) for probe in PROBES}
    assert by_form == by_config
    assert len(set(by_config.values())) == 2


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_every_field_of_the_form_is_described(model: type[Config], name: str) -> None:
    assert airflow_adapter.params_from(model)[name].description == model.model_fields[name].description


def test_an_optional_number_keeps_its_range_and_takes_null() -> None:
    param = airflow_adapter.params_from(dag_configs.TrainConfig)["horizon_days"]
    assert param.schema == {"type": ["integer", "null"], "minimum": 1, "maximum": 3650, "title": "Horizon Days", "section": "Dataset"}


@pytest.mark.parametrize("model", [dag_configs.TrainConfig, dag_configs.CompareConfig])
def test_no_more_resamples_are_accepted_than_the_time_limit_of_the_gate_allows(model: type[Config]) -> None:
    assert [accepted_by_form(model, "bootstrap_samples", number) for number in (10_000, 10_001)] == [True, False]


def test_an_optional_day_is_a_date_field() -> None:
    param = airflow_adapter.params_from(dag_configs.IngestConfig)["first_day"]
    assert param.schema == {"type": ["string", "null"], "format": "date", "title": "First Day"}


def test_a_choice_is_an_enum() -> None:
    param = airflow_adapter.params_from(dag_configs.TrainConfig)["device"]
    assert param.schema == {"type": "string", "enum": ["auto", "cpu", "cuda"], "title": "Device", "section": "Training"}


def test_fields_of_the_run_itself_stand_before_the_sections() -> None:
    params = airflow_adapter.params_from(dag_configs.TrainConfig)
    assert {params[name].schema.get("section") for name in ("first_day", "last_day", "bootstrap_samples", "force")} == {None}
    assert params["width"].schema["section"] == "Network"


def test_a_conf_becomes_a_config(run) -> None:
    conf = {"width": 16, "attributes": ["gender"], "last_day": "2026-06-28"}
    config = airflow_adapter.config_from(dag_configs.TrainConfig, run(conf).context)
    assert (config.width, config.attributes, config.last_day) == (16, ("gender",), date(2026, 6, 28))


def test_a_password_in_a_uri_is_masked_in_the_log_of_a_task(run, monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr(airflow_adapter, "mask_secret", masked.append)
    monkeypatch.setenv("MFN_TRACKING_URI", "postgresql://mlflow:s3cret%2Fp@ss@db.local:5432/mlflow")
    monkeypatch.setenv("MFN_STORE_URI", "s3://bucket/store:1@2")
    run()
    airflow_adapter.start(dag_configs.TrainConfig)
    assert masked == ["s3cret%2Fp@ss", "s3cret/p@ss"]


def test_a_scheduled_run_without_conf_has_the_defaults(run) -> None:
    assert airflow_adapter.config_from(dag_configs.TrainConfig, run(None).context) == dag_configs.TrainConfig()


def test_a_misspelt_key_is_refused_by_name_with_the_one_that_was_meant(run) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'max_epoch', did you mean 'max_epochs'"):
        airflow_adapter.config_from(dag_configs.TrainConfig, run({"max_epoch": 3}).context)


def test_a_value_out_of_range_is_refused_with_its_limit(run) -> None:
    with pytest.raises(ConfigError, match="width=4: Input should be greater than or equal to 8"):
        airflow_adapter.config_from(dag_configs.TrainConfig, run({"width": 4}).context)


@pytest.mark.parametrize(
    ("conf", "partition_key", "days"),
    [
        ({}, "2026-06-22", (date(2026, 6, 22), date(2026, 6, 22))),
        ({}, None, (None, None)),
        ({"first_day": "2026-06-01"}, None, (date(2026, 6, 1), None)),
        ({"first_day": "2026-06-01", "last_day": "2026-06-02"}, "2026-06-22", (date(2026, 6, 1), date(2026, 6, 2))),
    ],
)
def test_the_days_of_a_run_are_those_of_its_form_else_its_partition(
    run, conf: dict[str, str], partition_key: str | None, days: Any
) -> None:
    run(conf, partition_key)
    assert airflow_adapter.days_from(dag_configs.IngestConfig.model_validate(conf)) == days


def test_days_in_the_wrong_order_are_refused(run) -> None:
    run()
    with pytest.raises(ConfigError, match="first_day=2026-06-02 is after last_day=2026-06-01"):
        airflow_adapter.days_from(dag_configs.IngestConfig(first_day=date(2026, 6, 2), last_day=date(2026, 6, 1)))


@pytest.mark.parametrize("key", [None, "v3", "2026-06-22 (W26)"])
def test_only_a_daily_partition_names_a_day(run, key: str | None) -> None:
    run(partition_key=key)
    assert airflow_adapter.partition_day() is None


def test_more_mapped_tasks_than_airflow_makes_are_refused_with_the_remedy() -> None:
    assert airflow_adapter.mappable([0] * 1024, "raise days_per_chunk") == [0] * 1024
    with pytest.raises(ConfigError, match=r"1,025 mapped tasks, more than the 1,024 of Airflow's core.max_map_length: raise"):
        airflow_adapter.mappable([0] * 1025, "raise days_per_chunk")


def test_a_skip_leaves_its_reason_where_the_ui_shows_it(run) -> None:
    entered = run()
    with pytest.raises(AirflowSkipException, match="already trained as version 3"):
        airflow_adapter.skip("already trained as version 3")
    assert entered.xcoms == {"skipped": "already trained as version 3"}


@pytest.mark.parametrize(("last_day", "announced"), [(date(2026, 6, 28), 7), (date(2026, 6, 30), 9), (date(2026, 7, 4), 13)])
def test_a_first_load_of_years_announces_its_last_complete_week_and_what_follows(run, last_day: date, announced: int) -> None:
    entered = run()
    airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, [str(last_day - timedelta(days=age)) for age in range(1000)])
    keys = entered.events[airflow_adapter.VALIDATED_ASSET].keys
    assert (keys[0], keys[-1], len(keys)) == ("2026-06-22", str(last_day), announced)


def test_a_run_for_a_partition_announces_its_day_alone_and_only_where_it_was_published(run) -> None:
    entered = run(partition_key="2026-06-23")
    airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, ["2026-06-22", "2026-06-23"])
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == ["2026-06-23"]
    with pytest.raises(AirflowSkipException, match="nothing to announce of 2026-06-23"):
        airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, ["2026-06-22"])
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == ["2026-06-23"]


def test_what_goes_along_with_the_announced_days_is_announced_with_them(run) -> None:
    entered = run(partition_key="2026-06-22")
    asked: list[list[str]] = []

    def along(days: list[str]) -> list[str]:
        asked.append(days)
        return ["2026-06-20", "2026-06-21"]

    airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, ["2026-06-21", "2026-06-22"], along=along)
    assert asked == [["2026-06-22"]]
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == ["2026-06-20", "2026-06-21", "2026-06-22"]


def test_nothing_goes_along_where_no_day_is_announced(run) -> None:
    entered = run(partition_key="2026-06-22")
    with pytest.raises(AirflowSkipException, match="nothing to announce"):
        airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, [], along=lambda _: ["2026-06-21"])
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == []


def test_mfn_validate_announces_its_day_and_the_day_before_that_no_log_has(
    run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MFN_VAR", str(settings.var))
    for day in ("2026-06-20", "2026-06-22"):
        for log in LOGS.values():
            uri = curated.partition_uri(settings, log, date.fromisoformat(day))
            manifest.write(Manifest(kind="curated", uri=uri, digest=log.dataset, facts={"dt": day}))
    inputs = {log.dataset: log.dataset for log in LOGS.values()}
    uri = validated_uri(settings, date(2026, 6, 22))
    manifest.write(Manifest(kind="validated", uri=uri, digest=manifest.digest_of(inputs)))
    entered = run(partition_key="2026-06-22", run_type="asset_triggered")
    dag = runpy.run_path(str(Path(__file__).parents[2] / "dags" / "mfn_validate.py"))["planned"].operator.dag
    dag.get_task("announce").python_callable({"days": ["2026-06-22"], "late": []})
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == ["2026-06-21", "2026-06-22"]


def test_a_scheduled_run_looks_at_the_days_before_its_own(run) -> None:
    run(partition_key="2026-06-23", run_type="scheduled")
    settings = Settings(redelivery_days=3)
    assert airflow_adapter.own_days(settings, dag_configs.IngestConfig()) == (date(2026, 6, 20), date(2026, 6, 23))


@pytest.mark.parametrize("run_type", ["backfill", "manual"])
def test_a_run_for_a_partition_that_somebody_named_looks_at_no_other(run, run_type: str) -> None:
    run(partition_key="2026-06-23", run_type=run_type)
    assert airflow_adapter.own_days(Settings(), dag_configs.IngestConfig()) == (date(2026, 6, 23), date(2026, 6, 23))


@pytest.mark.parametrize(("partition_key", "first_day"), [(None, None), ("2026-06-23", date(2026, 6, 1))])
def test_a_range_is_no_run_for_a_partition(run, partition_key: str | None, first_day: date | None) -> None:
    run(partition_key=partition_key)
    assert airflow_adapter.own_days(Settings(), dag_configs.IngestConfig(first_day=first_day)) is None


INGESTED = [
    {"days": ["2026-06-20"], "late": ["2026-06-20"]},
    {"days": ["2026-06-21"], "late": []},
    {"days": ["2026-06-22", "2026-06-23"], "late": ["2026-06-23"]},
]


@pytest.mark.parametrize(("run_type", "announced"), [("scheduled", ["2026-06-20", "2026-06-23"]), ("backfill", ["2026-06-23"])])
def test_a_scheduled_run_announces_its_day_and_those_that_it_was_the_first_to_read(run, run_type: str, announced: list[str]) -> None:
    entered = run(partition_key="2026-06-23", run_type=run_type)
    airflow_adapter.announce_ingested(airflow_adapter.VALIDATED_ASSET, 3, INGESTED)
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == announced


def test_a_run_for_a_partition_announces_its_day_though_another_failed(run) -> None:
    entered = run(partition_key="2026-06-23", run_type="scheduled")
    airflow_adapter.announce_ingested(airflow_adapter.VALIDATED_ASSET, 2, INGESTED[2:])
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == ["2026-06-23"]


def test_of_many_late_days_those_of_the_last_complete_week_are_announced_and_those_after(run) -> None:
    entered = run(partition_key="2026-06-30")
    late = [str(date(2026, 6, 29) - timedelta(days=age)) for age in range(1000)]
    airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, ["2026-06-30"], late)
    keys = entered.events[airflow_adapter.VALIDATED_ASSET].keys
    assert (keys[0], keys[-1], len(keys)) == ("2026-06-22", "2026-06-30", 9)


def test_late_days_are_announced_though_the_own_day_failed(run) -> None:
    entered = run(partition_key="2026-06-23", run_type="scheduled")
    airflow_adapter.announce_ingested(airflow_adapter.VALIDATED_ASSET, 2, INGESTED[:1])
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == ["2026-06-20"]


def test_a_range_of_which_a_part_failed_is_not_announced(run) -> None:
    entered = run()
    with pytest.raises(AirflowSkipException, match="1 of 4 chunks failed; clear them"):
        airflow_adapter.announce_ingested(airflow_adapter.VALIDATED_ASSET, 4, INGESTED)
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == []


def test_a_range_without_a_published_day_announces_nothing(run) -> None:
    entered = run()
    with pytest.raises(AirflowSkipException, match="nothing to announce of these days"):
        airflow_adapter.announce_days(airflow_adapter.VALIDATED_ASSET, [])
    assert entered.events[airflow_adapter.VALIDATED_ASSET].keys == []


def test_a_version_is_announced_under_its_number_with_its_evidence(run) -> None:
    entered = run()
    airflow_adapter.announce_version(airflow_adapter.CANDIDATE_ASSET, {"version": 3, "run_id": "abc"})
    event = entered.events[airflow_adapter.CANDIDATE_ASSET]
    assert (event.keys, event.extra) == (["v3"], {"version": 3, "run_id": "abc"})


def test_the_tags_of_a_training_lead_back_to_the_airflow_run(run) -> None:
    run()
    assert airflow_adapter.run_tags(Settings(airflow_url="http://127.0.0.1:8080")) == {
        "airflow.dag_id": "mfn_train",
        "airflow.run_id": "manual__1+00:00",
        "airflow.try_number": "2",
        "airflow.url": "http://127.0.0.1:8080/dags/mfn_train/runs/manual__1%2B00%3A00",
    }


@pytest.mark.parametrize(
    "name", ["ConfigError", "SchemaError", "RejectionError", "AuditError", "InsufficientDataError", "LeakError", "ArtifactError"]
)
def test_a_permanent_error_is_never_retried(name: str) -> None:
    decision = airflow_adapter.RETRIES.evaluate(getattr(errors, name)("…"), 1, 2)
    assert decision.action == RetryAction.FAIL


def test_a_task_that_begins_anew_is_not_retried_when_it_timed_out_and_is_told_the_remedy() -> None:
    decision = airflow_adapter.RETRIES.evaluate(AirflowTaskTimeout(), 1, 12)
    assert (decision.action, decision.reason) == (
        RetryAction.FAIL,
        "Its execution_timeout has passed, and it would begin anew: give it less to do, as by a smaller days_per_chunk in an ingest, or "
        "raise the limit in the file of the DAG.",
    )


def test_what_trains_is_retried_when_it_timed_out_and_else_as_all_tasks_are() -> None:
    policy = airflow_adapter.TRAINING["retry_policy"]
    assert policy.evaluate(AirflowTaskTimeout(), 1, 2).action == RetryAction.DEFAULT
    for error in (ConfigError("…"), TypeError(), errors.ProcessError("…"), OSError("disk")):
        assert policy.evaluate(error, 1, 2) == airflow_adapter.RETRIES.evaluate(error, 1, 2)


def test_a_broken_assertion_is_never_retried() -> None:
    assert airflow_adapter.RETRIES.evaluate(AssertionError(), 1, 2).action == RetryAction.FAIL


@pytest.mark.parametrize(("error", "minutes"), [(errors.PartitionNotReadyError("…"), 20), (errors.ProcessError("…"), 1)])
def test_a_transient_error_is_retried_when_it_may_have_passed(error: Exception, minutes: int) -> None:
    decision = airflow_adapter.RETRIES.evaluate(error, 1, 2)
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(minutes=minutes))


def test_an_error_of_the_machine_is_retried_by_airflows_own_rules() -> None:
    assert airflow_adapter.RETRIES.evaluate(OSError("disk"), 1, 2).action == RetryAction.DEFAULT
