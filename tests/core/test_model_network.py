"""The whole network: shapes, absence, independence of users and of padding."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.model.fusion import GatedFusion
from mfn_core.model.losses import total_loss
from mfn_core.model.network import MacroMicroFusionNetwork, Outputs
from tests.batches import ANNA, BORIS, NOBODY, WITHOUT_MACRO, WITHOUT_MICRO, User, batch_of, tiny_network

EVERYBODY = (ANNA, BORIS, WITHOUT_MACRO, WITHOUT_MICRO, NOBODY)
PER_USER = ("user_macro_BD", "user_micro_BD", "alignment_BGK", "macro_attention_BG", "micro_attention_BK", "user_BD", "activity_logits_B")


def outputs_of(*users: User, extra_padding: int = 0) -> Outputs:
    return tiny_network()(batch_of(*users, extra_padding=extra_padding))


def query_of(*users: User, extra_padding: int = 0) -> Tensor:
    network, batch = tiny_network(), batch_of(*users, extra_padding=extra_padding)
    return network.last_query_BD(network(batch), batch)


def test_padding_changes_nothing() -> None:
    bare, padded = outputs_of(*EVERYBODY), outputs_of(*EVERYBODY, extra_padding=5)
    for name in PER_USER:
        torch.testing.assert_close(getattr(padded, name), getattr(bare, name), rtol=0, atol=1e-6)
    for padded_logits, bare_logits in zip(padded.attribute_logits, bare.attribute_logits, strict=True):
        torch.testing.assert_close(padded_logits, bare_logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(query_of(*EVERYBODY, extra_padding=5), query_of(*EVERYBODY), rtol=0, atol=1e-6)


def test_a_user_is_the_same_alone_and_in_company() -> None:
    company = outputs_of(*EVERYBODY)
    for row, user in enumerate(EVERYBODY):
        torch.testing.assert_close(company.user_BD[row], outputs_of(user).user_BD[0], rtol=0, atol=1e-6)


def test_permuted_users_give_permuted_outputs() -> None:
    order = [3, 0, 4, 2, 1]
    straight, permuted = outputs_of(*EVERYBODY), outputs_of(*(EVERYBODY[row] for row in order))
    for name in PER_USER:
        torch.testing.assert_close(getattr(permuted, name), getattr(straight, name)[order], rtol=0, atol=1e-6)


def test_an_empty_history_gives_finite_outputs_and_gradients() -> None:
    network = tiny_network()
    losses = total_loss(network, batch_of(*EVERYBODY), TrainingConfig())
    losses.total.backward()
    assert all(torch.isfinite(getattr(losses, field.name)) for field in fields(losses))
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("users", [(NOBODY,), (NOBODY, NOBODY), (WITHOUT_MICRO,), (WITHOUT_MACRO, WITHOUT_MACRO)])
def test_a_batch_that_lacks_a_view_trains(users: tuple[User, ...]) -> None:
    network = tiny_network()
    total_loss(network, batch_of(*users), TrainingConfig()).total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


def test_a_data_set_without_macro_view_needs_no_macro_vocabulary() -> None:
    network = tiny_network(num_macro_ids=2, num_macro_categories=2)
    losses = total_loss(network, batch_of(WITHOUT_MACRO, WITHOUT_MACRO), TrainingConfig())
    losses.total.backward()
    assert losses.next_item > 0


def test_a_data_set_without_micro_view_needs_no_micro_vocabulary() -> None:
    network = tiny_network(num_micro_ids=2, num_micro_categories=2)
    losses = total_loss(network, batch_of(WITHOUT_MICRO, WITHOUT_MICRO), TrainingConfig())
    losses.total.backward()
    assert losses.next_item == 0
    assert losses.activity > 0


def test_absent_views_have_no_alignment() -> None:
    outputs = outputs_of(*EVERYBODY)
    assert [bool(matrix.any()) for matrix in outputs.alignment_BGK] == [True, True, False, False, False]
    assert [round(total, 5) for total in outputs.macro_attention_BG.sum(1).tolist()] == [1, 1, 0, 1, 0]
    assert [round(total, 5) for total in outputs.micro_attention_BK.sum(1).tolist()] == [1, 1, 1, 0, 0]


def test_absent_categories_have_no_alignment() -> None:
    # Anna's apps are of the categories 2 and 3, her items of 2 and 4.
    aligned = outputs_of(ANNA).alignment_BGK[0].abs() > 0
    assert aligned.nonzero().tolist() == [[2, 2], [2, 4], [3, 2], [3, 4]]


def test_one_view_alone_is_the_user_beside_a_note_of_what_is_absent() -> None:
    outputs, fusion = outputs_of(WITHOUT_MACRO, WITHOUT_MICRO), tiny_network().fusion
    torch.testing.assert_close(outputs.user_BD[0], outputs.user_micro_BD[0] + fusion.absent_macro_D)
    torch.testing.assert_close(outputs.user_BD[1], outputs.user_macro_BD[1] + fusion.absent_micro_D)


def test_a_user_without_events_is_a_learned_vector() -> None:
    fusion = tiny_network().fusion
    torch.testing.assert_close(outputs_of(NOBODY).user_BD[0], fusion.absent_macro_D + fusion.absent_micro_D)


def test_gate_weights_sum_to_one_per_dimension() -> None:
    weights = outputs_of(*EVERYBODY).gate_B3D
    torch.testing.assert_close(weights.sum(1)[:4], torch.ones(4, 8))
    assert weights[4].abs().sum() == 0


def test_the_gate_by_hand() -> None:
    fusion = GatedFusion(1)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.copy_(torch.tensor([1.0, 3.0, 4.0]).log())
    yes = torch.tensor([True])
    user, weights = fusion(torch.tensor([[8.0]]), torch.tensor([[16.0]]), torch.tensor([[32.0]]), yes, yes)
    torch.testing.assert_close(weights, torch.tensor([[[0.125], [0.375], [0.5]]]))
    torch.testing.assert_close(user, torch.tensor([[23.0]]))


class TestNextItemQuery:
    def test_at_a_position_ignores_all_later_events(self) -> None:
        network = tiny_network()
        before, after = batch_of(ANNA), batch_of(ANNA)
        after.micro_ids_BL[0, 2:] = 9
        after.micro_categories_BL[0, 2:] = 3
        after.macro_ids_BL[0, 2] = 9
        after.macro_categories_BL[0, 2] = 4
        straight, changed = (network.next_item_queries(network(batch), batch) for batch in (before, after))
        # Positions 0 and 1 see the app events 0 and 1 alone.
        torch.testing.assert_close(changed[:, :2], straight[:, :2], rtol=0, atol=0)
        assert not torch.allclose(changed[:, 2], straight[:, 2])

    def test_follows_the_app_event_before_its_target(self) -> None:
        network = tiny_network()
        before, after = batch_of(ANNA), batch_of(ANNA)
        after.asof_BL[0, 1] = 0
        straight, changed = (network.next_item_queries(network(batch), batch) for batch in (before, after))
        assert (changed - straight).abs().amax(2)[0].gt(1e-6).tolist() == [False, True, False, False]

    def test_without_app_events_is_the_normalized_item_state(self) -> None:
        network, batch = tiny_network(), batch_of(WITHOUT_MACRO)
        outputs = network(batch)
        torch.testing.assert_close(network.next_item_queries(outputs, batch), network.next_item.norm(outputs.micro_hidden_BLD))

    def test_of_the_whole_history_is_that_of_its_last_position(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA, BORIS)
        outputs = network(batch)
        queries = network.next_item_queries(outputs, batch)
        torch.testing.assert_close(network.last_query_BD(outputs, batch), torch.stack([queries[0, 3], queries[1, 1]]))

    def test_of_an_empty_history_still_knows_the_apps(self) -> None:
        fewer = User(macro=WITHOUT_MICRO.macro, asof=(0,), targets=(0,))
        assert torch.isfinite(query_of(NOBODY)).all()
        assert not torch.allclose(query_of(WITHOUT_MICRO), query_of(fewer), atol=1e-5)

    def test_ignores_the_apps_at_first(self) -> None:
        network = MacroMicroFusionNetwork(
            num_macro_ids=4,
            num_macro_categories=3,
            num_micro_ids=4,
            num_micro_categories=3,
            attribute_sizes=(),
            width=8,
            num_layers=1,
            num_heads=1,
            dropout=0.0,
            max_macro_length=4,
            max_micro_length=4,
            num_alignment_filters=1,
        )
        assert network.next_item.macro_gate == 0


def test_a_gradient_reaches_every_parameter() -> None:
    network = tiny_network()
    total_loss(network, batch_of(*EVERYBODY), TrainingConfig()).total.backward()
    unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unreached == []


def test_padding_embeddings_stay_zero() -> None:
    network = tiny_network()
    total_loss(network, batch_of(ANNA, NOBODY), TrainingConfig()).total.backward()
    for view in (network.macro, network.micro):
        assert not view.embedding.ids.weight[0].any()
        assert not view.embedding.ids.weight.grad[0].any()


def test_unknown_ids_are_read_like_any_other() -> None:
    known = User(macro=((2, 2, 10),), micro=((3, 2, 20),), asof=(0,), targets=(0,))
    unknown = User(macro=((1, 1, 10),), micro=((1, 1, 20),), asof=(0,), targets=(0,))
    outputs = outputs_of(known, unknown)
    assert torch.isfinite(outputs.user_BD).all()
    assert outputs.alignment_BGK[1].nonzero().tolist() == [[1, 1]]


def test_the_default_settings_give_the_shapes_of_the_paper() -> None:
    config = NetworkConfig()
    network = MacroMicroFusionNetwork(
        num_macro_ids=102,
        num_macro_categories=12,
        num_micro_ids=402,
        num_micro_categories=22,
        attribute_sizes=(2, 4),
        width=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
        max_macro_length=config.max_macro_length,
        max_micro_length=config.max_micro_length,
        num_alignment_filters=config.num_alignment_filters,
    )
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes["macro.embedding.ids.weight"] == (102, 200)
    assert shapes["micro.embedding.ids.weight"] == (402, 200)
    assert shapes["micro.layers.1.attention.queries_keys_values.weight"] == (600, 200)
    assert "micro.layers.2.attention.queries_keys_values.weight" not in shapes
    assert shapes["alignment.co_attention.affinity_DD"] == (200, 200)
    assert shapes["alignment.convolution.rows.weight"] == (16, 22)
    assert shapes["alignment.convolution.columns.weight"] == (16, 12)
    assert shapes["fusion.gate.weight"] == (600, 600)
    assert shapes["activity.layers.3.weight"] == (1, 200)
    assert [shapes[f"attributes.{attribute}.layers.3.weight"] for attribute in (0, 1)] == [(2, 200), (4, 200)]
