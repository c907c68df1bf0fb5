"""Validate days across both logs: user overlap, volume against the last weeks, category drift, freshness.

**When:** both logs of a day are published (the one log, where the deployment has one view), for that day; by hand for a range.
`validate_others` judges apart, and first, what the run takes along: days that have changed since their verdict, as by late rows, and
earlier ones without one, as those of a first load. What was refused waits until it changes. **Emits** `mfn_validated_day` for the day,
those taken along that were valid never before, and days before these that no log has; after a range, for its last complete week and on.
### Triage
- `AuditError`: a critical expectation failed for the day named. Open the page that the message names; fix the source, ingest the day
  again, and trigger this DAG by hand. In `validate_others`: the run is red by it, but its own day is validated and announced.
- `AuditError` on `new_category_share`, or on volume with `fail_on_drift`: where the change is real, trigger by hand for the day with wider
  limits, which stay with the day. Until then later days are not compared with it, and fail alike.
- Timed out (2 hours), not retried: days that it had judged stay so. Trigger by hand for fewer days at a time, or raise the limit here.
- A day never shows up, or `mfn_train` stops at it: one of its logs is not published. Look at its ingests; where the log is lost for good,
  or nobody used it that day, trigger by hand for the day with `accept_missing_log`. A day that no log has is announced with the next one.

Training never reads past a day that is not validated; nothing is lost. Where `mfn_train` has stopped at one, clear its `plan` afterwards.
"""

from datetime import date, timedelta

from airflow.sdk import DAG, AssetAll, PartitionedAssetTimetable, task

from tasks.airflow_adapter import ANY_DONE, LOG_ASSETS, VALIDATED_ASSET, announce_days, dag_arguments, days_from, partition_day, skip, start
from tasks.dag_configs import ValidateConfig
from tasks.settings import load_settings

with DAG(
    "mfn_validate",
    schedule=PartitionedAssetTimetable(assets=AssetAll(*(LOG_ASSETS[view] for view in load_settings().views))),
    tags=["mfn", "validate"],
    doc_md=__doc__,
    **dag_arguments(ValidateConfig),
):

    @task
    def plan():
        """Find the days to validate."""
        from tasks.plan import plan_validation

        settings, config = start(ValidateConfig)
        days_from(config)
        planned = plan_validation(settings, config, partition_day())
        return planned if planned["days"] else skip("nothing to do: every day that no log lacks is validated as it stands")

    @task(execution_timeout=timedelta(hours=2))
    def validate_others(planned):
        """Judge the days that are taken along: a bad one holds up no other."""
        if not planned["others"]:
            return None  # no skip: what follows would be skipped with it
        from tasks.validate import validate_apart

        settings, config = start(ValidateConfig)
        return validate_apart(settings, [date.fromisoformat(day) for day in planned["others"]], config)

    @task(trigger_rule=ANY_DONE, execution_timeout=timedelta(hours=2))
    def validate(planned):
        """Judge the days of the run in one pass."""
        from tasks.validate import validate_range

        settings, config = start(ValidateConfig)
        manifests = validate_range(settings, [date.fromisoformat(day) for day in planned["days"]], config)
        return {"days": len(manifests), "last": manifests[-1]}

    @task(outlets=[VALIDATED_ASSET], trigger_rule=ANY_DONE)
    def announce(planned):
        """Emit the asset of the days that are validated, and of those taken along that nobody has announced."""
        from tasks.empty_days import empty_days_before
        from tasks.validated import validated_among

        settings, _ = start(ValidateConfig)
        days, late = (validated_among(settings, planned[name]) for name in ("days", "late"))
        announce_days(VALIDATED_ASSET, days, late, along=lambda announced: empty_days_before(settings, announced))

    @task
    def settle():
        """Fail the run where a day was refused, which the announcement passes over."""

    others, own = validate_others(planned := plan()), validate(planned)
    others >> own >> announce(planned)
    [others, own] >> settle()
