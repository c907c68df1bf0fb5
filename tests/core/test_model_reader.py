"""One label read off the evidence: experts, gates, ids, and a blend of four readers."""

import pytest
import torch
from torch import nn

from mfn_core.model.affinity import CategoryAffinity
from mfn_core.model.evidence import Evidence
from mfn_core.model.experts import ReaderInput, Sizes, normalized
from mfn_core.model.reader import GatedExperts, IdScores, LabelReader, Reader, ReaderParts, reader_input
from tests.batches import ANNA, BORIS, EVERYBODY, NOBODY, User, batch_of, tiny_network

SIZES = Sizes(state_dim=16, num_macro_categories=5, num_micro_categories=5)
PARTS = ReaderParts(product=True, alignment=True, gate=True, num_filters=2)
COUNTS, IDS, EXPERTS, BOTH = range(4)


def evidence_of(*users: User) -> Evidence:
    network, batch = tiny_network(), batch_of(*users)
    return network.evidence(network.encode(batch), batch)


def input_of(*users: User) -> ReaderInput:
    return reader_input(evidence_of(*users), CategoryAffinity(8))


def label_reader(num_logits: int = 3) -> LabelReader:
    torch.manual_seed(0)
    reader = LabelReader(SIZES, PARTS, num_macro_ids=10, num_micro_ids=10, num_logits=num_logits).eval()
    for parameter in reader.parameters():  # heads, gates and ids start at zero
        nn.init.normal_(parameter, std=0.2)
    return reader


class TestGatedExperts:
    def test_start_as_the_equally_weighted_sum_of_the_experts(self) -> None:
        torch.manual_seed(0)
        experts, inputs = GatedExperts(SIZES, PARTS, only_counts=False).eval(), input_of(ANNA, BORIS)
        expected = 0.3 * sum(normalized(expert(inputs)) for expert in experts.experts)
        torch.testing.assert_close(experts(inputs), expected)

    def test_a_gate_opens_to_twice_the_voice_and_closes_to_nothing(self) -> None:
        torch.manual_seed(0)
        experts, inputs = GatedExperts(SIZES, PARTS, only_counts=True).eval(), input_of(ANNA)
        half_open = experts(inputs)
        with torch.no_grad():
            experts.gates[0].bias.fill_(50.0)
            torch.testing.assert_close(experts(inputs), 2 * half_open)
            experts.gates[0].bias.fill_(-50.0)
            assert not experts(inputs).abs().gt(1e-6).any()

    def test_without_gates_the_voices_are_summed(self) -> None:
        torch.manual_seed(0)
        experts = GatedExperts(SIZES, ReaderParts(product=True, alignment=True, gate=False, num_filters=2), only_counts=False).eval()
        inputs = input_of(ANNA)
        assert len(experts.gates) == 0
        torch.testing.assert_close(experts(inputs), 0.3 * sum(normalized(expert(inputs)) for expert in experts.experts))


class TestIdScores:
    def test_by_hand(self) -> None:
        # Anna's apps are 2, 3, 4; her items 5, 6, 7, 2.
        scores = IdScores(num_macro_ids=10, num_micro_ids=10, num_logits=1)
        with torch.no_grad():
            scores.macro.weight[:, 0] = torch.arange(10.0)
            scores.micro.weight[:, 0] = 100 * torch.arange(10.0)
        assert scores(evidence_of(ANNA, NOBODY)).tolist() == [[2 + 3 + 4 + 100 * (5 + 6 + 7 + 2)], [0]]

    def test_an_id_weighs_the_logarithm_of_how_often_it_was_met(self) -> None:
        scores = IdScores(num_macro_ids=10, num_micro_ids=10, num_logits=1)
        with torch.no_grad():
            scores.micro.weight[5] = 10
        met = (User(micro=((5, 2, 1),) * times, asof=(-1,) * times, targets=(0,)) for times in (1, 3, 7))
        assert scores(evidence_of(*met)).tolist() == [[10], [20], [30]]

    def test_padding_is_never_learned(self) -> None:
        scores = IdScores(num_macro_ids=10, num_micro_ids=10, num_logits=2)
        scores(evidence_of(BORIS, NOBODY)).sum().backward()
        assert not scores.macro.weight.grad[0].any()
        assert scores.macro.weight.grad[[2, 5]].all()

    def test_the_penalty_is_the_sum_of_squares(self) -> None:
        scores = IdScores(num_macro_ids=4, num_micro_ids=4, num_logits=1)
        with torch.no_grad():
            scores.macro.weight[2], scores.micro.weight[3] = 3, 4
        assert scores.squared_norm() == 25


