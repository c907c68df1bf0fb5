"""Ingest one log: raw to curated.

Casts each raw row to the contract, sets rejected rows aside under `quarantine/` (whole, with reason, file and row number),
drops exact duplicates, audits the partition with Great Expectations and publishes it whole or not at all.

**When:** daily for yesterday's partition; by hand for a range of days (a first load), in chunks of `days_per_chunk`. A backfill
re-reads old partitions. Unchanged raw files are no work: `plan` is skipped and says so. **Emits** the partition's asset; after a
range, those of its last complete week and the days after it (`mfn_validate` finds the rest by itself). A day that no raw file has
rows of any longer is withdrawn, and not announced.

### Triage

- `PartitionNotReadyError`: the raw files of the day are late, or one is not finished. Retried every 20 minutes; then ask the producer,
  and clear the task.
- `TransientError`: a file was replaced while it was read. Retried; where it comes back, have files written aside and renamed.
- `SchemaError`: a missing column, a wrong type, a time without zone, corrupt Parquet. The message names file and column: fix the
  source, or map the column (`MFN_APP_LOG_COLUMNS`, `MFN_ITEM_LOG_COLUMNS`; then restart the services), and clear the task.
- `RejectionError`: more rejects or duplicates than `MFN_MAX_REJECTED_SHARE` or `MFN_MAX_DUPLICATE_SHARE`. Read `_reason` in the
  quarantine, fix the source, and clear the task.
- `AuditError`: a critical expectation failed. Open the page that the message names.

A failed run publishes nothing: readers see the partition as it was. Clearing a task never doubles rows.
"""

from datetime import date, timedelta

from airflow.sdk import DAG, task

from mfn_core.schema import LOGS
from tasks.airflow_adapter import DAILY, LOG_ASSETS, announce_days, dag_arguments, days_from, skip, start
from tasks.dag_configs import IngestConfig
from tasks.settings import load_settings

for view in load_settings().views:
    log = LOGS[view]
    with DAG(
        f"mfn_ingest_{log.dataset}",
        schedule=DAILY,
        tags=["mfn", "ingest", view],
        doc_md=__doc__,
        # A run that waits for its late partition must not hold up the others; ``ingest`` alone runs one at a time.
        **dag_arguments(IngestConfig, max_active_runs=16),
    ):

        @task(retries=12, execution_timeout=timedelta(minutes=30))
        def plan(view):
            """Find the raw days to read, in chunks."""
            from tasks.ingest import plan_ingest

            settings, config = start(IngestConfig)
            first_day, last_day = days_from(config)
            chunks = plan_ingest(settings, LOGS[view], first_day, last_day, config.days_per_chunk)
            return chunks or skip(
                f"nothing to do: the raw files of {first_day or 'the first day'} to {last_day or 'the last'} are unchanged"
            )

        # One at a time, backfills included: a late row may belong to the neighbour's partition.
        @task(max_active_tis_per_dag=1, execution_timeout=timedelta(hours=2))
        def ingest(view, chunk):
            """Read, judge and publish the days of one chunk."""
            from tasks.ingest import ingest_chunk

            settings, _ = start(IngestConfig)
            published = ingest_chunk(settings, LOGS[view], date.fromisoformat(chunk["first_day"]), date.fromisoformat(chunk["last_day"]))
            return {"days": [each["dt"] for each in published], "changed": sum(each["changed"] for each in published)}

        @task(outlets=[LOG_ASSETS[view]])
        def announce(view, chunks):
            """Emit the asset of the run's partition; after a range, of the published days."""
            announce_days(LOG_ASSETS[view], [day for chunk in chunks for day in chunk["days"]])

        announce(view, ingest.partial(view=view).expand(chunk=plan(view)))
