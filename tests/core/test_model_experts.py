"""Four ways to look at both views: of every user by itself, defined for every user, and each its own."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from mfn_core.model.affinity import CategoryAffinity
from mfn_core.model.alignment import AlignmentConvolution
from mfn_core.model.experts import (
    AlignmentExpert,
    ConcatenationExpert,
    Copies,
    CountExpert,
    NumberEncoding,
    ProductExpert,
    ReaderInput,
    Sizes,
    normalized,
    thinned,
)
from mfn_core.model.reader import reader_input
from tests.batches import ANNA, BORIS, EVERYBODY, NOBODY, User, batch_of, tiny_network

SIZES = Sizes(state_dim=16, num_macro_categories=5, num_micro_categories=5)
EXPERTS = {
    "counts": lambda: CountExpert(SIZES, num_members=3, width=4),
    "concatenation": lambda: ConcatenationExpert(SIZES, num_members=3, width=4, dropout=0.3),
    "product": lambda: ProductExpert(SIZES, num_members=3, width=4, dropout=0.3),
    "alignment": lambda: AlignmentExpert(SIZES, num_members=3, width=4, num_filters=2, dropout=0.3),
}


def input_of(*users: User) -> ReaderInput:
    network, batch = tiny_network(), batch_of(*users)
    return reader_input(network.evidence(network.encode(batch), batch), CategoryAffinity(8))


@pytest.mark.parametrize("name", EXPERTS)
class TestEveryExpert:
    def expert(self, name: str) -> nn.Module:
        torch.manual_seed(0)
        return EXPERTS[name]().eval()

    def test_permuted_users_give_permuted_voices(self, name: str) -> None:
        expert, order = self.expert(name), [3, 0, 4, 2, 1]
        straight, permuted = expert(input_of(*EVERYBODY)), expert(input_of(*(EVERYBODY[row] for row in order)))
        assert straight.shape == (3, 5, 4)
        torch.testing.assert_close(permuted, straight[:, order], rtol=0, atol=2e-6)

    def test_a_user_without_a_view_or_without_any_is_read_all_the_same(self, name: str) -> None:
        expert = self.expert(name)
        voices = expert(input_of(*EVERYBODY))
        assert torch.isfinite(voices).all()
        normalized(voices).square().sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in expert.parameters())

    def test_users_differ(self, name: str) -> None:
        voices = self.expert(name)(input_of(ANNA, BORIS, NOBODY))
        assert not torch.allclose(voices[:, 0], voices[:, 1])
        assert not torch.allclose(voices[:, 0], voices[:, 2])

    def test_members_are_copies_with_weights_of_their_own(self, name: str) -> None:
        expert = self.expert(name)
        before = expert(input_of(ANNA))
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter[1] += 1
        after = expert(input_of(ANNA))
        assert [torch.equal(after[member], before[member]) for member in range(3)] == [True, False, True]
        assert not torch.allclose(before[0], before[2])

    def test_every_member_has_its_own_dropout(self, name: str) -> None:
        expert = self.expert(name).train()
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter.copy_(parameter[:1].expand_as(parameter))
        torch.manual_seed(1)
        voices = expert(input_of(ANNA))
        assert not torch.allclose(voices[0], voices[1])
        expert.eval()
        voices = expert(input_of(ANNA))
        torch.testing.assert_close(voices[0], voices[1])


def test_copies_are_linear_layers_side_by_side() -> None:
    torch.manual_seed(0)
    copies, inputs_BX, inputs_RBX = Copies(2, 3, 4), torch.randn(5, 3), torch.randn(2, 5, 3)
    nn.init.normal_(copies.bias)
    for member in range(2):
        layer = (copies.weight[member].T, copies.bias[member, 0])
        torch.testing.assert_close(copies(inputs_BX)[member], functional.linear(inputs_BX, *layer))
        torch.testing.assert_close(copies(inputs_RBX)[member], functional.linear(inputs_RBX[member], *layer))


def test_thinned_counts_are_whole_numbers_with_a_fifth_less() -> None:
    torch.manual_seed(0)
    kept = thinned(torch.tensor([[0.0, 1.0, 10.0]]).expand(40_000, 3))
    assert torch.equal(kept, kept.round())
    assert (kept >= 0).all()
    assert (kept <= torch.tensor([0.0, 1.0, 10.0])).all()
    assert kept.mean(0).tolist() == pytest.approx([0, 0.8, 8], rel=0.02)


def test_the_alignment_expert_filters_the_alignment_of_the_source_beside_what_is_active_alone() -> None:
    torch.manual_seed(0)
    expert = AlignmentExpert(SIZES, num_members=1, width=20, num_filters=2, dropout=0.0).eval()
    convolution = AlignmentConvolution(num_macro_categories=5, num_micro_categories=5, num_filters=2)
    inputs = input_of(ANNA, BORIS)
    active_BGK = inputs.macro_share_BG[:, :, None] * inputs.micro_share_BK[:, None, :]
    for channel, matrix_BGK in enumerate((inputs.affinity_BGK * active_BGK, active_BGK)):
        with torch.no_grad():
            for mine, theirs in ((expert.rows, convolution.rows), (expert.columns, convolution.columns)):
                mine.zero_()
                mine[0, channel] = theirs.weight.T
            expert.output.weight[0] = torch.eye(20)
        torch.testing.assert_close(expert(inputs)[0], convolution(matrix_BGK))


def test_the_alignment_expert_filters_as_if_both_channels_were_written_down() -> None:
    torch.manual_seed(0)
    expert = AlignmentExpert(SIZES, num_members=3, width=4, num_filters=2, dropout=0.0).double().eval()
    macro_BG, micro_BK, affinity_BGK = (torch.rand(*shape, dtype=torch.float64) for shape in ((2, 5), (2, 5), (2, 5, 5)))
    shares_BGK = macro_BG[:, :, None] * micro_BK[:, None, :]
    channels = torch.stack([affinity_BGK * shares_BGK, shares_BGK], 1)
    rows = torch.einsum("bcgk,rckf->rbgf", channels, expert.rows).flatten(2)
    columns = torch.einsum("bcgk,rcgf->rbkf", channels, expert.columns).flatten(2)
    expected = expert.output(functional.gelu(torch.cat([rows, columns], 2)))
    inputs = SimpleNamespace(macro_share_BG=macro_BG, micro_share_BK=micro_BK, affinity_BGK=affinity_BGK)
    torch.testing.assert_close(expert(inputs), expected)


def test_the_product_expert_says_nothing_beside_a_view_that_says_nothing() -> None:
    expert = ProductExpert(SIZES, num_members=1, width=4, dropout=0.0).eval()
    nn.init.normal_(expert.output.bias)
    voices = expert(input_of(*EVERYBODY))[0]
    # Without biases in the factors yet, an absent view multiplies with zero.
    assert [torch.allclose(voice, expert.output.bias[0, 0]) for voice in voices] == [False, False, True, True, True]


def test_the_count_expert_reads_how_much_and_when_and_no_state() -> None:
    torch.manual_seed(0)
    expert, inputs = CountExpert(SIZES, num_members=1, width=4).eval(), input_of(ANNA)
    evidence = inputs.evidence
    before = expert(inputs)
    evidence.macro.state_BS.add_(1)
    assert torch.equal(expert(inputs), before)
    evidence.macro.volumes_BV.add_(1)
    assert not torch.allclose(expert(inputs), before)


class TestNumberEncoding:
    def fitted(self) -> NumberEncoding:
        # The first number runs from 0 to 16: a bin is 1 wide. The second is always 7; the third is scored but not binned.
        encoding = NumberEncoding(num_scored=3, num_binned=2)
        encoding.fit(torch.tensor([[float(value), 7.0, value % 2] for value in range(17)]))
        return encoding

    def test_by_hand(self) -> None:
        encoded = self.fitted()(torch.tensor([[2.25, 7.0, 1.0]]))
        mean, deviation = 8 / 17, (8 / 17 * 9 / 17) ** 0.5
        scores = [(2.25 - 8) / 24**0.5, 0, (1 - mean) / deviation]
        full, quarter, empty = 0.5, -0.25, -0.5
        torch.testing.assert_close(encoded, torch.tensor([[*scores, full, full, quarter, *[empty] * 13, *[0.0] * 16]]))
        assert encoded.shape == (1, NumberEncoding(3, 2).out_dim)

    def test_what_lies_outside_of_all_that_was_seen_stays_near(self) -> None:
        encoded = self.fitted()(torch.tensor([[1e6, -1e6, -1e6]]))[0]
        assert encoded[:3].tolist() == [4, -4, -4]
        assert encoded[3:19].tolist() == [0.5] * 16

    def test_is_saved_with_the_weights(self) -> None:
        other = NumberEncoding(3, 2)
        other.load_state_dict(self.fitted().state_dict())
        numbers = torch.tensor([[2.25, 6.0, 1.0]])
        assert torch.equal(other(numbers), self.fitted()(numbers))


def test_the_count_expert_bins_the_volumes() -> None:
    torch.manual_seed(0)
    expert, inputs = CountExpert(SIZES, num_members=1, width=4).eval(), input_of(*EVERYBODY)
    expert.fit_encoding(inputs)
    volumes = torch.cat([inputs.evidence.macro.volumes_BV, inputs.evidence.micro.volumes_BV], 1)
    torch.testing.assert_close(expert.encoding.edges_VE[:, 0], volumes.amin(0))
    torch.testing.assert_close(expert.encoding.edges_VE[:, -1], volumes.amax(0))
