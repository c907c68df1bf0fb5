"""Pooling by category, co-attention, convolution: against numbers computed by hand."""

import math

import pytest
import torch

from mfn_core.model.alignment import (
    AlignmentConvolution,
    CategoryAlignment,
    CategoryPooling,
    CategorySummary,
    CoAttention,
    masked_softmax,
    root_share,
)
from mfn_core.schema import PAD, UNKNOWN


def summary(states: list[list[float]], counts: list[float]) -> CategorySummary:
    counts_BC = torch.tensor([counts])
    return CategorySummary(torch.tensor([states]), counts_BC, (counts_BC > 0).float())


class TestPooling:
    def test_the_rarest_categories_are_pooled_as_unknown(self) -> None:
        hidden = torch.tensor([[[1.0, 2.0], [3.0, 5.0], [6.0, 6.0], [9.0, 0.0], [0.0, 0.0]]])
        pooling = CategoryPooling(num_categories=3, width=2)
        pooled = pooling(hidden, torch.tensor([[2, 3, 1, 4000, PAD]]))  # 3 and 4000 have no row
        assert pooled.counts_BC.tolist() == [[0.0, 3.0, 1.0]]
        as_unknown = pooling(hidden, torch.tensor([[2, UNKNOWN, UNKNOWN, UNKNOWN, PAD]]))
        assert torch.equal(pooled.states_BCD, as_unknown.states_BCD)

    def test_is_the_normalized_mean_of_each_category(self) -> None:
        hidden = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [3.0, 0.0]]])
        pooled = CategoryPooling(num_categories=4, width=2)(hidden, torch.tensor([[2, 3, 2]]))
        # Means (2, 0) and (0, 3), each normalized to zero mean and unit variance.
        torch.testing.assert_close(
            pooled.states_BCD[0], torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, -1.0], [-1.0, 1.0]]), atol=1e-4, rtol=0
        )
        assert pooled.counts_BC.tolist() == [[0, 0, 2, 1]]
        assert pooled.presence_BC.tolist() == [[0, 0, 1, 1]]

    def test_leaves_padding_out_and_takes_unknown_in(self) -> None:
        pooled = CategoryPooling(num_categories=3, width=2)(torch.randn(1, 3, 2), torch.tensor([[1, 2, 0]]))
        assert pooled.counts_BC.tolist() == [[0, 1, 1]]
        assert pooled.states_BCD[0, 0].tolist() == [0, 0]

    def test_keeps_users_apart(self) -> None:
        hidden = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        pooled = CategoryPooling(num_categories=2, width=2)(hidden, torch.tensor([[1], [1]]))
        torch.testing.assert_close(pooled.states_BCD[:, 1], torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), atol=1e-4, rtol=0)


def test_the_root_share_by_hand() -> None:
    assert root_share(torch.tensor([[0.0, 1.0, 3.0, 12.0], [0.0, 0.0, 0.0, 0.0]])).tolist() == [
        [0.0, 0.25, pytest.approx(0.75**0.5 / 2), pytest.approx(0.75**0.5)],
        [0.0, 0.0, 0.0, 0.0],
    ]


class TestMaskedSoftmax:
    def test_spreads_over_the_present(self) -> None:
        weights = masked_softmax(torch.tensor([[0.0, 5.0, math.log(3.0)]]), torch.tensor([[1.0, 0.0, 1.0]]))
        torch.testing.assert_close(weights, torch.tensor([[0.25, 0.0, 0.75]]))

    def test_is_zero_in_value_and_gradient_where_all_are_absent(self) -> None:
        logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
        weights = masked_softmax(logits, torch.zeros(1, 2))
        weights.sum().backward()
        assert weights.tolist() == [[0, 0]]
        assert logits.grad.tolist() == [[0, 0]]


