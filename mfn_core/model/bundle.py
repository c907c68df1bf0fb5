"""A trained network in one directory: weights, settings, vocabularies. What is evaluated is what is served.

::

    bundle.json      layout, settings, attribute classes, facts
    weights.npz      the state dict, one array per key, read without pickle
    vocabularies/    the model's own; scoring never opens a dataset's
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from mfn_core.config import NetworkConfig
from mfn_core.data.vocabulary import Vocabularies
from mfn_core.errors import ArtifactError
from mfn_core.model.builder import Network, build_network

_CONTENTS = "bundle.json"
_WEIGHTS = "weights.npz"
_VOCABULARIES = "vocabularies"
_LAYOUT = 1  # another where the same weights would mean something else


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; the network is in evaluation mode, on the CPU."""

    network: Network
    config: NetworkConfig
    vocabularies: Vocabularies
    attribute_classes: dict[str, tuple[str, ...]]
    facts: dict[str, Any]


def save_bundle(
    folder: Path,
    network: Network,
    config: NetworkConfig,
    vocabularies: Vocabularies,
    attribute_classes: Mapping[str, Sequence[str]],
    facts: Mapping[str, Any],
) -> None:
    """Writes a bundle.

    Args:
        folder: Made where missing; what it holds of an older bundle is replaced.
        network: On any device.
        config: The settings the network was built with.
        vocabularies: The vocabularies its ids come from.
        attribute_classes: Classes of each attribute, in the order of the heads.
        facts: Anything JSON can hold that a reader may want to know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.detach().cpu().numpy() for key, tensor in network.state_dict().items()}
    np.savez(folder / _WEIGHTS, allow_pickle=False, **weights)
    vocabularies.save(folder / _VOCABULARIES)
    contents = {
        "layout": _LAYOUT,
        "network": config.model_dump(mode="json"),
        "attribute_classes": {name: list(classes) for name, classes in attribute_classes.items()},
        "facts": dict(facts),
    }
    (folder / _CONTENTS).write_text(json.dumps(contents, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_bundle(folder: Path) -> Bundle:
    """Reads a bundle; weights are equal, bit for bit, to those saved.

    Raises:
        ArtifactError: A file is missing or unreadable, of another layout, or the weights do not fit the settings and vocabularies.
        ConfigError: The settings fit no network; see ``build_network``.
    """
    for name in (_CONTENTS, _WEIGHTS, _VOCABULARIES):
        if not (folder / name).exists():
            raise ArtifactError(f"{folder} is no complete bundle: {name} is missing; train again or copy the whole directory.")
    config, attribute_classes, facts = _read_contents(folder / _CONTENTS)
    vocabularies = Vocabularies.load(folder / _VOCABULARIES)
    network = build_network(config, vocabularies, attribute_classes)
    _load_weights(network, folder / _WEIGHTS)
    return Bundle(network.eval(), config, vocabularies, attribute_classes, facts)


def _read_contents(path: Path) -> tuple[NetworkConfig, dict[str, tuple[str, ...]], dict[str, Any]]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        layout = contents.get("layout") if isinstance(contents, dict) else None
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read as a bundle's contents ({error}); train again with this version.") from error
    if layout != _LAYOUT:
        raise ArtifactError(f"{path} is of layout {layout}, this version reads {_LAYOUT}: its weights meant something else; train again.")
    try:
        config = NetworkConfig.model_validate(contents["network"])
        attribute_classes = {name: tuple(classes) for name, classes in contents["attribute_classes"].items()}
        return config, attribute_classes, contents["facts"]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ArtifactError(f"{path} cannot be read as a bundle's contents ({error}); train again with this version.") from error


def _load_weights(network: Network, path: Path) -> None:
    expected = network.state_dict()
    stored = _read_weights(path)
    remedy = "the bundle mixes files of different models; copy or train it whole."
    if missing := sorted(expected.keys() - stored.keys()):
        raise ArtifactError(f"{path} lacks the weights {missing}; {remedy}")
    if foreign := sorted(stored.keys() - expected.keys()):
        raise ArtifactError(f"{path} holds weights the network does not know: {foreign}; {remedy}")
    for key, tensor in expected.items():
        if stored[key].shape != tuple(tensor.shape):
            raise ArtifactError(f"{path}: weight {key} has shape {stored[key].shape}, the network needs {tuple(tensor.shape)}; {remedy}")
    network.load_state_dict({key: torch.from_numpy(array) for key, array in stored.items()})


def _read_weights(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read as weights ({error}); copy or train the bundle again.") from error
