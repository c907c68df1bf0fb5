"""Simulate the embedded default input.

Writes the raw app logs, item logs and users table of a simulated world, by day. The same seed writes the same bytes; a second run
on the same form does no work and says so in its log. Never scheduled.

Next: unpause `mfn_ingest_app_logs`, `mfn_ingest_item_logs` and `mfn_ingest_users` and trigger each with an empty form. Pause them again
after that: no day follows the last of the world, and they would look for yesterday's files every day.

### Triage

- `ConfigError`, unknown setting: a misspelt key in the conf. The message names the one that was meant: trigger again.
- `No space left on device`: the world is larger than the disk. Lower `num_users` or `events_per_user`, and trigger again.

Nothing downstream starts by itself, so a failure hurts nobody.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from tasks.airflow_adapter import dag_arguments, start
from tasks.dag_configs import SimulateConfig

with DAG(
    "mfn_simulate",
    schedule=None,
    tags=["mfn", "input"],
    doc_md=__doc__,
    **dag_arguments(SimulateConfig),
):

    @task(execution_timeout=timedelta(hours=2))
    def simulate():
        """Write the world's raw logs."""
        from tasks.simulate import simulate

        return simulate(*start(SimulateConfig))

    simulate()
