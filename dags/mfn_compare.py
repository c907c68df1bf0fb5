"""Compare models on one dataset.

The network of the form, the same without one of its parts, and its rivals: same splits, same cut, same test users, several seeds. Rivals
are tuned on validation with the `trials` of the form, networks are not tuned. Table, chart and rows are in the store and in MLflow.

**When:** by hand with the form; it takes hours (`seeds` × models) of the pool `gpu`: a weekly training waits for the model that is being
measured. The same form again finds what is measured and computes only what is missing: more seeds, more models, a model whose code has
changed. It registers nothing and promotes nothing.
### Triage
- `ConfigError`: a model is unknown, a network cannot be built, or the form sets what the networks differ in; the message names the choice.
- `InsufficientDataError`, days not validated: ingest and validate first.
- `build_dataset`: `ArtifactError`, a day or the users table has changed since `plan`: clear `plan`, it plans anew.
- `measure` timed out or was killed: clear it, it resumes. Stays `scheduled`: pool `gpu` is taken, by a training or by another model.
- `build_dataset` or `report` timed out (6 hours): not retried, as it begins anew. Raise its `execution_timeout` in `dags/mfn_compare.py`.
- `measure` ran out of memory: cleared, it meets it again. Trigger anew with a smaller `batch_size`.
- `measure`: `ArtifactError`, other users: RecBole's scores are of another dataset; run RecBole again or leave it out of `models`.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from tasks.airflow_adapter import TRAINING, dag_arguments, mappable, run_tags, start
from tasks.dag_configs import CompareConfig

with DAG("mfn_compare", schedule=None, tags=["mfn", "compare"], doc_md=__doc__, **dag_arguments(CompareConfig)):

    @task
    def plan():
        """Check the form; find the days and the dataset's fingerprint."""
        from tasks.compare import plan

        return plan(*start(CompareConfig))

    @task(execution_timeout=timedelta(hours=6))
    def build_dataset(planned):
        """Build and audit the point-in-time dataset, or find the one of `mfn_train`."""
        from tasks.build_dataset import build_dataset

        settings, config = start(CompareConfig)
        return build_dataset(settings, config, planned, mask_seen=config.mask_seen)

    @task
    def line_up(dataset):
        """List models and seeds; the log says who is left out, and why."""
        from tasks.compare import line_up

        return mappable(line_up(*start(CompareConfig), dataset), "lower seeds, or name fewer models")

    @task(
        **TRAINING,
        map_index_template="{{ task.op_kwargs['item']['model'] }} {{ task.op_kwargs['item']['seed'] }}",
        execution_timeout=timedelta(hours=12),
    )
    def measure(dataset, item):
        """Train or fit one model at one seed, and score the test users."""
        from tasks.compare import measure

        return measure(*start(CompareConfig), dataset, item)

    @task(execution_timeout=timedelta(hours=6))
    def report(dataset, measured):
        """Means, intervals, paired tests; table and chart."""
        from tasks.compare import report

        settings, config = start(CompareConfig)
        return report(settings, config, dataset, list(measured), run_tags(settings))

    dataset = build_dataset(plan())
    report(dataset, measure.partial(dataset=dataset).expand(item=line_up(dataset)))