class TestReader:
    def test_knows_the_class_shares_alone_at_first(self) -> None:
        torch.manual_seed(0)
        reader = Reader(GatedExperts(SIZES, PARTS, only_counts=False), None, num_logits=2).eval()
        with torch.no_grad():
            reader.bias.copy_(torch.tensor([0.25, 0.75]).log())
        logits, _ = reader(input_of(*EVERYBODY))
        torch.testing.assert_close(logits.softmax(2), torch.tensor([0.25, 0.75]).expand(4, 5, 2))

    def test_of_ids_alone_is_one_member_without_a_representation(self) -> None:
        reader = Reader(None, IdScores(num_macro_ids=10, num_micro_ids=10, num_logits=2), num_logits=2)
        logits, fused = reader(input_of(ANNA, BORIS))
        assert logits.shape == (1, 2, 2)
        assert fused is None

    def test_of_ids_alone_asks_for_no_affinity(self) -> None:
        class Unasked(CategoryAffinity):
            def forward(self, macro, micro):
                raise AssertionError

        reader = Reader(None, IdScores(num_macro_ids=10, num_micro_ids=10, num_logits=2), num_logits=2)
        assert reader(reader_input(evidence_of(ANNA), Unasked(8)))[0].shape == (1, 1, 2)

    def test_teaches_the_affinity_nothing(self) -> None:
        affinity = CategoryAffinity(8)
        reader = Reader(GatedExperts(SIZES, PARTS, only_counts=False), None, num_logits=2)
        logits, _ = reader(reader_input(evidence_of(ANNA), affinity))
        logits.sum().backward()
        assert affinity.weight_DD.grad is None

    def test_experts_and_ids_add_up(self) -> None:
        blend, inputs = label_reader(), input_of(ANNA)
        bold = blend.readers[BOTH]
        logits, _ = bold(inputs)
        with_experts, _ = Reader.forward(_without_ids(bold), inputs)
        torch.testing.assert_close(logits, with_experts + bold.ids(inputs.evidence))


def _without_ids(reader: Reader) -> Reader:
    alone = Reader(reader.experts, None, num_logits=3).eval()
    alone.bias, alone.head = reader.bias, reader.head
    return alone


class TestLabelReader:
    def test_probabilities_sum_to_one_for_everybody(self) -> None:
        log_probabilities_BC, _ = label_reader()(input_of(*EVERYBODY))
        assert log_probabilities_BC.shape == (5, 3)
        torch.testing.assert_close(log_probabilities_BC.exp().sum(1), torch.ones(5))

    @pytest.mark.parametrize("alone", [COUNTS, IDS, EXPERTS, BOTH])
    def test_a_share_of_one_leaves_one_reader(self, alone: int) -> None:
        reader, inputs = label_reader(), input_of(ANNA, BORIS)
        reader.blend_4.copy_(torch.eye(4)[alone])
        logits, _ = reader.readers[alone](inputs)
        torch.testing.assert_close(reader(inputs)[0].exp(), logits.softmax(2).mean(0))

    def test_probabilities_are_blended_and_not_their_logarithms(self) -> None:
        reader, inputs = label_reader(), input_of(ANNA, BORIS)
        reader.blend_4.copy_(torch.tensor([0.75, 0.25, 0.0, 0.0]))
        counts, ids = (reader.readers[which](inputs)[0].softmax(2).mean(0) for which in (COUNTS, IDS))
        torch.testing.assert_close(reader(inputs)[0].exp(), 0.75 * counts + 0.25 * ids)

    def test_starts_with_equal_shares(self) -> None:
        assert label_reader().blend_4.tolist() == [0.25] * 4

    def test_the_representation_is_that_of_all_experts_without_ids(self) -> None:
        reader, inputs = label_reader(), input_of(ANNA, BORIS)
        _, fused = reader.readers[EXPERTS](inputs)
        _, representation_BX = reader(inputs)
        assert representation_BX.shape == (2, 4 * 32)
        torch.testing.assert_close(representation_BX[1].unflatten(0, (4, 32)), fused[:, 1])

    def test_a_class_without_any_probability_has_a_finite_logarithm(self) -> None:
        reader, inputs = label_reader(), input_of(ANNA)
        with torch.no_grad():
            for each in reader.readers:
                each.bias.copy_(torch.tensor([0.0, 0.0, -1e9]))
        assert torch.isfinite(reader(inputs)[0]).all()


def test_the_input_thins_the_counts_for_training_alone() -> None:
    evidence, affinity = evidence_of(ANNA), CategoryAffinity(8)
    counts_BG = evidence.macro.category_counts_BC
    whole, thinned = (
        torch.stack([reader_input(evidence, affinity, thin=thin).macro_counts_BG for _ in range(30)]) for thin in (False, True)
    )
    assert torch.equal(whole, counts_BG.expand_as(whole))
    assert not torch.equal(thinned, counts_BG.expand_as(thinned))
