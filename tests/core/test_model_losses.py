"""The losses, against naive formulas and numbers computed by hand."""

import math

import pytest
import torch
from torch.nn import functional

from mfn_core.config import TrainingConfig
from mfn_core.model import losses
from mfn_core.model.losses import (
    activity_loss,
    attribute_loss,
    catalogue_cross_entropy,
    mutual_information_loss,
    next_item_loss,
    total_loss,
)
from mfn_core.schema import UNKNOWN
from tests.batches import ANNA, BORIS, NOBODY, WITHOUT_MACRO, User, batch_of, tiny_network

NAN = float("nan")


class TestCatalogueCrossEntropy:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three positions of eleven items a chunk: seven positions take three chunks, the last one short."""
        monkeypatch.setattr(losses, "_MAX_LOGITS_PER_CHUNK", 3 * 11)

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        queries, items = torch.randn(7, 4, dtype=dtype, requires_grad=True), torch.randn(11, 4, dtype=dtype, requires_grad=True)
        return queries, items, torch.tensor([0, 10, 3, 3, 7, 0, 5])

    def test_equals_the_naive_loss(self) -> None:
        queries, items, targets = self.tensors(torch.float32)
        torch.testing.assert_close(catalogue_cross_entropy(queries, items, targets), functional.cross_entropy(queries @ items.T, targets))

    def test_equals_the_naive_gradients(self) -> None:
        queries, items, targets = self.tensors(torch.float32)
        naive = torch.autograd.grad(3 * functional.cross_entropy(queries @ items.T, targets), (queries, items))
        chunked = torch.autograd.grad(3 * catalogue_cross_entropy(queries, items, targets), (queries, items))
        torch.testing.assert_close(chunked, naive)

    def test_survives_logits_beyond_the_range_of_exp(self) -> None:
        queries, items, targets = self.tensors(torch.float32)
        loss = catalogue_cross_entropy(1000 * queries, items, targets)
        torch.testing.assert_close(loss, functional.cross_entropy(1000 * queries @ items.T, targets))

    def test_without_positions_is_zero_with_zero_gradient(self) -> None:
        queries, items, _ = self.tensors(torch.float32)
        loss = catalogue_cross_entropy(queries[:0], items, torch.tensor([], dtype=torch.int64))
        loss.backward()
        assert loss == 0
        assert not items.grad.any()

    def test_under_autocast_stays_close(self) -> None:
        queries, items, targets = self.tensors(torch.float32)
        exact = torch.autograd.grad(catalogue_cross_entropy(queries, items, targets), (queries, items))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = catalogue_cross_entropy(queries, items, targets)
        rounded = torch.autograd.grad(loss, (queries, items))
        assert loss.dtype == torch.float32
        assert [gradient.dtype for gradient in rounded] == [torch.float32, torch.float32]
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.005)

    def test_needs_no_gradient_in_evaluation(self) -> None:
        queries, items, targets = self.tensors(torch.float32)
        with torch.no_grad():
            loss = catalogue_cross_entropy(queries, items, targets)
        torch.testing.assert_close(loss, functional.cross_entropy(queries @ items.T, targets))


class TestNextItem:
    def test_is_the_mean_over_all_positions_that_have_a_target(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA, BORIS, NOBODY)
        outputs = network(batch)
        queries = network.next_item_queries(outputs, batch)
        learned = torch.stack([queries[0, 0], queries[0, 1], queries[0, 2], queries[1, 0]])
        scores = learned @ network.item_weight_ND.T
        expected = functional.cross_entropy(scores[:, 2:], torch.tensor([6, 7, 2, 4]) - 2)
        torch.testing.assert_close(next_item_loss(network, outputs, batch), expected)

    def test_leaves_unknown_out_as_target_and_as_rival(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        batch.targets_BL[0, 1] = UNKNOWN
        outputs = network(batch)
        loss = next_item_loss(network, outputs, batch)
        loss.backward()
        queries = network.next_item_queries(outputs, batch)[0, [0, 2]]
        torch.testing.assert_close(loss, functional.cross_entropy(queries @ network.item_weight_ND[2:].T, torch.tensor([6, 2]) - 2))
        assert not network.item_weight_ND.grad[:2].any()


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


class TestTotal:
    def test_is_the_weighted_sum(self) -> None:
        config = TrainingConfig(activity_weight=2.0, attribute_weight=3.0, mutual_information_weight=5.0)
        result = total_loss(tiny_network(), batch_of(ANNA, BORIS), config)
        expected = result.next_item + 2 * result.activity + 3 * result.attribute + 5 * result.mutual_information
        torch.testing.assert_close(result.total, expected)

    def test_without_any_label_is_zero_and_trains_nothing(self) -> None:
        network = tiny_network()
        unlabelled = User(micro=WITHOUT_MACRO.micro[:1], asof=(-1,), targets=(0,))
        total = total_loss(network, batch_of(unlabelled, NOBODY), TrainingConfig()).total
        total.backward()
        assert total == 0
        assert not any(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())

    def test_falls_when_trained(self) -> None:
        network, batch, config = tiny_network().train(), batch_of(ANNA, BORIS, WITHOUT_MACRO), TrainingConfig()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        first = total_loss(network, batch, config).total.item()
        for _ in range(30):
            optimizer.zero_grad()
            total_loss(network, batch, config).total.backward()
            optimizer.step()
        assert total_loss(network, batch, config).total.item() < first / 4
