"""A bundle is read back bit for bit, or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mfn_core.config import NetworkConfig
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.errors import ArtifactError, ConfigError
from mfn_core.model.builder import build_network
from mfn_core.model.bundle import load_bundle, save_bundle
from mfn_core.model.paper import PaperNetwork

CONFIG = NetworkConfig(width=8, num_layers=1, num_heads=2, max_macro_length=4, max_micro_length=4, num_alignment_filters=2)
CLASSES = {"gender": ("F", "M"), "age": ("18", "25", "35")}
FACTS = {"best_epoch": 3, "note": "ä"}


def vocabulary(*tokens: str) -> Vocabulary:
    return Vocabulary.fit(pa.array(tokens), np.arange(len(tokens), 0, -1))


def vocabularies(*items: str) -> Vocabularies:
    return Vocabularies(vocabulary("com.bank.app", "com.chat"), vocabulary("finance"), vocabulary(*items), vocabulary("book", "food"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    words = vocabularies("i1", "i2", "i3")
    save_bundle(tmp_path / "bundle", build_network(CONFIG, words, CLASSES), CONFIG, words, CLASSES, FACTS)
    return tmp_path / "bundle"


def rewrite_weights(folder: Path, **changes: np.ndarray | None) -> None:
    with np.load(folder / "weights.npz") as archive:
        weights = {**{key: archive[key] for key in archive.files}, **{key.replace("__", "."): value for key, value in changes.items()}}
    np.savez(folder / "weights.npz", **{key: value for key, value in weights.items() if value is not None})


def test_weights_come_back_bit_for_bit(folder: Path) -> None:
    torch.manual_seed(0)
    expected = build_network(CONFIG, vocabularies("i1", "i2", "i3"), CLASSES).state_dict()
    loaded = load_bundle(folder).network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_everything_else_comes_back(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.config == CONFIG
    assert list(bundle.attribute_classes.items()) == list(CLASSES.items())
    assert bundle.facts == FACTS
    assert bundle.vocabularies.micro_id.encode(pa.array(["i3", "i1", "new"])).tolist() == [4, 2, 1]


def test_a_loaded_network_is_ready_to_predict(folder: Path) -> None:
    assert not load_bundle(folder).network.training


def test_a_network_in_bundle_has_the_sizes_of_its_vocabularies(folder: Path) -> None:
    network = load_bundle(folder).network
    assert (network.items.bias.shape, network.micro.embedding.ids.weight.shape) == ((5,), (5, 8))


def test_a_paper_network_comes_back_as_one(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"preset": "paper"})
    network = build_network(config, vocabularies("i1"), CLASSES)
    save_bundle(tmp_path, network, config, vocabularies("i1"), CLASSES, FACTS)
    loaded = load_bundle(tmp_path).network
    assert isinstance(loaded, PaperNetwork)
    assert torch.equal(loaded.fusion.gate.weight, network.fusion.gate.weight)


@pytest.mark.parametrize("name", ["bundle.json", "weights.npz", "vocabularies"])
def test_a_missing_part_is_named(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "elsewhere")
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load_bundle(folder)


def test_a_missing_weight_is_named(folder: Path) -> None:
    rewrite_weights(folder, affinity__weight_DD=None)
    with pytest.raises(ArtifactError, match=r"weights.npz lacks the weights \['affinity.weight_DD'\]"):
        load_bundle(folder)


def test_a_foreign_weight_is_named(folder: Path) -> None:
    rewrite_weights(folder, fusion__present_D=np.zeros(3))
    with pytest.raises(ArtifactError, match=r"does not know: \['fusion.present_D'\]"):
        load_bundle(folder)


def test_weights_of_another_vocabulary_are_refused_with_both_shapes(folder: Path) -> None:
    vocabularies("i1", "i2", "i3", "i4").save(folder / "vocabularies")
    with pytest.raises(ArtifactError, match=r"micro.embedding.ids.weight has shape \(5, 8\), the network needs \(6, 8\)"):
        load_bundle(folder)


def test_a_truncated_file_of_weights_is_refused(folder: Path) -> None:
    content = (folder / "weights.npz").read_bytes()
    (folder / "weights.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"weights.npz cannot be read"):
        load_bundle(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    rewrite_weights(folder, fusion__absent_macro_D=np.array([print] * 8, dtype=object))
    with pytest.raises(ArtifactError, match=r"weights.npz cannot be read"):
        load_bundle(folder)


def test_weights_that_meant_something_else_are_refused(folder: Path) -> None:
    contents = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({name: value for name, value in contents.items() if name != "layout"}))
    with pytest.raises(ArtifactError, match=r"^\S+bundle\.json is of layout None, this version reads 1: [^;]*; train again\.$"):
        load_bundle(folder)


def test_settings_of_another_version_are_refused(folder: Path) -> None:
    contents = json.loads((folder / "bundle.json").read_text())
    contents["network"]["wdith"] = 8
    (folder / "bundle.json").write_text(json.dumps(contents))
    with pytest.raises(ArtifactError, match=r"(?s)bundle.json cannot be read.*wdith"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"product": False}, "product"), ({"views": ("micro",)}, "views"), ({"gate": False, "alignment": False}, "alignment, gate")],
)
def test_what_the_paper_does_not_have_cannot_be_left_out_of_it(settings: dict[str, Any], named: str) -> None:
    config = NetworkConfig(preset="paper", width=8, **settings)
    with pytest.raises(ConfigError, match=f"^{named} cannot be changed with preset=paper; leave the default, or set preset=default"):
        build_network(config, vocabularies("i1"), {})


def test_feed_forward_layers_are_as_wide_as_asked() -> None:
    network = build_network(NetworkConfig(width=8, feed_forward_factor=3), vocabularies("i1"), {})
    widths = [layer.feed_forward[0].out_features for view in (network.macro, network.micro) for layer in view.layers]
    assert widths == [24, 24, 24, 24]


@pytest.mark.parametrize("num_heads", [3, 8])
def test_heads_that_do_not_divide_the_width_evenly_are_refused(num_heads: int) -> None:
    config = NetworkConfig(width=8, num_heads=num_heads)
    with pytest.raises(ConfigError, match=f"num_heads={num_heads} does not divide width=8 into heads of an even width"):
        build_network(config, vocabularies("i1"), {})
