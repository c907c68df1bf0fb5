"""Ingest the users table: raw to curated.

Reads the snapshot of users and their attributes, drops exact copies of rows, refuses users whose rows disagree, audits it and publishes it
whole or not at all. Optional: a deployment without a users table leaves out attribute prediction and says so.

**When:** daily; by hand at any time. An unchanged snapshot is no work: the task is skipped and says so. **Emits** `mfn_users`.

### Triage

- Skipped, there is no users table: nothing to do where the deployment has none. Where it had one, the last snapshot goes on being
  used; the reason says since when, and what to delete to drop it.
- `SchemaError`: rows of one user that disagree, a missing `user_id`, a wrong type. The message names file, column or users: fix the
  source, and clear the task.
- `RejectionError`: more exact copies than `MFN_MAX_DUPLICATE_SHARE` (20 %), or more rows without `user_id` than `MFN_MAX_REJECTED_SHARE`
  (1 %), which are in the quarantine. Fix the source, or raise the limit and restart the services; then clear the task.
- `PartitionNotReadyError`: a file is not finished. Retried every 20 minutes.
- `AuditError`: a critical expectation failed. Open the page that the message names.

Training goes on with the last published snapshot.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from tasks.airflow_adapter import DAILY, USERS_ASSET, dag_arguments, skip, start
from tasks.dag_configs import IngestUsersConfig

with DAG(
    "mfn_ingest_users",
    schedule=DAILY,
    tags=["mfn", "ingest"],
    doc_md=__doc__,
    **dag_arguments(IngestUsersConfig),
):

    @task(outlets=[USERS_ASSET], execution_timeout=timedelta(minutes=30))
    def ingest():
        """Read, judge and publish the snapshot."""
        from tasks.ingest_users import ingest_users

        settings, _ = start(IngestUsersConfig)
        manifest = ingest_users(settings)
        return skip(manifest["skipped"]) if "skipped" in manifest else manifest

    ingest()
