"""What the readers see of a user, by hand."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch.nn import functional

from mfn_core.model.evidence import NUM_VOLUMES, Evidence, ViewEvidence, evidence_bytes, volumes
from tests.batches import ANNA, BORIS, EVERYBODY, NOBODY, User, batch_of, tiny_network

HOUR, DAY = 3600, 86_400


def evidence_of(*users: User, extra_padding: int = 0) -> Evidence:
    network, batch = tiny_network(), batch_of(*users, extra_padding=extra_padding)
    return network.evidence(network.encode(batch), batch)


def assert_same(found: Evidence, expected: Evidence) -> None:
    for view in ("macro", "micro"):
        for field in fields(ViewEvidence):
            pair = (getattr(getattr(evidence, view), field.name) for evidence in (found, expected))
            torch.testing.assert_close(*pair, rtol=0, atol=2e-6, msg=lambda text, name=f"{view} {field.name}": f"{name}: {text}")


class TestVolumes:
    def test_by_hand(self) -> None:
        # Ten days and twelve hours before the question; the third place is padding.
        times, valid = torch.tensor([[100, 100 + 10 * DAY - 12 * HOUR, 0]]), torch.tensor([[True, True, False]])
        said = volumes(times, valid, torch.tensor([100 + 10 * DAY]))
        once, twice, never = math.log(2) / 2, math.log(3) / 2, math.log(20 * 365 * 24 + 1) / 5
        amounts = [math.log(3) / 3, math.log(3) / 3]  # two events on two days
        since = [math.log(241) / 5, math.log(13) / 5, math.log(241) / 5, never, never]
        expected = [1, *amounts, *since, once, once, once, twice, twice, twice, twice, twice, twice]
        torch.testing.assert_close(said, torch.tensor([expected]))

    def test_events_of_one_day_are_one_day(self) -> None:
        # Days are counted back from the question: two events within its last 24 hours, one before.
        times, question = torch.tensor([[8 * DAY - 1, 8 * DAY + 1, 9 * DAY - 1]]), torch.tensor([9 * DAY])
        said = volumes(times, torch.ones(1, 3, dtype=torch.bool), question)
        assert said[0, 1:3].tolist() == pytest.approx([math.log(4) / 3, math.log(3) / 3])

    def test_last_days_count_to_the_second(self) -> None:
        question = torch.tensor([9 * DAY])
        on_the_edge, a_second_before = (volumes(torch.tensor([[8 * DAY - age]]), torch.tensor([[True]]), question) for age in (0, 1))
        assert (on_the_edge[0, 8] > 0, a_second_before[0, 8] > 0) == (True, False)

    def test_of_an_empty_history_are_zero(self) -> None:
        said = volumes(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.bool), torch.tensor([1_780_272_000]))
        assert said.tolist() == [[0] * NUM_VOLUMES]

    def test_depend_on_when_the_question_is_asked(self) -> None:
        network, batch = tiny_network(), batch_of(ANNA)
        later = replace(batch, query_time_B=batch.query_time_B + 30 * DAY)
        now, then = (network.evidence(network.encode(each), each) for each in (batch, later))
        assert now.macro.volumes_BV[0, 8] > then.macro.volumes_BV[0, 8] == 0
        assert torch.equal(now.macro.state_BS, then.macro.state_BS)


def test_states_are_the_normalized_latest_and_the_normalized_mean() -> None:
    network, batch = tiny_network(), batch_of(ANNA, BORIS)  # Boris's histories are padded
    encoded = network.encode(batch)
    state = network.evidence(encoded, batch).micro.state_BS[1]
    hidden = encoded.micro_hidden_BLD[1, :2]
    torch.testing.assert_close(state[:8], functional.layer_norm(hidden[1], (8,)))
    torch.testing.assert_close(state[8:], functional.layer_norm(hidden.mean(0), (8,)))


def _with_ids_of(evidence: Evidence, other: Evidence) -> Evidence:
    """The order of ids, and what stands between them, is arbitrary."""
    macro, micro = (
        replace(mine, met_BM=theirs.met_BM, met_weights_BM=theirs.met_weights_BM)
        for mine, theirs in ((evidence.macro, other.macro), (evidence.micro, other.micro))
    )
    return Evidence(macro, micro)


def test_padding_changes_nothing_but_the_list_of_ids() -> None:
    padded, bare = evidence_of(*EVERYBODY, extra_padding=4), evidence_of(*EVERYBODY)
    for view in ("macro", "micro"):
        assert sorted(set(getattr(padded, view).met_BM[0].tolist())) == sorted({0, *getattr(bare, view).met_BM[0].tolist()})
    assert_same(_with_ids_of(padded, bare), bare)


def test_categories_are_pooled_from_what_their_events_are_and_not_from_when() -> None:
    early = User(micro=((5, 4, 1), (6, 2, 2)), asof=(-1, -1), targets=(6,))
    late = User(micro=((6, 2, 90), (5, 4, 150)), asof=(-1, -1), targets=(5,))
    one, other = evidence_of(early).micro, evidence_of(late).micro
    torch.testing.assert_close(one.category_states_BCD, other.category_states_BCD)
    assert one.category_counts_BC.tolist() == [[0, 0, 1, 0, 1]]
    assert not torch.allclose(one.state_BS, other.state_BS)


def test_counts_and_recency_are_of_all_events_and_states_of_the_window() -> None:
    batch = batch_of(User(micro=((5, 4, 10 * DAY),), asof=(-1,), targets=(0,)))
    longer = replace(batch, micro_past_categories_BM=torch.tensor([[2, 4]]), micro_past_times_BM=torch.tensor([[DAY, 10 * DAY]]))
    network = tiny_network()
    window, whole = (network.evidence(network.encode(each), each).micro for each in (batch, longer))
    assert window.category_counts_BC.tolist() == [[0, 0, 0, 0, 1]]
    assert whole.category_counts_BC.tolist() == [[0, 0, 1, 0, 1]]
    torch.testing.assert_close(whole.volumes_BV, volumes(torch.tensor([[DAY, 10 * DAY]]), torch.ones(1, 2) > 0, batch.query_time_B))
    torch.testing.assert_close(whole.state_BS, window.state_BS)
    torch.testing.assert_close(whole.category_states_BCD, window.category_states_BCD)


def test_nobody_is_zero() -> None:
    nothing = evidence_of(NOBODY).macro
    assert not any(getattr(nothing, field.name).any() for field in fields(ViewEvidence))


def test_some_users_may_be_taken_in_any_order() -> None:
    assert_same(evidence_of(ANNA, BORIS).at(torch.tensor([1, 0])), evidence_of(BORIS, ANNA))


def test_a_table_is_filled_by_batches_of_unlike_length() -> None:
    few, many = evidence_of(BORIS, NOBODY), evidence_of(ANNA)
    joined = few.room(3).filled(torch.tensor([0, 1]), few).filled(torch.tensor([2]), many)
    together = evidence_of(BORIS, NOBODY, ANNA)
    assert joined.micro.met_BM.shape == (3, 4)
    assert [sorted(row) for row in joined.micro.met_BM.tolist()] == [sorted(row) for row in together.micro.met_BM.tolist()]
    assert_same(_with_ids_of(joined, together), together)


def test_its_size_is_told_before_it_is_there() -> None:
    evidence = evidence_of(ANNA)  # three apps, four items
    tensors = [getattr(view, field.name) for view in (evidence.macro, evidence.micro) for field in fields(ViewEvidence)]
    assert sum(tensor.nbytes for tensor in tensors) == evidence_bytes(width=8, num_categories=5 + 5, num_ids=3 + 4)


@pytest.mark.parametrize("moved", ["cpu", "to"])
def test_it_moves_whole(moved) -> None:
    evidence = evidence_of(ANNA)
    assert_same(evidence.cpu() if moved == "cpu" else evidence.to(torch.device("cpu")), evidence)
