"""Ingest one log: raw to curated.

Casts each raw row to the contract, sets rejected rows aside under `quarantine/` (whole, with reason, file and row number),
drops exact duplicates, audits the partition with Great Expectations and publishes it whole or not at all.

**When:** daily at 00:00 UTC for yesterday's partition, and for those of the `MFN_REDELIVERY_DAYS` (7) days before it whose raw files were
never read or have changed; by hand for a range of days (a first load), in chunks of `days_per_chunk`. Unchanged raw files are no work.
**Emits** the partition's asset, and those of days before it that nobody had read; after a range, those of its last complete week and the
days after it (`mfn_validate` finds the rest by itself). For old days use `first_day` and `last_day`, not a backfill: each of its runs
announces its own day, and each complete week wakes `mfn_train`.

### Triage
- `PartitionNotReadyError`: the raw files are late, or one is not finished. Retried every 20 minutes until about 04:00, then red: ask the
  producer. The next days' runs read them; where nobody used the product, load the days around it. Where no files come daily, pause the DAG.
- `TransientError`: a file was replaced while it was read. Retried; where it comes back, have files written aside and renamed.
- `SchemaError`: a missing column, a wrong type, a time without zone, corrupt Parquet, a day without files in a range. The message names
  it: fix the source, or map the column (`MFN_APP_LOG_COLUMNS`, `MFN_ITEM_LOG_COLUMNS`; then restart the services), and clear the task.
- `RejectionError`, rejected rows: read `_reason` in the quarantine, fix the source, and clear the task. Exact duplicates are not in the
  quarantine: remove the file that came twice, or bring `seq_no`, and clear the task. Where the data is right, raise
  `MFN_MAX_REJECTED_SHARE` or `MFN_MAX_DUPLICATE_SHARE` and restart the services before that.
- `AuditError`: a critical expectation failed. Open the page that the message names.
- `ingest` failed for an earlier day, and `finish` with it: the run's own day is announced nevertheless. Later runs try it again.
- `ingest` timed out (2 hours), not retried: it begins anew. Trigger its days with a smaller `days_per_chunk`, or raise the limit here.
- The scheduler was down: the next run reads the days that were missed; of more than `MFN_REDELIVERY_DAYS`, trigger the range of the others.
- A raw folder was emptied or removed: its day stays published. To take rows back, deliver the folder anew without them. A day that came
  from a first load or late rows alone is withdrawn when they are delivered without it.

A failed chunk publishes nothing: readers see its days as they were. Clearing a task never doubles rows.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from mfn_core.schema import LOGS
from tasks.airflow_adapter import ANY_DONE, DAILY, LOG_ASSETS, announce_ingested, dag_arguments, days_from, mappable, own_days, skip, start
from tasks.dag_configs import IngestConfig
from tasks.settings import load_settings

for view in load_settings().views:
    log = LOGS[view]
    with DAG(
        f"mfn_ingest_{log.dataset}",
        schedule=DAILY,
        tags=["mfn", "ingest", view],
        doc_md=__doc__,
        # A chunk that waits for its late partition must hold up no other run; ``ingest`` alone runs one at a time.
        **dag_arguments(IngestConfig, max_active_runs=16),
    ):

        @task(execution_timeout=timedelta(minutes=30))
        def plan(view):
            """Find the raw days to read, in chunks."""
            from tasks.ingest_plan import plan_ingest, plan_partition

            settings, config = start(IngestConfig)
            if days := own_days(settings, config):
                return plan_partition(settings, LOGS[view], *days)
            chunks = plan_ingest(settings, LOGS[view], *days_from(config), config.days_per_chunk)
            return mappable(chunks, "raise days_per_chunk") or skip("nothing to do: the raw files of these days are unchanged")

        # One at a time, backfills included: a late row may belong to the neighbour's partition.
        @task(retries=12, max_active_tis_per_dag=1, execution_timeout=timedelta(hours=2))
        def ingest(view, chunk):
            """Read, judge and publish the days of one chunk."""
            from tasks.ingest import ingest_planned

            return ingest_planned(start(IngestConfig)[0], LOGS[view], chunk)

        @task(outlets=[LOG_ASSETS[view]], trigger_rule=ANY_DONE)
        def announce(view, planned, ingested):
            """Emit the asset of the run's partition, though an earlier day failed; after a range, of the published days."""
            announce_ingested(LOG_ASSETS[view], len(planned), list(ingested))

        @task
        def finish():
            """Fail the run where a chunk failed, which ``announce`` passes over."""

        ingested = ingest.partial(view=view).expand(chunk=(planned := plan(view)))
        [ingested, announce(view, planned, ingested)] >> finish()
