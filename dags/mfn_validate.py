"""Validate days across both logs.

User overlap, volume against the last weeks, category drift, freshness.

**When:** both logs of a day are published (the one log, where the deployment has one view), for that day, those that have
changed since they were validated, as by late rows, and earlier days that no run has judged as they stand, as those of a first
load or of a time when this DAG was paused; by hand for a range of days. A day that was refused is judged again when it has changed,
or by hand.
Nothing to validate: `plan` is skipped and says so.
**Emits** `mfn_validated_day` for the day; after a range, for its last complete week and the days after it.

### Triage

- `AuditError`: a critical expectation failed for the day named. Open the page that the message names; fix the source, ingest the
  day again, and trigger this DAG by hand.
- `AuditError` on `new_category_share`, or on volume where `fail_on_drift` is set: the day is unlike the weeks before. If the
  change is real, trigger by hand for the day with wider limits. They stay with the day: when it changes later, as by a late row,
  it is judged by them again, unless a form says others. Until then later days are not compared with it, and fail alike.
- A day never shows up: one of its logs is not published. Look at the ingest DAGs of that day.

Training never reads past a day that is not validated: a failure here delays the week's model, and nothing is lost.
"""

from datetime import date, timedelta

from airflow.sdk import DAG, AssetAll, PartitionedAssetTimetable, task

from tasks.airflow_adapter import LOG_ASSETS, VALIDATED_ASSET, announce_days, dag_arguments, days_from, partition_day, skip, start
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
        days = plan_validation(settings, config, partition_day())
        return [str(day) for day in days] or skip("nothing to do: every published day is validated as it stands")

    @task(execution_timeout=timedelta(hours=2))
    def validate(days):
        """Judge the days in one pass."""
        from tasks.validate import validate_range

        settings, config = start(ValidateConfig)
        manifests = validate_range(settings, [date.fromisoformat(day) for day in days], config)
        return {"days": len(manifests), "last": manifests[-1]}

    @task(outlets=[VALIDATED_ASSET])
    def announce(days):
        """Emit the asset of the validated days."""
        announce_days(VALIDATED_ASSET, days)

    validate(days := plan()) >> announce(days)
