"""What every test stands on: no setting of the caller, an Airflow home of its own, nothing sent anywhere."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from deploy.local.environment import composed
from tasks.settings import Settings

# Before torch, MLflow or Airflow is imported: each reads its environment once. One thread: the tests' tensors are tiny, and their
# sums must come in one order.
_HOME = Path(tempfile.mkdtemp(prefix="mfn-tests-"))
for _name in [name for name in os.environ if name.startswith(("MFN_", "AIRFLOW"))]:
    del os.environ[_name]
os.environ.update(composed(_HOME), OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty installation of the test's own."""
    return Settings(var=tmp_path / "var")
