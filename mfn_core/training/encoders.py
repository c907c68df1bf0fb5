"""The encoders of a finished run, for another that differs from it in the labels alone.

Labels are learned after the encoders, which serve none of them: two runs whose settings differ only in how labels are read have the same
encoders, bit for bit. The second need not train them again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.errors import ArtifactError
from mfn_core.model.bundle import load_bundle
from mfn_core.model.network import OF_LABELS
from mfn_core.training import BUNDLE, JOB, RESULT
from mfn_core.training.progress import TrainingResult

SETTINGS_OF_LABELS = {
    "product",
    "alignment",
    "gate",
    "num_alignment_filters",
    "max_ids",
    "mutual_information_weight",
    "head_epochs",
    "head_patience",
}


@dataclass(frozen=True)
class TrainedEncoders:
    """What a finished run knew before it learned the labels."""

    weights: dict[str, Tensor]
    result: TrainingResult


def read_encoders(folder: Path, data_digest: str, network_config: NetworkConfig, config: TrainingConfig) -> TrainedEncoders:
    """Those of a finished run's folder.

    Args:
        folder: of the run; see ``mfn_core.training``.
        data_digest: SHA-256 of what the new run reads.
        network_config: of the new run.
        config: of the new run.

    Raises:
        ArtifactError: the run is not finished, or had other data or other settings of the encoders.
    """
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        result = TrainingResult.from_json(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{folder} holds no finished run ({error}); train without its encoders") from error
    theirs = {**job["network"], **job["training"], "data": result.data}
    ours = {**network_config.model_dump(mode="json"), **config.model_dump(mode="json"), "data": data_digest}
    # The job keeps the width as it was asked for.
    theirs["width"] = NetworkConfig(**job["network"]).encoder_width
    if other := sorted(name for name in ours.keys() - SETTINGS_OF_LABELS if ours[name] != theirs.get(name)):
        said = ", ".join(f"{name}={_short(theirs.get(name))} there, {_short(ours[name])} here" for name in other)
        raise ArtifactError(f"the encoders of {folder} are of another run: {said}; train without them")
    state = load_bundle(folder / BUNDLE).network.state_dict()
    return TrainedEncoders({name: tensor for name, tensor in state.items() if not name.startswith(OF_LABELS)}, result)


def _short(value: Any) -> str:
    return str(value)[:40]
