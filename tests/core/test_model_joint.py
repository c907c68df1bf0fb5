"""All readers as one: what they say of every label is what each says alone."""

from dataclasses import fields

import pytest
import torch
from torch import nn

from mfn_core.model.joint import JointReaders
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.reader import ReaderParts
from tests.batches import ANNA, BORIS, EVERYBODY, batch_of, tiny_network

PARTS = {
    "all": ReaderParts(product=True, alignment=True, gate=True, num_filters=3),
    "no gate": ReaderParts(product=True, alignment=True, gate=False, num_filters=3),
    "no product": ReaderParts(product=False, alignment=True, gate=True, num_filters=3),
}


def taught(parts: ReaderParts = PARTS["all"]) -> MacroMicroFusionNetwork:
    """Readers of 2, 2 and 3 classes, no two of whose numbers are alike, nor their scales and shares."""
    network = tiny_network(reader_parts=parts)
    torch.manual_seed(0)
    for tensor in network.readers.parameters():
        nn.init.normal_(tensor, std=0.2)
    for name, tensor in network.readers.named_buffers():
        if "edges" in name:
            tensor.copy_(torch.rand_like(tensor).cumsum(-1))
        elif "blend" in name:
            tensor.copy_(torch.rand(4).softmax(0))
        else:
            tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("parts", PARTS)
def test_every_label_is_told_what_its_own_readers_tell(parts: str) -> None:
    network, batch = taught(PARTS[parts]), batch_of(*EVERYBODY)
    with torch.no_grad():
        alone, joint = network(batch), network.settled()(batch)
    torch.testing.assert_close(joint.activity_logits_B, alone.activity_logits_B)
    assert [logits.shape for logits in joint.attribute_logits] == [(5, 2), (5, 3)]
    for ours, theirs in zip(joint.attribute_logits, alone.attribute_logits, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(joint.user_BD, alone.user_BD)


@torch.no_grad()
def test_a_settled_network_answers_by_the_weights_it_had() -> None:
    network, batch = taught(), batch_of(ANNA, BORIS)
    settled = network.settled()
    before = settled(batch).activity_logits_B
    for tensor in network.readers.parameters():
        tensor.add_(1)
    assert torch.equal(settled(batch).activity_logits_B, before)


@torch.no_grad()
def test_a_settled_network_encodes_as_the_network_does() -> None:
    network, batch = taught(), batch_of(*EVERYBODY)
    encoded, settled = network.encode(batch), network.settled()(batch).encoded
    for field in fields(encoded):
        assert torch.equal(getattr(settled, field.name), getattr(encoded, field.name)), field.name


@pytest.mark.parametrize("view", ["macro", "micro"])
@torch.no_grad()
def test_an_encoder_settles_its_projections_once(view: str) -> None:
    network, batch = taught(), batch_of(ANNA, BORIS)
    settled, name = network.settled(), f"user_{view}_BD"
    before = getattr(settled(batch).encoded, name)
    network.get_parameter(f"{view}.layers.0.attention.queries_keys_values.weight").zero_()
    assert torch.equal(getattr(settled(batch).encoded, name), before)
    assert not torch.equal(getattr(network.encode(batch), name), before)


def test_the_readers_are_left_as_they_were() -> None:
    network = taught()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    JointReaders(network.label_readers)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
