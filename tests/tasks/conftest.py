import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tasks.settings import Settings


@pytest.fixture(scope="session")
def empty_mlflow_database(tmp_path_factory):
    """Making MLflow's tables takes ten seconds: once for all tests, and for all workers of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp().parent
    database = shared / "mlflow-template.db"
    with FileLock(shared / "mlflow-template.lock"):
        if not database.exists():
            from mlflow import MlflowClient

            draft = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
            MlflowClient(f"sqlite:///{draft}").search_experiments()
            shutil.copyfile(draft, database)
    return database


@pytest.fixture
def registry(tmp_path, empty_mlflow_database):
    """Settings of an installation with an empty store and an empty registry."""
    return _installation(tmp_path / "var", empty_mlflow_database)


@pytest.fixture(scope="module")
def shared_registry(tmp_path_factory, empty_mlflow_database):
    """The same for all tests of a module, which do not change it."""
    return _installation(tmp_path_factory.mktemp("installation") / "var", empty_mlflow_database)


def _installation(var, empty_mlflow_database):
    settings = Settings(var=var)
    database = Path(settings.tracking.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True)
    shutil.copyfile(empty_mlflow_database, database)
    return settings