class TestCoAttention:
    def two_by_two(self) -> CoAttention:
        """W_b = I / sqrt(2) as it starts; W_g = I / 2, W_l = 2 I, w_g = w_l = (1, 0)."""
        attention = CoAttention(2)
        with torch.no_grad():
            attention.macro.weight.copy_(torch.eye(2) / 2)
            attention.micro.weight.copy_(2 * torch.eye(2))
            attention.macro_attention.weight.copy_(torch.tensor([[1.0, 0.0]]))
            attention.micro_attention.weight.copy_(torch.tensor([[1.0, 0.0]]))
        return attention

    def test_alignment_by_hand(self) -> None:
        macro = summary([[1.0, 0.0], [0.0, 2.0]], [1.0, 3.0])
        micro = summary([[1.0, 1.0], [-1.0, 0.0]], [2.0, 2.0])
        alignment, _, _ = self.two_by_two()(macro, micro)
        # T_g W_b T_l^T = [[1, -1], [2, 0]] / sqrt(2); activities sqrt(1/4), sqrt(3/4) and sqrt(1/2), sqrt(1/2).
        one, two = math.tanh(1 / math.sqrt(2)), math.tanh(2 / math.sqrt(2))
        low, high = math.sqrt(1 / 8), math.sqrt(3 / 8)
        torch.testing.assert_close(alignment, torch.tensor([[[one * low, -one * low], [two * high, 0.0]]]))

    def test_attention_by_hand(self) -> None:
        macro = summary([[1.0, 0.0], [0.0, 2.0]], [1.0, 3.0])
        micro = summary([[1.0, 1.0], [-1.0, 0.0]], [2.0, 2.0])
        _, macro_attention, micro_attention = self.two_by_two()(macro, micro)
        one, two = math.tanh(1 / math.sqrt(2)), math.tanh(2 / math.sqrt(2))
        # First coordinates of T_g W_g + C T_l W_l, then of T_l W_l + C^T T_g W_g.
        macro_logits = torch.tensor([[0.5 + 4 * one, 2 * two]]).tanh()
        micro_logits = torch.tensor([[2 + one / 2, -2 - one / 2]]).tanh()
        torch.testing.assert_close(macro_attention, macro_logits.softmax(1))
        torch.testing.assert_close(micro_attention, micro_logits.softmax(1))

    def test_an_absent_category_gets_neither_alignment_nor_attention(self) -> None:
        macro = summary([[1.0, 0.0], [5.0, 5.0], [0.0, 2.0]], [1.0, 0.0, 3.0])
        micro = summary([[1.0, 1.0], [9.0, 9.0]], [2.0, 0.0])
        alignment, macro_attention, micro_attention = self.two_by_two()(macro, micro)
        assert (alignment[0] != 0).tolist() == [[True, False], [False, False], [True, False]]
        assert macro_attention[0, 1] == 0
        assert macro_attention.sum().item() == pytest.approx(1)
        assert micro_attention.tolist() == [[1, 0]]

    def test_an_absent_category_changes_nothing_for_the_others(self) -> None:
        micro = summary([[1.0, 1.0], [-1.0, 0.0]], [2.0, 2.0])
        _, macro_attention, micro_attention = self.two_by_two()(summary([[1.0, 0.0], [0.0, 2.0]], [1.0, 3.0]), micro)
        wider = summary([[1.0, 0.0], [0.0, 2.0], [5.0, -5.0]], [1.0, 3.0, 0.0])
        _, wider_macro_attention, wider_micro_attention = self.two_by_two()(wider, micro)
        torch.testing.assert_close(wider_macro_attention[:, :2], macro_attention)
        torch.testing.assert_close(wider_micro_attention, micro_attention)


class TestConvolution:
    def test_filters_whole_rows_and_whole_columns(self) -> None:
        convolution = AlignmentConvolution(num_macro_categories=2, num_micro_categories=3, num_filters=1)
        with torch.no_grad():
            convolution.rows.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
            convolution.columns.weight.copy_(torch.tensor([[1.0, 10.0]]))
        answers = convolution(torch.tensor([[[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]]]))
        torch.testing.assert_close(answers, torch.nn.functional.gelu(torch.tensor([[32.1, 0.0, 0.1, 0.2, 0.3]])))

    def test_equals_a_convolution_with_kernels_as_wide_as_the_matrix(self) -> None:
        torch.manual_seed(0)
        convolution = AlignmentConvolution(num_macro_categories=4, num_micro_categories=3, num_filters=2)
        matrix = torch.randn(5, 4, 3)
        rows = torch.nn.functional.conv2d(matrix[:, None], convolution.rows.weight[:, None, None, :])
        columns = torch.nn.functional.conv2d(matrix[:, None], convolution.columns.weight[:, None, :, None])
        expected = torch.cat([rows.squeeze(3).mT, columns.squeeze(2).mT], 1).flatten(1)
        torch.testing.assert_close(convolution(matrix), torch.nn.functional.gelu(expected))


def test_renumbering_the_categories_of_a_view_permutes_its_alignment() -> None:
    torch.manual_seed(0)
    alignment = CategoryAlignment(num_macro_categories=4, num_micro_categories=4, width=8, num_filters=2).eval()
    macro_hidden, micro_hidden = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    micro_categories = torch.tensor([[2, 3, 3]])
    named = alignment(macro_hidden, torch.tensor([[1, 2, 3]]), micro_hidden, micro_categories)
    renamed = alignment(macro_hidden, torch.tensor([[3, 1, 2]]), micro_hidden, micro_categories)
    torch.testing.assert_close(renamed.matrix_BGK[:, [0, 3, 1, 2]], named.matrix_BGK)
    torch.testing.assert_close(renamed.macro_attention_BG[:, [0, 3, 1, 2]], named.macro_attention_BG)


def test_the_attention_vectors_reach_the_alignment_vector() -> None:
    torch.manual_seed(0)
    alignment = CategoryAlignment(num_macro_categories=4, num_micro_categories=4, width=8, num_filters=2)
    aligned = alignment(torch.randn(1, 3, 8), torch.tensor([[1, 2, 3]]), torch.randn(1, 3, 8), torch.tensor([[2, 3, 3]]))
    aligned.vector_BD.square().sum().backward()
    assert alignment.co_attention.macro_attention.weight.grad.abs().max() > 0
    assert alignment.co_attention.micro_attention.weight.grad.abs().max() > 0
