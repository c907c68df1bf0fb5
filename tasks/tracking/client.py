"""MLflow's own client, and the experiment of an installation."""

from pathlib import Path
from typing import TYPE_CHECKING

from mfn_core.errors import ConfigError
from tasks.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_TAG = 4000


def connect(settings: Settings) -> "MlflowClient":
    """A client of the settings' store, which becomes the process's default: MLflow's model functions know no other way."""
    import mlflow

    if settings.tracking.startswith("sqlite:///"):
        Path(settings.tracking.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(settings.tracking)
    mlflow.set_registry_uri(settings.tracking)
    return mlflow.MlflowClient(settings.tracking, settings.tracking)


def experiment_id(client: "MlflowClient", settings: Settings) -> str:
    """The id of the settings' experiment, which is made where there is none.

    Raises:
        ConfigError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        # MLflow's own default is a folder of the current directory. A tracking server chooses for itself.
        is_local = settings.tracking.startswith("sqlite:///")
        location = (settings.var.resolve() / "mlflow" / "artifacts" / settings.experiment).as_uri() if is_local else None
        try:
            return client.create_experiment(settings.experiment, artifact_location=location)
        except MlflowException:
            experiment = client.get_experiment_by_name(settings.experiment)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise ConfigError(
            f"experiment {settings.experiment} was deleted in MLflow at {settings.tracking}: restore it by 'mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}' with that MLFLOW_TRACKING_URI, or set MFN_EXPERIMENT to another name and restart "
            "the services"
        )
    return experiment.experiment_id
