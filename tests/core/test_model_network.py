"""Either network as a whole: shapes, absence, independence of users and of padding, nothing of the future; then what is its own."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.data.batching import collate
from mfn_core.data.histories import Histories
from mfn_core.model.builder import Network, build_network
from mfn_core.model.fusion import GatedFusion
from mfn_core.model.losses import Losses, joint_loss, sequence_loss
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.outputs import Outputs
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import UNKNOWN
from tests.batches import (
    ANNA,
    BORIS,
    EVERYBODY,
    NOBODY,
    WITHOUT_MACRO,
    WITHOUT_MICRO,
    User,
    batch_of,
    histories_of,
    tiny_network,
    tiny_paper_network,
)
from tests.factories import patterned_dataset

BOTH = pytest.mark.parametrize("make", [tiny_network, tiny_paper_network], ids=["default", "paper"])
PER_USER = ("alignment_BGK", "user_BD", "activity_logits_B")
OF_THE_PAPER = ("macro_attention_BG", "micro_attention_BK", "gate_B3D")


def loss_of(network: Network, *users: User) -> Losses:
    loss = sequence_loss if isinstance(network, MacroMicroFusionNetwork) else joint_loss
    return loss(network, batch_of(*users), TrainingConfig())


def said(outputs: Outputs) -> dict[str, Tensor]:
    """Everything that is said of each user."""
    names = PER_USER + (OF_THE_PAPER if hasattr(outputs, "gate_B3D") else ())
    attributes = {f"attribute {number}": logits for number, logits in enumerate(outputs.attribute_logits)}
    views = {name: getattr(outputs.encoded, name) for name in ("user_macro_BD", "user_micro_BD")}
    return {name: getattr(outputs, name) for name in names} | attributes | views


def dense(scores: ItemScores) -> Tensor:
    """The scores of all items [P, N]."""
    return (scores.query_PD @ scores.weight_ND.T + scores.bias_N).scatter_add(1, scores.gaining_PM, scores.gains_PM)


def last_scores(network: Network, *users: User, extra_padding: int = 0) -> Tensor:
    batch = batch_of(*users, extra_padding=extra_padding)
    return dense(network.last_item_scores(network.encode(batch), batch))


def all_scores(network: Network, batch) -> Tensor:
    """The scores at every micro position [B, L, N], as the loss asks for them."""
    positions = torch.arange(batch.micro_ids_BL.numel())
    return dense(network.next_item_scores(network.encode(batch), batch, positions)).unflatten(0, batch.micro_ids_BL.shape)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    "make", [tiny_network, tiny_paper_network, lambda: tiny_network(views=("micro",))], ids=["default", "paper", "micro alone"]
)
@pytest.mark.parametrize("prefix", ["validation", "test"])
def test_a_ranking_takes_the_scores_of_the_last_item(make, prefix) -> None:
    network, dataset = make(), patterned_dataset()
    limits = {"max_macro_length": network.macro.max_length, "max_micro_length": network.micro.max_length}
    rows = np.flatnonzero(dataset.held_out_B == 2)
    batch = collate(dataset.histories, rows, prefix=prefix, held_out_B=dataset.held_out_B, **limits)
    small = {"ids": 9, "categories": 4}  # what the tiny networks know
    for view in ("macro", "micro"):
        batch = replace(batch, **{f"{view}_{part}_BL": getattr(batch, f"{view}_{part}_BL").clamp(max=most) for part, most in small.items()})
    assert (batch.macro_lengths_B == 0).any()
    expected = dense(network.last_item_scores(network.encode(batch), batch))
    torch.testing.assert_close(dense(network.ranking_scores(batch)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("make", "teaches"), [(tiny_network, "next_app"), (tiny_paper_network, "activity")], ids=["default", "paper"])
def test_a_data_set_without_micro_view_teaches_all_the_same(make, teaches: str) -> None:
    losses = loss_of(make(num_micro_ids=2, num_micro_categories=2), WITHOUT_MICRO, WITHOUT_MICRO)
    assert getattr(losses, teaches) > 0


@BOTH
class TestEitherNetwork:
    def test_padding_changes_nothing(self, make) -> None:
        network = make()
        assert_same(said(network(batch_of(*EVERYBODY, extra_padding=5))), said(network(batch_of(*EVERYBODY))))
        padded, bare = (last_scores(network, *EVERYBODY, extra_padding=extra) for extra in (5, 0))
        torch.testing.assert_close(padded, bare, rtol=0, atol=2e-6)

    def test_a_user_is_the_same_alone_and_in_company(self, make) -> None:
        network = make()
        company = said(network(batch_of(*EVERYBODY)))
        for row, user in enumerate(EVERYBODY):
            assert_same(said(network(batch_of(user))), {name: tensor[row : row + 1] for name, tensor in company.items()})

    def test_permuted_users_give_permuted_outputs(self, make) -> None:
        network, order = make(), [3, 0, 4, 2, 1]
        straight = said(network(batch_of(*EVERYBODY)))
        permuted = said(network(batch_of(*(EVERYBODY[row] for row in order))))
        assert_same(permuted, {name: tensor[order] for name, tensor in straight.items()})

    def test_an_empty_history_gives_finite_outputs_and_gradients(self, make) -> None:
        network = make()
        assert all(torch.isfinite(tensor).all() for tensor in said(network(batch_of(*EVERYBODY))).values())
        losses = loss_of(network, *EVERYBODY)
        losses.total.backward()
        assert all(torch.isfinite(getattr(losses, field.name)) for field in fields(losses))
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)

    @pytest.mark.parametrize("users", [(NOBODY,), (NOBODY, NOBODY), (WITHOUT_MICRO,), (WITHOUT_MACRO, WITHOUT_MACRO)])
    def test_a_batch_that_lacks_a_view_trains(self, make, users: tuple[User, ...]) -> None:
        network = make()
        loss_of(network, *users).total.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)

    def test_a_data_set_without_macro_view_needs_no_macro_vocabulary(self, make) -> None:
        losses = loss_of(make(num_macro_ids=2, num_macro_categories=2), WITHOUT_MACRO, WITHOUT_MACRO)
        losses.total.backward()
        assert losses.next_item > 0

    def test_a_data_set_without_micro_view_needs_no_micro_vocabulary(self, make) -> None:
        network = make(num_micro_ids=2, num_micro_categories=2)
        losses = loss_of(network, WITHOUT_MICRO, WITHOUT_MICRO)
        losses.total.backward()
        assert losses.next_item == 0
        assert torch.isfinite(network(batch_of(WITHOUT_MICRO)).user_BD).all()

    def test_absent_views_have_no_alignment(self, make) -> None:
        matrices = make()(batch_of(*EVERYBODY)).alignment_BGK
        assert [bool(matrix.any()) for matrix in matrices] == [True, True, False, False, False]

    def test_absent_categories_have_no_alignment(self, make) -> None:
        # Anna's apps are of the categories 2 and 3, her items of 2 and 4.
        aligned = make()(batch_of(ANNA)).alignment_BGK[0].abs() > 0
        assert aligned.nonzero().tolist() == [[2, 2], [2, 4], [3, 2], [3, 4]]

    def test_unknown_ids_are_read_like_any_other(self, make) -> None:
        unknown = User(macro=((1, 1, 10),), micro=((1, 1, 20),), asof=(0,), targets=(0,))
        outputs = make()(batch_of(unknown))
        assert torch.isfinite(outputs.user_BD).all()
        assert outputs.alignment_BGK[0].nonzero().tolist() == [[1, 1]]

    def test_the_user_is_as_wide_as_the_network_says(self, make) -> None:
        network = make()
        assert network(batch_of(ANNA, NOBODY)).user_BD.shape == (2, network.user_width)

    def test_padding_embeddings_stay_zero(self, make) -> None:
        network = make()
        loss_of(network, ANNA, NOBODY).total.backward()
        for view in (network.macro, network.micro):
            assert not view.embedding.ids.weight[0].any()
            assert not view.embedding.ids.weight.grad[0].any()

    def test_scores_at_a_position_ignore_all_later_events(self, make) -> None:
        network = make()
        before, after = batch_of(ANNA), batch_of(ANNA)
        after.micro_ids_BL[0, 2:] = 9
        after.micro_categories_BL[0, 2:] = 3
        after.micro_times_BL[0, 2:] += 50
        after.macro_ids_BL[0, 2] = 9
        after.macro_categories_BL[0, 2] = 4
        after.macro_times_BL[0, 2] += 50
        straight, changed = (all_scores(network, batch) for batch in (before, after))
        # Positions 0 and 1 see the app events 0 and 1 alone.
        torch.testing.assert_close(changed[:, :2], straight[:, :2], rtol=0, atol=0)
        assert not torch.allclose(changed[:, 2], straight[:, 2])

    def test_scores_follow_the_app_event_before_their_target(self, make) -> None:
        network = make()
        before, after = batch_of(ANNA), batch_of(ANNA)
        after.asof_BL[0, 1] = 0
        straight, changed = (all_scores(network, batch) for batch in (before, after))
        assert (changed - straight).abs().amax(2)[0].gt(1e-6).tolist() == [False, True, False, False]

    def test_queries_without_app_events_are_the_normalized_item_states(self, make) -> None:
        network, batch = make(), batch_of(WITHOUT_MACRO)
        encoded = network.encode(batch)
        query_PD = network.next_item_scores(encoded, batch, torch.tensor([0, 1])).query_PD
        torch.testing.assert_close(query_PD, network.next_item.norm(encoded.micro_hidden_BLD[0]))

    def test_scores_of_the_whole_history_are_those_of_its_last_position(self, make) -> None:
        # But for the gains of the default network, which join after training.
        network, batch = make(), batch_of(ANNA, BORIS)
        encoded = network.encode(batch)
        whole, last = network.last_item_scores(encoded, batch), network.next_item_scores(encoded, batch, torch.tensor([3, 4 + 1]))
        torch.testing.assert_close(whole.query_PD, last.query_PD)
        assert whole.weight_ND is last.weight_ND

    def test_an_empty_history_still_knows_the_apps(self, make) -> None:
        network = make()
        fewer = replace(WITHOUT_MICRO, asof=(0,))
        assert torch.isfinite(last_scores(network, NOBODY)).all()
        assert not torch.allclose(last_scores(network, WITHOUT_MICRO), last_scores(network, fewer), atol=1e-5)


class TestDefaultNetwork:
    def test_the_sequence_loss_teaches_the_encoders_and_nothing_that_is_of_a_label(self) -> None:
        network = tiny_network()
        loss_of(network, *EVERYBODY).total.backward()
        reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None and parameter.grad.any()}
        taught = ("macro.", "micro.", "next_item.", "items.", "next_app.", "apps.")
        assert reached == {name for name, _ in network.named_parameters() if name.startswith(taught)}

    def test_an_epoch_changes_what_the_sequence_loss_teaches_and_the_shares_of_the_score(self) -> None:
        network = tiny_network()
        loss_of(network, *EVERYBODY).total.backward()
        taught = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        shares = {"blend.sharpness", "blend.popularity_share", "blend.shares_K"}
        assert network.state_dict().keys() - network.unchanged_names == taught | shares

    def test_the_labels_reach_every_part_of_every_reader(self) -> None:
        network = tiny_network()
        outputs = network(batch_of(*EVERYBODY))
        (outputs.activity_logits_B.sum() + sum(logits.square().sum() for logits in outputs.attribute_logits)).backward()
        unreached = {name for name, parameter in network.readers.named_parameters() if parameter.grad is None or not parameter.grad.any()}
        # The reader of ids alone has no use for a head.
        assert unreached == {name for name, _ in network.readers.named_parameters() if ".readers.1.head." in f".{name}"}

    def test_a_label_is_read_by_its_own_reader_alone(self) -> None:
        network = tiny_network()
        network(batch_of(ANNA, BORIS)).attribute_logits[0].square().sum().backward()
        touched = {name.split(".")[0] for name, parameter in network.readers.named_parameters() if parameter.grad is not None}
        assert touched == {"1"}

    def test_class_probabilities_sum_to_one(self) -> None:
        outputs = tiny_network()(batch_of(*EVERYBODY))
        for logits, classes in zip(outputs.attribute_logits, (2, 3), strict=True):
            torch.testing.assert_close(logits.exp().sum(1), torch.ones(5))
            assert logits.shape == (5, classes)

    def test_the_user_holds_both_views_and_what_each_reader_made_of_them(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        outputs = network(batch)
        torch.testing.assert_close(outputs.user_BD[:, :16], torch.cat([outputs.encoded.user_macro_BD, outputs.encoded.user_micro_BD], 1))
        assert network.user_width == 2 * 8 + 3 * 4 * 32

    def test_the_apps_are_ignored_at_first(self) -> None:
        dataset = patterned_dataset(6)
        network = build_network(NetworkConfig(width=8), dataset.vocabularies, {})
        assert network.next_item.macro_gate == 0

    def test_counts_are_those_of_events_that_are_not_held_out(self) -> None:
        network = tiny_network()
        macro, micro = histories_of([3, 3, 3, 4]), histories_of([5, 6, 7, 8, 9])
        network.count(Histories(np.array(["ann"], object), macro, micro, np.zeros(5, np.int32)), np.array([2], np.int8), may_return=False)
        assert network.successors.successors_NM[:, :2].tolist() == [[0, 0]] * 5 + [[6, 0], [7, 0]] + [[0, 0]] * 3
        assert network.neighbours.successors_NM[:, :2].tolist() == [[0, 0]] * 5 + [[6, 7], [7, 0]] + [[0, 0]] * 3
        items, apps = (head.bias.exp() / head.bias.exp().max() for head in (network.items, network.apps))
        # A third of the items each; what never occurs counts 1e-5 of the events.
        torch.testing.assert_close(items, torch.tensor([3e-5] * 5 + [1.0] * 3 + [3e-5] * 2), rtol=1e-3, atol=0)
        torch.testing.assert_close(apps[3:5], torch.tensor([1.0, 1 / 3]))
        torch.testing.assert_close(network.blend.log_popularity_N.exp(), torch.tensor([1e-5] * 5 + [1 / 3] * 3 + [1e-5] * 2))

    def test_items_and_apps_are_scored_by_the_embeddings_that_they_are_read_with(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        encoded = network.encode(batch)
        apps, items = network.next_app_scores(encoded, torch.tensor([1])), network.next_item_scores(encoded, batch, torch.tensor([1]))
        query_D = network.next_app(encoded.macro_hidden_BLD[0, 1])
        torch.testing.assert_close(dense(apps)[0], network.macro.embedding.ids.weight @ query_D + network.apps.bias)
        torch.testing.assert_close(dense(items)[0], network.micro.embedding.ids.weight @ items.query_PD[0] + network.items.bias)

    def test_what_has_followed_gains(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        scores = network.last_item_scores(network.encode(batch), batch)
        gained = torch.zeros(10).scatter_add(0, scores.gaining_PM[0], scores.gains_PM[0])
        # Anna ends in 7, 2; in the diary 3 and 4 come after 2, and 2 and 3 after 7.
        assert gained.nonzero().flatten().tolist() == [2, 3, 4]

    @pytest.mark.parametrize("after", [((UNKNOWN, 3, 9),), ((UNKNOWN, 3, 9), (UNKNOWN, 3, 9))])
    def test_what_follows_unknown_items_is_read_from_the_known_one_before_them(self, after) -> None:
        network = tiny_network()
        known = batch_of(User(micro=((5, 4, 1), (6, 2, 2)), asof=(-1, -1), targets=(6, 0)))
        more = batch_of(User(micro=((5, 4, 1), (6, 2, 2), *after), asof=(-1,) * (2 + len(after)), targets=(0,)))
        expected = dense(network.ranking_scores(known))
        torch.testing.assert_close(dense(network.ranking_scores(more)), expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(dense(network.last_item_scores(network.encode(more), more)), expected, rtol=0, atol=2e-6)

    def test_unknown_items_alone_are_as_none(self) -> None:
        network, strange = tiny_network(), batch_of(User(micro=((UNKNOWN, 3, 9),), asof=(-1,), targets=(0,)))
        expected = last_scores(network, NOBODY)
        torch.testing.assert_close(dense(network.last_item_scores(network.encode(strange), strange)), expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(dense(network.ranking_scores(strange)), expected, rtol=0, atol=2e-6)

    def test_the_sources_are_direct_successors_product_and_mixture(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        direct, product, mixture = network.gains(batch)
        # Anna ends in 7, 2: one list of four successors for the latest item, two for the two latest.
        assert (direct.items_BM.shape, product.items_BM.shape) == ((1, 4), (1, 8))
        named = mixture.items_BM[mixture.items_BM > 0].tolist()
        assert sorted(named) == sorted(set(product.items_BM[product.items_BM > 0].tolist()))

    @pytest.mark.parametrize(("read", "left_out"), [("micro", "macro"), ("macro", "micro")])
    def test_a_view_that_is_left_out_changes_nothing(self, read, left_out) -> None:
        network = tiny_network(views=(read,))
        known, other = batch_of(ANNA, BORIS), batch_of(ANNA, BORIS)
        valid_BL = getattr(other, f"{left_out}_ids_BL") > 0
        for part, value in (("ids_BL", 9), ("categories_BL", 4), ("times_BL", 60)):
            getattr(other, f"{left_out}_{part}")[valid_BL] = value
        assert_same(said(network(other)), said(network(known)))
        torch.testing.assert_close(all_scores(network, other), all_scores(network, known), rtol=0, atol=0)

    @pytest.mark.parametrize(("read", "left_out"), [("micro", "macro"), ("macro", "micro")])
    def test_a_view_that_is_left_out_is_as_empty(self, read, left_out) -> None:
        network = tiny_network(views=(read,))
        without = User(**{read: getattr(ANNA, read)}, asof=(-1,) if read == "macro" else (-1,) * 4, targets=(0,))
        first = said(network(batch_of(ANNA)))
        if read == "macro":
            without = replace(without, asof=(2,))  # what is asked about an empty history is asked of the apps
        assert_same(said(network(batch_of(without))), first)
        torch.testing.assert_close(last_scores(network, without), last_scores(network, ANNA), rtol=0, atol=1e-6)

    def test_every_view_that_is_read_matters(self) -> None:
        for views in (("macro",), ("micro",), ("macro", "micro")):
            network = tiny_network(views=views)
            for view in views:
                other = batch_of(ANNA)
                getattr(other, f"{view}_ids_BL")[0, 0] = 9
                assert not torch.allclose(network(other).activity_logits_B, network(batch_of(ANNA)).activity_logits_B, atol=1e-6)

    def test_ids_experts_and_classes_give_the_shapes(self) -> None:
        shapes = shapes_of(NetworkConfig(width=64))
        assert shapes["macro.embedding.ids.weight"] == (14, 64)
        assert (shapes["items.bias"], shapes["micro.embedding.ids.weight"]) == ((22,), (22, 64))
        assert build_network(NetworkConfig(width=64), patterned_dataset().vocabularies, {}).blend.shares_K.shape == (3,)
        # Counts, concatenation, product, alignment: a gate each.
        assert shapes["readers.1.readers.2.experts.gates.3.weight"] == (4, 4 * 32, 32)
        assert "readers.1.readers.2.experts.gates.4.weight" not in shapes
        assert shapes["readers.1.readers.1.ids.micro.weight"] == (22, 3)
        assert "readers.2.readers.0.bias" not in shapes

    @pytest.mark.parametrize(("switch", "experts", "gates"), [("product", 3, 3), ("alignment", 3, 3), ("gate", 4, 0)])
    def test_a_switch_takes_out_an_expert_or_the_gates(self, switch, experts, gates) -> None:
        dataset = patterned_dataset(6)
        network = build_network(NetworkConfig(width=8, **{switch: False}), dataset.vocabularies, dataset.attribute_classes)
        bold = network.label_readers[0].readers[2].experts
        assert (len(bold.experts), len(bold.gates)) == (experts, gates)


class TestPaperNetwork:
    def test_attention_is_spread_over_the_views_that_are_there(self) -> None:
        outputs = tiny_paper_network()(batch_of(*EVERYBODY))
        assert [round(total, 5) for total in outputs.macro_attention_BG.sum(1).tolist()] == [1, 1, 0, 1, 0]
        assert [round(total, 5) for total in outputs.micro_attention_BK.sum(1).tolist()] == [1, 1, 1, 0, 0]

    def test_one_view_alone_is_the_user_beside_a_note_of_what_is_absent(self) -> None:
        network = tiny_paper_network()
        outputs = network(batch_of(WITHOUT_MACRO, WITHOUT_MICRO))
        torch.testing.assert_close(outputs.user_BD[0], outputs.encoded.user_micro_BD[0] + network.fusion.absent_macro_D)
        torch.testing.assert_close(outputs.user_BD[1], outputs.encoded.user_macro_BD[1] + network.fusion.absent_micro_D)

    def test_a_user_without_events_is_a_learned_vector(self) -> None:
        network = tiny_paper_network()
        torch.testing.assert_close(network(batch_of(NOBODY)).user_BD[0], network.fusion.absent_macro_D + network.fusion.absent_micro_D)

    def test_gate_weights_sum_to_one_per_dimension(self) -> None:
        weights = tiny_paper_network()(batch_of(*EVERYBODY)).gate_B3D
        torch.testing.assert_close(weights.sum(1)[:4], torch.ones(4, 8))
        assert weights[4].abs().sum() == 0

    def test_the_gate_by_hand(self) -> None:
        fusion = GatedFusion(1)
        with torch.no_grad():
            fusion.gate.weight.zero_()
            fusion.gate.bias.copy_(torch.tensor([1.0, 3.0, 4.0]).log())
        yes = torch.tensor([True])
        user, weights = fusion(torch.tensor([[8.0]]), torch.tensor([[16.0]]), torch.tensor([[32.0]]), yes, yes)
        torch.testing.assert_close(weights, torch.tensor([[[0.125], [0.375], [0.5]]]))
        torch.testing.assert_close(user, torch.tensor([[23.0]]))

    def test_items_are_scored_with_the_embeddings_they_are_read_with(self) -> None:
        network, batch = tiny_paper_network(), batch_of(ANNA)
        scores = network.last_item_scores(network.encode(batch), batch)
        assert scores.weight_ND is network.micro.embedding.ids.weight
        assert not scores.bias_N.any()
        assert scores.gains_PM.shape == (1, 0)

    def test_a_gradient_reaches_every_parameter(self) -> None:
        network = tiny_paper_network()
        loss_of(network, *EVERYBODY).total.backward()
        unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert unreached == []

    def test_its_settings_give_the_shapes_of_the_paper(self) -> None:
        shapes = shapes_of(NetworkConfig(preset="paper"))
        assert shapes["macro.embedding.ids.weight"] == (14, 200)
        assert shapes["micro.embedding.ids.weight"] == (22, 200)
        assert shapes["micro.layers.1.attention.queries_keys_values.weight"] == (600, 200)
        assert "micro.layers.2.attention.queries_keys_values.weight" not in shapes
        assert shapes["alignment.co_attention.affinity_DD"] == (200, 200)
        assert shapes["alignment.convolution.rows.weight"] == (16, 6)
        assert shapes["alignment.convolution.columns.weight"] == (16, 6)
        assert shapes["fusion.gate.weight"] == (600, 600)
        assert shapes["activity.layers.3.weight"] == (1, 200)
        assert shapes["attributes.0.layers.3.weight"] == (3, 200)


def shapes_of(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Of a network for 12 apps in 4 categories, 20 items in 4 categories, and an attribute of three classes."""
    dataset = patterned_dataset()
    network = build_network(config, dataset.vocabularies, dataset.attribute_classes)
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
