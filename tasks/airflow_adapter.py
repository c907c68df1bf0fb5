"""What every DAG shares: assets, forms, retries, links. The only module of ``tasks`` that knows Airflow."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from airflow.sdk import (
    Asset,
    Context,
    CronPartitionTimetable,
    ExceptionRetryPolicy,
    Param,
    PartitionedAssetTimetable,
    RetryAction,
    RetryRule,
    RollupMapper,
    StartOfWeekMapper,
    TriggerRule,
    WeekWindow,
    get_current_context,
)
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.log import mask_secret

from mfn_core.config import Config
from mfn_core.errors import ConfigError, PartitionNotReadyError, PermanentError, TransientError
from mfn_core.schema import APP_LOGS, ITEM_LOGS, USERS, View
from tasks.config_errors import config_of
from tasks.dag_configs import IngestConfig, ValidateConfig
from tasks.settings import Settings, load_settings

C = TypeVar("C", bound=Config)
T = TypeVar("T")

GPU_POOL = "gpu"

# Every asset is partitioned: Airflow queues no unpartitioned consumer for an event that carries a key. The logs and the
# validated days carry the day; the model's assets carry its version.
APP_LOGS_ASSET = Asset(f"mfn_{APP_LOGS.dataset}", group="mfn")
ITEM_LOGS_ASSET = Asset(f"mfn_{ITEM_LOGS.dataset}", group="mfn")
LOG_ASSETS: dict[View, Asset] = {"macro": APP_LOGS_ASSET, "micro": ITEM_LOGS_ASSET}
USERS_ASSET = Asset(f"mfn_{USERS}", group="mfn")
VALIDATED_ASSET = Asset("mfn_validated_day", group="mfn")
CANDIDATE_ASSET = Asset("mfn_candidate", group="mfn")
CHAMPION_ASSET = Asset("mfn_champion", group="mfn")
SCORES_ASSET = Asset("mfn_scores", group="mfn")

# Midnight: a backfill's window ends at 00:00 of its last day, so a later hour would leave that day out.
DAILY = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d")

WEEKLY = PartitionedAssetTimetable(
    assets=VALIDATED_ASSET,
    default_partition_mapper=RollupMapper(upstream_mapper=StartOfWeekMapper(input_format="%Y-%m-%d"), window=WeekWindow()),
)
# For what follows mapped tasks of which some are skipped with a reason.
SOME_SUCCEEDED = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
# For what follows mapped tasks of which some may have failed, or waits for other work that may: skipped with its plan alone.
ANY_DONE = TriggerRule.ALL_DONE_MIN_ONE_SUCCESS

_RULES = [
    RetryRule(PermanentError, RetryAction.FAIL, reason="The same input fails again."),
    RetryRule([AssertionError, TypeError], RetryAction.FAIL, reason="A programmer's error."),
    RetryRule(PartitionNotReadyError, RetryAction.RETRY, timedelta(minutes=20), reason="Raw files are not there or not finished."),
    RetryRule(TransientError, RetryAction.RETRY, timedelta(minutes=1), reason="The same call may succeed later."),
]
_TIMEOUT = RetryRule(
    AirflowTaskTimeout,
    RetryAction.FAIL,
    reason="Its execution_timeout has passed, and it would begin anew: give it less to do, as by a smaller days_per_chunk in an ingest, or "
    "raise the limit in the file of the DAG.",
)
RETRIES = ExceptionRetryPolicy(rules=[*_RULES, _TIMEOUT])
# What trains goes on from its checkpoint, after a timeout too.
TRAINING: dict[str, Any] = {"pool": GPU_POOL, "retry_policy": ExceptionRetryPolicy(rules=_RULES)}
_TASK_DEFAULTS: dict[str, Any] = {
    "owner": "mfn",
    "retries": 2,
    "retry_delay": timedelta(minutes=2),
    "retry_policy": RETRIES,
    "execution_timeout": timedelta(minutes=30),
}


def dag_arguments(model: type[Config], max_active_runs: int = 1) -> dict[str, Any]:
    """What every DAG is made with: its form, no catching up, one run at a time, and what all tasks have.

    A schedule that caught up would go on from the last backfill too, be it of years ago, with a run for every day since that waits for
    files which may never come. After an interruption the next ingest reads the days that were missed (``own_days``).
    """
    return {"params": params_from(model), "catchup": False, "max_active_runs": max_active_runs, "default_args": _TASK_DEFAULTS}


def params_from(model: type[Config]) -> dict[str, Param]:
    """The form of a DAG: one Param per field, from the JSON schema that also validates the run's conf."""
    return {name: _param(_section(model, name), schema) for name, schema in model.model_json_schema()["properties"].items()}


def config_from(model: type[C], context: Context) -> C:
    """The run's conf as its config. Airflow itself lets unknown keys pass.

    Raises:
        ConfigError: a key is unknown or a value is out of range.
    """
    return config_of(model, dict(context["dag_run"].conf or {}), "Trigger again with other values")


def start(model: type[C]) -> tuple[Settings, C]:
    """What the body of a task begins with: the settings, whose passwords no log will show, and the run's conf as its config."""
    settings = load_settings()
    for password in settings.passwords:  # MLflow's errors and ours name its address, whoever reads the log
        mask_secret(password)
    return settings, config_from(model, get_current_context())


def partition_day() -> date | None:
    """The day of a run that was made for one day's partition; None for a manual range and for a model's version."""
    try:
        return date.fromisoformat(get_current_context()["dag_run"].partition_key or "")
    except ValueError:
        return None


