"""The losses, against naive formulas and numbers computed by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from mfn_core.config import TrainingConfig
from mfn_core.model.losses import (
    activity_loss,
    attribute_loss,
    joint_loss,
    mutual_information_loss,
    next_app_loss,
    next_item_loss,
    sequence_loss,
)
from mfn_core.model.scoring import ItemScores
from mfn_core.schema import UNKNOWN
from tests.batches import ANNA, BORIS, NOBODY, WITHOUT_MACRO, User, batch_of, tiny_network, tiny_paper_network

NAN = float("nan")


def dense(scores: ItemScores) -> torch.Tensor:
    """The naive way: the scores of all items at all positions."""
    return scores.query_PD @ scores.weight_ND.T + scores.bias_N


@pytest.mark.parametrize("make", [tiny_network, tiny_paper_network], ids=["default", "paper"])
class TestNextItem:
    def test_is_the_mean_over_all_positions_that_have_a_target(self, make) -> None:
        network, batch = make(), batch_of(ANNA, BORIS, NOBODY)
        encoded = network.encode(batch)
        scores = network.next_item_scores(encoded, batch, torch.tensor([0, 1, 2, 4]))  # three of Anna's, one of Boris's
        expected = functional.cross_entropy(dense(scores)[:, 2:], torch.tensor([6, 7, 2, 4]) - 2)
        torch.testing.assert_close(next_item_loss(network, encoded, batch), expected)

    @pytest.mark.parametrize("room", [4, 5, 12], ids=["just the targets", "more", "every position"])
    def test_room_for_more_than_the_targets_changes_nothing(self, make, room: int) -> None:
        network, batch = make(), batch_of(ANNA, BORIS, NOBODY)
        assert batch.targets_BL.numel() == 12
        encoded = network.encode(batch)
        counted, in_room = next_item_loss(network, encoded, batch), next_item_loss(network, encoded, batch, num_targets=room)
        torch.testing.assert_close(in_room, counted)
        table = network.micro.embedding.ids.weight
        gradients = [torch.autograd.grad(loss, table, retain_graph=True)[0] for loss in (in_room, counted)]
        torch.testing.assert_close(*gradients)

    def test_leaves_unknown_out_as_target_and_as_rival(self, make) -> None:
        network, batch = make(), batch_of(ANNA)
        batch.targets_BL[0, 1] = UNKNOWN
        encoded = network.encode(batch)
        scores = network.next_item_scores(encoded, batch, torch.tensor([0, 2]))
        loss = next_item_loss(network, encoded, batch)
        torch.testing.assert_close(loss, functional.cross_entropy(dense(scores)[:, 2:], torch.tensor([6, 2]) - 2))
        (gradient_ND,) = torch.autograd.grad(loss, scores.weight_ND)
        assert not gradient_ND[:2].any()


class TestNextApp:
    def test_is_the_mean_over_all_apps_but_the_first_of_each_user(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA, BORIS, NOBODY)
        encoded = network.encode(batch)
        scores = network.next_app_scores(encoded, torch.tensor([0, 1, 3]))  # Anna's 3 and 4, Boris's 2
        expected = functional.cross_entropy(dense(scores)[:, 2:], torch.tensor([3, 4, 2]) - 2)
        torch.testing.assert_close(next_app_loss(network, encoded, batch), expected)

    def test_leaves_unknown_apps_out(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        batch.macro_ids_BL[0, 1] = UNKNOWN
        encoded = network.encode(batch)
        scores = network.next_app_scores(encoded, torch.tensor([1]))
        torch.testing.assert_close(
            next_app_loss(network, encoded, batch), functional.cross_entropy(dense(scores)[:, 2:], torch.tensor([2]))
        )

    def test_without_apps_is_zero(self) -> None:
        network, batch = tiny_network(), batch_of(WITHOUT_MACRO)
        assert next_app_loss(network, network.encode(batch), batch) == 0


class TestActivity:
    def test_is_the_mean_over_labelled_users(self) -> None:
        logits = torch.tensor([0.0, 100.0, math.log(3.0)])
        loss = activity_loss(logits, torch.tensor([1.0, NAN, 0.0]))
        assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_without_labels_is_zero_with_zero_gradient(self) -> None:
        logits = torch.tensor([5.0, -5.0], requires_grad=True)
        loss = activity_loss(logits, torch.tensor([NAN, NAN]))
        loss.backward()
        assert loss == 0
        assert logits.grad.tolist() == [0, 0]


class TestAttribute:
    def test_is_the_mean_over_attributes_of_the_mean_over_labelled_users(self) -> None:
        logits = [torch.zeros(3, 2), torch.zeros(3, 4)]
        loss = attribute_loss(logits, torch.tensor([[0, -1], [1, -1], [-1, 3]]))
        assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_an_attribute_without_labels_counts_zero(self) -> None:
        loss = attribute_loss([torch.zeros(2, 2), torch.zeros(2, 4)], torch.tensor([[0, -1], [1, -1]]))
        assert loss.item() == pytest.approx(math.log(2) / 2)

    def test_without_attributes_is_zero(self) -> None:
        assert attribute_loss([], torch.empty(3, 0, dtype=torch.int64)) == 0


class TestMutualInformation:
    EVERYBODY = torch.tensor([True, True])
    VIEWS = torch.tensor([[2.0, 0.0], [0.0, 0.5]])

    def test_by_hand(self) -> None:
        # Cosines are the identity; with temperature 1/2 each direction of each user is -log(e^2 / (e^2 + 1)).
        loss = mutual_information_loss(self.VIEWS, self.VIEWS, torch.tensor([0, 1]), self.EVERYBODY, 0.5)
        assert loss.item() == pytest.approx(math.log1p(math.exp(-2)))

    def test_is_symmetric(self) -> None:
        torch.manual_seed(0)
        macro, micro, rows, everybody = torch.randn(4, 3), torch.randn(4, 3), torch.arange(4), torch.ones(4, dtype=torch.bool)
        forth = mutual_information_loss(macro, micro, rows, everybody, 0.2)
        torch.testing.assert_close(mutual_information_loss(micro, macro, rows, everybody, 0.2), forth)

    def test_a_second_row_of_the_same_user_is_no_rival(self) -> None:
        twice = self.VIEWS[[0, 0, 1]]
        loss = mutual_information_loss(twice, twice, torch.tensor([7, 7, 8]), torch.tensor([True] * 3), 0.5)
        # The user's two rows meet one rival each, the other user meets two.
        expected = (2 * math.log1p(math.exp(-2)) + math.log1p(2 * math.exp(-2))) / 3
        assert loss.item() == pytest.approx(expected)

    def test_leaves_out_users_without_both_views(self) -> None:
        views = torch.cat([self.VIEWS, torch.tensor([[1.0, 1.0]])])
        loss = mutual_information_loss(views, views, torch.arange(3), torch.tensor([True, True, False]), 0.5)
        assert loss.item() == pytest.approx(math.log1p(math.exp(-2)))

    @pytest.mark.parametrize("both_views", [[False, False], [True, False]])
    def test_with_fewer_than_two_users_is_zero_with_zero_gradient(self, both_views: list[bool]) -> None:
        views = self.VIEWS.clone().requires_grad_()
        loss = mutual_information_loss(views, views.flip(1), torch.tensor([0, 1]), torch.tensor(both_views), 0.5)
        loss.backward()
        assert loss == 0
        assert not views.grad.any()


class TestSequenceLoss:
    def test_is_the_weighted_sum_of_what_comes_next(self) -> None:
        result = sequence_loss(tiny_network(), batch_of(ANNA, BORIS), TrainingConfig(next_app_weight=2.0))
        torch.testing.assert_close(result.total, result.next_item + 2 * result.next_app)
        assert (result.activity, result.attribute, result.mutual_information) == (0, 0, 0)

    def test_knows_no_label(self) -> None:
        silent = replace(ANNA, activity=NAN, attributes=(-1, -1)), replace(BORIS, activity=NAN, attributes=(-1, -1))
        with_labels, without = (sequence_loss(tiny_network(), batch_of(*users), TrainingConfig()) for users in ((ANNA, BORIS), silent))
        assert torch.equal(with_labels.total, without.total)


class TestJointLoss:
    def test_is_the_weighted_sum(self) -> None:
        config = TrainingConfig(activity_weight=2.0, attribute_weight=3.0, mutual_information_weight=5.0)
        result = joint_loss(tiny_paper_network(), batch_of(ANNA, BORIS), config)
        expected = result.next_item + 2 * result.activity + 3 * result.attribute + 5 * result.mutual_information
        torch.testing.assert_close(result.total, expected)
        assert result.next_app == 0


@pytest.mark.parametrize(("make", "loss"), [(tiny_network, sequence_loss), (tiny_paper_network, joint_loss)], ids=["default", "paper"])
class TestTotal:
    def test_without_anything_to_learn_is_zero_and_trains_nothing(self, make, loss) -> None:
        network = make()
        unlabelled = User(micro=WITHOUT_MACRO.micro[:1], asof=(-1,), targets=(0,))
        total = loss(network, batch_of(unlabelled, NOBODY), TrainingConfig()).total
        total.backward()
        assert total == 0
        assert not any(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())

    def test_falls_when_trained(self, make, loss) -> None:
        network, batch, config = make().train(), batch_of(ANNA, BORIS, WITHOUT_MACRO), TrainingConfig()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        first = loss(network, batch, config).total.item()
        for _ in range(40):
            optimizer.zero_grad()
            loss(network, batch, config).total.backward()
            optimizer.step()
        assert loss(network, batch, config).total.item() < first / 4
