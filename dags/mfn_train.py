"""Train a version from validated days, compare it with the champion on the same test users, and register it with all evidence.

**When:** all seven days of a calendar week are validated, with the defaults of the form (to change one, edit it in `mfn_core/config.py` or
`tasks/dag_configs.py` and restart the services); by hand, for that run alone. **Emits** `mfn_candidate` where the gate passes.
### Triage
- `plan` skipped, `already trained as version N`: no input, setting or code changed; `force` trains all the same, cleared from `plan` again.
- `InsufficientDataError`, `ConfigError`: see the message, then clear `plan`. `ArtifactError`: clear it. `LeakError`: open an issue.
- `train` killed or timed out: cleared, it resumes; others begin anew: raise the limit. `scheduled`: `gpu` is taken. The champion serves on.
- `train` ran out of memory: cleared, it meets it again. Trigger anew with a smaller `batch_size`; for the weekly run lower the default.
- `announce` skipped: promoted before, older than the candidate, worse than the champion or without what it answers; see XCom of `gate`.
- A log warns that the GPU is full: the task took the CPU instead, which is slower. MLflow's address: the tab XCom of `register`.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from mfn_core.schema import DOWNSTREAM_TASKS
from tasks.airflow_adapter import CANDIDATE_ASSET, SOME_SUCCEEDED, TRAINING, WEEKLY, announce_version, dag_arguments, run_tags, skip, start
from tasks.dag_configs import TrainConfig

with DAG("mfn_train", schedule=WEEKLY, tags=["mfn", "train"], doc_md=__doc__, **dag_arguments(TrainConfig)):

    @task
    def plan():
        """Fingerprint the inputs; skip what is trained already."""
        from tasks.plan import plan_training

        planned = plan_training(*start(TrainConfig))
        return skip(planned["skip"]) if planned["skip"] else planned

    @task(execution_timeout=timedelta(hours=6))
    def build_dataset(planned):
        """Build and audit the point-in-time dataset."""
        from tasks.build_dataset import build_dataset

        settings, config = start(TrainConfig)
        return build_dataset(settings, config, planned, mask_seen=config.mask_seen)

    @task(**TRAINING, execution_timeout=timedelta(hours=12))
    def train(planned, dataset):
        """Train in a child process; a retry resumes from its checkpoint."""
        from tasks.train import train

        settings, config = start(TrainConfig)
        return train(settings, config, dataset, planned["fingerprint"], run_tags(settings))

    @task(map_index_template="{{ task.op_kwargs['downstream_task'] }}", execution_timeout=timedelta(hours=2))
    def evaluate(downstream_task, dataset, training):
        """Measure one downstream task beside its baseline; skip one that the dataset leaves out."""
        from tasks.evaluate import evaluate

        left_out = dataset["facts"]["skipped"].get(downstream_task)
        return skip(left_out) if left_out else evaluate(*start(TrainConfig), dataset, training, downstream_task)

    @task(trigger_rule=SOME_SUCCEEDED, execution_timeout=timedelta(hours=6))
    def gate(dataset, training, evaluations):
        """Compare with the champion on the same test users."""
        from tasks.gate import gate

        return gate(*start(TrainConfig), dataset, training, list(evaluations))

    @task(trigger_rule=SOME_SUCCEEDED, execution_timeout=timedelta(hours=1))
    def register(dataset, training, evaluations, verdict):
        """Load, serve, predict; register last, alias after."""
        from tasks.register import register

        return register(*start(TrainConfig), dataset, training, list(evaluations), verdict)

    @task(outlets=[CANDIDATE_ASSET])
    def announce(registered):
        """Emit the candidate's asset; skipped where the version is no candidate."""
        if registered["skip"]:
            skip(registered["skip"])
        announce_version(CANDIDATE_ASSET, registered)

    dataset = build_dataset(planned := plan())
    training = train(planned, dataset)
    evaluations = evaluate.partial(dataset=dataset, training=training).expand(downstream_task=list(DOWNSTREAM_TASKS))
    announce(register(dataset, training, evaluations, gate(dataset, training, evaluations)))
