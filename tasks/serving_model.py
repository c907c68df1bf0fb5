"""The registered model's code: MLflow copies this file into the model and runs it to load the bundle beside it.

It travels without the repository: besides MLflow it knows only ``mfn_core``, which is copied into the model too.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.utils.yaml_utils import read_yaml

from mfn_core.errors import PermanentError
from mfn_core.inference.predictor import Predictor
from mfn_core.inference.serving import BUNDLE_ARTIFACT, DEFAULT_TOP_K, answer

_VERSION_FILE = "registered_model_meta"


class ServingModel(PythonModel):
    """Raw histories in, answers out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle, and the version that MLflow noted when it fetched a registered model."""
        bundle = Path(context.artifacts[BUNDLE_ARTIFACT])
        self._predictor = Predictor.load(bundle)
        self._version = _registered_version(bundle.parent.parent)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer every row of the request; see ``mfn_core.inference.serving``."""
        asked = {"top_k": DEFAULT_TOP_K, **(params or {})}
        try:
            return answer(self._predictor, model_input, **asked, facts={"model_version": self._version})
        except PermanentError as error:
            # Of any other exception the scoring server tells its client no more than "unexpected".
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _registered_version(folder: Path) -> str | None:
    return str(read_yaml(str(folder), _VERSION_FILE)["model_version"]) if (folder / _VERSION_FILE).exists() else None


set_model(ServingModel())
