"""Models for tests that need one and not a good one: networks of width 8 with seeded weights, stored as a training run leaves them."""

from pathlib import Path

import torch

from mfn_core.config import NetworkConfig
from mfn_core.data.dataset import Dataset
from mfn_core.inference.predictor import Predictor
from mfn_core.model.builder import build_network
from mfn_core.model.bundle import save_bundle

TINY = NetworkConfig(width=8, num_layers=1, num_heads=2, max_macro_length=4, max_micro_length=4, num_alignment_filters=2)


def store_model(dataset: Dataset, folder: Path, *, seed: int = 0, tasks: tuple[str, ...] | None = None) -> Path:
    """A bundle of a network that knows the dataset's vocabularies and classes; returns the folder."""
    torch.manual_seed(seed)
    network = build_network(TINY, dataset.vocabularies, dataset.attribute_classes)
    facts = {"tasks": list(dataset.tasks if tasks is None else tasks), "cut": dataset.cut, "horizon_days": dataset.horizon_days}
    save_bundle(folder, network, TINY, dataset.vocabularies, dataset.attribute_classes, facts)
    return folder


def predictor_of(dataset: Dataset, folder: Path, *, seed: int = 0, tasks: tuple[str, ...] | None = None) -> Predictor:
    """The predictor of such a bundle."""
    return Predictor.load(store_model(dataset, folder, seed=seed, tasks=tasks), "cpu")