def days_from(config: IngestConfig | ValidateConfig) -> tuple[date | None, date | None]:
    """First and last day of a run: those of its conf, else its partition's, else open ends.

    Raises:
        ConfigError: the first day is after the last.
    """
    if config.first_day is None and config.last_day is None:
        return partition_day(), partition_day()
    if config.first_day and config.last_day and config.first_day > config.last_day:
        raise ConfigError(f"first_day={config.first_day} is after last_day={config.last_day}; swap them")
    return config.first_day, config.last_day


def is_automatic() -> bool:
    """Whether an asset started the run, not a person."""
    return get_current_context()["dag_run"].run_type == "asset_triggered"


def own_days(settings: Settings, config: IngestConfig) -> tuple[date, date] | None:
    """The earliest day that a run for one day looks at, and its day; None for a range.

    Days before its own are the clock's business: a person or a backfill names the days that it is about.
    """
    day = partition_day()
    if day is None or config.first_day or config.last_day:
        return None
    return day - timedelta(days=settings.redelivery_days if _is_scheduled() else 0), day


def run_id() -> str:
    """Of the DAG run: the same in each try of its tasks."""
    return str(get_current_context()["dag_run"].run_id)


def skip(reason: str) -> NoReturn:
    """Skip the running task and what follows; the reason stands in its log and, as ``skipped``, among its XComs."""
    get_current_context()["ti"].xcom_push("skipped", reason)
    raise AirflowSkipException(reason)


def mappable(things: list[T], remedy: str) -> list[T]:
    """What a task is mapped over. Of a longer list Airflow itself says "too large to map", after two retries.

    Raises:
        ConfigError: there are more than ``core.max_map_length``.
    """
    limit = conf.getint("core", "max_map_length", fallback=1024)
    if len(things) > limit:
        raise ConfigError(f"{len(things):,} mapped tasks, more than the {limit:,} of Airflow's core.max_map_length: {remedy}")
    return things


def announce_ingested(asset: Asset, planned: int, ingested: Sequence[Mapping[str, Any]]) -> None:
    """Emit the asset of what a run has ingested. A range of which a part failed is not announced: consumers would go on without it.

    Args:
        asset: of the log.
        planned: number of chunks.
        ingested: of ``ingest_planned``, of every chunk that did not fail.
    """
    if partition_day() is None and len(ingested) < planned:
        skip(f"{planned - len(ingested)} of {planned} chunks failed; clear them, and the days are announced")
    days, late = ([day for each in ingested for day in each[name]] for name in ("days", "late"))
    announce_days(asset, days, late if _is_scheduled() else ())


def announce_days(
    asset: Asset, days: Iterable[str], late: Iterable[str] = (), along: Callable[[list[str]], list[str]] = lambda _: []
) -> None:
    """Emit the asset of the run's own day where it is one of ``days``; after a range, of its last complete week and the days after it.

    A run of one day emits the late days too, of the last complete week and after: their own runs did not find them, and nobody else
    will wake their consumers.

    Consumers compute their work from manifests, whatever day wakes them: a first load of years must wake them for a
    complete week, not fire a training for each of its weeks.

    Args:
        asset: of the days.
        days: that the run published, or found valid; ISO.
        late: days before the run's own that it was the first to read or to find valid.
        along: of the days that are announced, others that go with them.
    """
    own_day = partition_day()
    announced = (
        _last_days(days)
        if own_day is None
        else sorted({day for day in days if day == str(own_day)} | set(_last_days(set(late) - {str(own_day)})))
    )
    if not announced:
        skip(f"there is nothing to announce of {own_day or 'these days'}")
    get_current_context()["outlet_events"][asset].add_partitions(sorted({*announced, *along(announced)}))


def _last_days(days: Iterable[str]) -> list[str]:
    ordered = sorted(days)
    if not ordered:
        return []
    last = date.fromisoformat(ordered[-1])
    monday = last - timedelta(days=(last.weekday() + 1) % 7 + 6)
    return [day for day in ordered if day >= str(monday)]


def announce_version(asset: Asset, registered: Mapping[str, Any]) -> None:
    """Emit the asset of a model version, with what is known of it."""
    event = get_current_context()["outlet_events"][asset]
    event.extra = dict(registered)
    event.add_partitions(f"v{registered['version']}")


def run_tags(settings: Settings) -> dict[str, str]:
    """Tags that lead from an MLflow run back to the Airflow run."""
    context = get_current_context()
    run = context["dag_run"]
    return {
        "airflow.dag_id": run.dag_id,
        "airflow.run_id": run.run_id,
        "airflow.try_number": str(context["ti"].try_number),
        "airflow.url": f"{settings.airflow_url}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}",
    }


def _is_scheduled() -> bool:
    return get_current_context()["dag_run"].run_type == "scheduled"


def _param(section: str | None, schema: dict[str, Any]) -> Param:
    keywords = _flattened(schema)
    if section:
        keywords["section"] = section
    return Param(keywords.pop("default"), description=keywords.pop("description", None), **keywords)


def _flattened(schema: dict[str, Any]) -> dict[str, Any]:
    """The UI draws no field for ``anyOf``: ``int | None`` becomes ``type: [integer, null]``."""
    if "anyOf" not in schema:
        return dict(schema)
    value, null = schema["anyOf"]
    assert null == {"type": "null"}, f"only 'X | None' fits a form, not {schema['anyOf']}"
    return {**{key: item for key, item in schema.items() if key != "anyOf"}, **value, "type": [value["type"], "null"]}


def _section(model: type[Config], name: str) -> str | None:
    owner = next(cls for cls in model.__mro__ if name in inspect.get_annotations(cls))
    return None if owner.__module__ == model.__module__ else owner.__name__.removesuffix("Config")
