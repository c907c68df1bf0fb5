"""A training that always runs into its timeout, for a test. Its conf is the manifest of a dataset."""

from datetime import timedelta

from airflow.sdk import DAG, get_current_context, task

with DAG("impatient_training", schedule=None):

    @task(execution_timeout=timedelta(seconds=15))
    def train():
        from tasks.dag_configs import TrainConfig
        from tasks.settings import load_settings
        from tasks.train import train_managed

        dataset = get_current_context()["dag_run"].conf
        endless = TrainConfig(width=16, max_epochs=10_000, patience=1000)
        return train_managed(load_settings(), endless, dataset, "f" * 64, lambda progress: None)

    train()
