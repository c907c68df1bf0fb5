"""Does the alignment mean something? In a world whose correspondence of categories is planted, the atlas must show it."""

import numpy as np
import torch
from scipy.stats import spearmanr

from mfn_core.config import NetworkConfig, SimulationConfig, TrainingConfig
from mfn_core.data.dataset import Dataset
from mfn_core.data.vocabulary import Vocabulary
from mfn_core.model.builder import build_network
from mfn_core.model.reader import reader_input
from mfn_core.simulation import World, simulate
from mfn_core.training.labels import gather, learn_labels
from tests.factories import dataset_of

NETWORK = NetworkConfig(width=32, num_layers=1, max_macro_length=60, max_micro_length=60)
TRAINING = TrainingConfig(head_epochs=1)


def world() -> World:
    return simulate(SimulationConfig(world="correspondence", num_users=1000, num_apps=40, num_items=60, num_days=28, events_per_user=40))


def planted_GK(world: World, macro: Vocabulary, micro: Vocabulary) -> np.ndarray:
    strengths = {(row["app_category"], row["item_category"]): row["strength"] for row in world.correspondence.to_pylist()}
    return np.array([[strengths[app, item] for item in names(micro)] for app in names(macro)])


def names(vocabulary: Vocabulary) -> list[str]:
    return [str(name) for name in vocabulary.decode(np.arange(2, len(vocabulary)))]


def atlas_GK(dataset: Dataset, *, is_learned: bool) -> np.ndarray:
    """Mean affinity of the categories, over the users who have both; encoders untrained: embeddings of categories are all it needs."""
    torch.manual_seed(0)
    network = build_network(NETWORK, dataset.vocabularies, dataset.attribute_classes)
    if is_learned:
        learn_labels(network, dataset, NETWORK, TRAINING, lambda done, total: None)
    evidence = gather(network, dataset, np.arange(len(dataset)), NETWORK, TRAINING)
    with torch.no_grad():
        affinity_BGK = reader_input(evidence, network.affinity).affinity_BGK
    return (affinity_BGK.sum(0) / (affinity_BGK != 0).sum(0).clamp(min=1)).numpy()[2:, 2:]


def test_the_affinity_learns_the_planted_correspondence() -> None:
    planted = world()
    dataset = dataset_of(planted.app_logs, planted.item_logs, users=planted.users["user_id"].to_pylist(), cut="2026-07-01T00:00:00")
    expected = planted_GK(planted, dataset.vocabularies.macro_category, dataset.vocabularies.micro_category)
    before, after = (spearmanr(atlas_GK(dataset, is_learned=learned).ravel(), expected.ravel())[0] for learned in (False, True))
    assert abs(before) < 0.4
    assert after > 0.6
