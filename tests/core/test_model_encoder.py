"""One view: what an event knows, and what it must not know."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from mfn_core.model import attention
from mfn_core.model.attention import SelfAttention, attend_blockwise, attend_fused
from mfn_core.model.dropout import ByteDropout
from mfn_core.model.embedding import _UnsortedRows, gap_boundaries, gap_buckets, rows_of
from mfn_core.model.encoder import TransformerLayer, ViewEncoder
from mfn_core.model.rotary import RotaryPosition, as_pairs, neighbours, rotate_into
from mfn_core.model.rounded import pass_rounded


def encoder(max_length: int = 6) -> ViewEncoder:
    torch.manual_seed(0)
    shape = {"width": 8, "num_layers": 2, "num_heads": 2, "feed_forward_factor": 4, "max_length": max_length}
    return ViewEncoder(num_ids=9, num_categories=5, dropout=0.0, **shape).eval()


def encode(ids: list[int], categories: list[int], times: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return encoder()(torch.tensor([ids]), torch.tensor([categories]), torch.tensor([times]), torch.tensor([length]))


def test_gap_buckets_are_logarithmic_and_look_back() -> None:
    assert gap_buckets(torch.tensor([[100, 100, 101, 103, 107, 107 + 86_400]]), gap_boundaries()).tolist() == [[0, 1, 2, 3, 4, 18]]


def test_a_gap_of_centuries_and_a_padded_time_stay_in_the_table() -> None:
    assert gap_buckets(torch.tensor([[0, 2**40, 0]]), gap_boundaries()).tolist() == [[0, 33, 1]]


@pytest.mark.parametrize("changed", ["id", "category", "time"])
def test_an_event_leaves_the_states_before_it_unchanged(changed: str) -> None:
    ids, categories, times = [2, 3, 4, 5], [2, 2, 3, 4], [10, 20, 30, 40]
    before, _ = encode(ids, categories, times, 4)
    if changed == "id":
        ids = [2, 3, 8, 5]
    elif changed == "category":
        categories = [2, 2, 4, 4]
    else:
        times = [10, 20, 39, 40]
    after, _ = encode(ids, categories, times, 4)
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-4)
    assert not torch.allclose(after[:, 3], before[:, 3], atol=1e-6)


def test_an_event_leaves_the_states_before_it_as_if_it_had_never_come() -> None:
    longer, _ = encode([2, 3, 4, 5], [2, 2, 3, 4], [10, 20, 30, 40], 4)
    shorter, _ = encode([2, 3], [2, 2], [10, 20], 2)
    torch.testing.assert_close(longer[:, :2], shorter, rtol=0, atol=1e-6)


def test_padding_changes_nothing() -> None:
    bare, bare_user = encode([2, 3], [2, 3], [10, 20], 2)
    padded, padded_user = encode([2, 3, 0, 0], [2, 3, 0, 0], [10, 20, 0, 0], 2)
    torch.testing.assert_close(padded[:, :2], bare, rtol=0, atol=1e-6)
    torch.testing.assert_close(padded_user, bare_user, rtol=0, atol=1e-6)


def test_what_stands_in_the_padding_changes_nothing() -> None:
    _, clean = encode([2, 3, 0, 0], [2, 3, 0, 0], [10, 20, 0, 0], 2)
    _, dirty = encode([2, 3, 7, 8], [2, 3, 4, 4], [10, 20, 99, 5], 2)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


def test_the_view_is_the_state_of_the_latest_event() -> None:
    hidden, user = encode([2, 3, 4, 0], [2, 3, 4, 0], [10, 20, 30, 0], 3)
    torch.testing.assert_close(user, hidden[:, 2])


def test_an_empty_history_is_zero() -> None:
    _, user = encode([0], [0], [0], 0)
    assert not user.any()


def test_the_latest_state_alone_is_that_of_the_whole() -> None:
    ids = torch.tensor([[2, 3, 4, 5], [6, 2, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]])
    batch = (ids, ids.clamp(max=4), ids.cumsum(1) * 60, torch.tensor([4, 2, 1, 0]))
    torch.testing.assert_close(encoder().latest(*batch), encoder()(*batch)[1], rtol=0, atol=1e-6)


def test_a_view_that_nobody_has_events_of_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = encoder()
    monkeypatch.setattr(empty.embedding, "forward", lambda *_: pytest.fail("embedded nothing"))
    user = empty.latest(*(torch.zeros(2, 1, dtype=torch.int64),) * 3, torch.tensor([0, 0]))
    assert user.tolist() == [[0.0] * 8] * 2


def test_the_latest_state_alone_is_not_for_training() -> None:
    with pytest.raises(AssertionError, match="nothing is dropped out here"):
        encoder().train().latest(*(torch.tensor([[2]]),) * 3, torch.tensor([1]))


def test_the_order_of_events_matters() -> None:
    _, forth = encode([2, 3, 4], [2, 2, 2], [10, 10, 10], 3)
    _, back = encode([3, 2, 4], [2, 2, 2], [10, 10, 10], 3)
    assert not torch.allclose(forth, back, atol=1e-5)


@pytest.mark.parametrize("padding_idx", [None, 0])
def test_rows_added_as_they_come_are_those_of_torch(padding_idx: int | None) -> None:
    table = torch.randn(5, 4, requires_grad=True)
    ids = torch.tensor([[0, 3, 3], [4, 0, 3]])
    mine, torchs = _UnsortedRows.apply(table, ids, padding_idx), rows_of(table, ids, padding_idx)
    assert torch.equal(mine, torchs)
    weight = torch.randn(2, 3, 4)
    gradients = [torch.autograd.grad((weight * rows).sum(), table)[0] for rows in (mine, torchs)]
    torch.testing.assert_close(*gradients)
    assert gradients[0][0].any() == (padding_idx is None)


def test_a_history_longer_than_the_limit_is_a_programming_error() -> None:
    with pytest.raises(AssertionError, match=r"7 events exceed.* 6"):
        encode([2] * 7, [2] * 7, list(range(7)), 7)


def turned(vectors: torch.Tensor, position: RotaryPosition) -> torch.Tensor:
    """As ``rotate_into`` writes it, in a way that autograd knows."""
    cosines, sines = position.of_first(vectors.shape[-2], vectors.dtype)
    first, second = vectors.chunk(2, -1)
    result = torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)
    written = torch.empty_like(result)
    rotate_into(vectors.detach(), cosines, sines, written)
    torch.testing.assert_close(written, result)
    return result


def test_attention_knows_distances_and_not_where_the_window_begins() -> None:
    torch.manual_seed(0)
    position = RotaryPosition(head_width=4, max_length=9)
    query, key = (turned(torch.randn(1, 4).expand(1, 9, 4), position) for _ in range(2))
    products = (query @ key.mT)[0]
    torch.testing.assert_close(products[5, 3], products[2, 0])
    assert not torch.isclose(products[5, 3], products[5, 2])


def test_rotation_by_hand() -> None:
    # One pair: at position 1 the vector (1, 0) turns by one radian.
    position, vectors = RotaryPosition(head_width=2, max_length=2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    torch.testing.assert_close(turned(vectors, position), torch.tensor([[[1.0, 0.0], [math.cos(1), math.sin(1)]]]))


def test_what_is_turned_back_is_what_it_was() -> None:
    position, vectors, back = RotaryPosition(head_width=4, max_length=5), torch.randn(2, 5, 4), torch.empty(2, 5, 4)
    rotate_into(turned(vectors, position), position.cosines_LW, position.sines_LW, back, back=True)
    torch.testing.assert_close(back, vectors)


def test_neighbours_bring_the_two_of_a_pair_side_by_side() -> None:
    # Two heads of width 4: the first half of a head and its second make the pairs.
    assert neighbours(4, 2, torch.device("cpu")).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_pair_turns_as_one_complex_number() -> None:
    # At position 1 the vector (1, 0) turns by one radian, as above.
    turns = RotaryPosition(head_width=2, max_length=2).turns(2)
    pairs = torch.view_as_real(as_pairs(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) * turns).flatten(1)
    torch.testing.assert_close(pairs, torch.tensor([[1.0, 0.0], [math.cos(1), math.sin(1)]]))


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 1.3e-6, 1e-5), (torch.bfloat16, 0.05, 0.02)])
class TestAttentionWithoutGradients:
    """Another way through the same weights: it answers as the way of training does."""

    POSITION = RotaryPosition(head_width=4, max_length=9)

    def test_of_every_event(self, dtype: torch.dtype, rtol: float, atol: float) -> None:
        torch.manual_seed(0)
        layer, states = SelfAttention(width=8, num_heads=2).to(dtype), torch.randn(3, 5, 8, dtype=dtype)
        expected = layer(states, self.POSITION)
        with torch.inference_mode():
            answered = layer(states, self.POSITION)
        assert answered.dtype == dtype
        torch.testing.assert_close(answered, expected, rtol=rtol, atol=atol)

    def test_of_one_event(self, dtype: torch.dtype, rtol: float, atol: float) -> None:
        torch.manual_seed(0)
        layer, states = SelfAttention(width=8, num_heads=2).to(dtype), torch.randn(3, 5, 8, dtype=dtype)
        expected = layer(states, self.POSITION)[torch.arange(3), torch.tensor([4, 0, 2])]
        answered = layer.of_event(states, torch.tensor([4, 0, 2]), self.POSITION)
        assert answered.dtype == dtype
        torch.testing.assert_close(answered, expected, rtol=rtol, atol=atol)


WAYS = pytest.mark.parametrize("attend", [attend_blockwise, attend_fused])


def textbook(projected_BLX: torch.Tensor, num_heads: int, position: RotaryPosition) -> torch.Tensor:
    """Head by head, with the full matrix of weights."""
    queries, keys, values = projected_BLX.chunk(3, 2)
    later = torch.full((projected_BLX.shape[1],) * 2, -torch.inf).triu(1)
    attended = []
    for query, key, value in zip(*(tensor.chunk(num_heads, 2) for tensor in (queries, keys, values)), strict=True):
        logits = turned(query, position) @ turned(key, position).mT / query.shape[2] ** 0.5
        attended.append(functional.softmax(logits + later, -1) @ value)
    return torch.cat(attended, 2)


@WAYS
class TestAttention:
    POSITION = RotaryPosition(head_width=4, max_length=9)

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two users of two heads and five events a block: three users take two."""
        monkeypatch.setattr(attention, "_MAX_SCORES_PER_BLOCK", 2 * 2 * 5 * 5)

    def projected(self) -> torch.Tensor:
        """Queries, keys and values of three users, five events and two heads."""
        torch.manual_seed(0)
        return torch.randn(3, 5, 3 * 8, requires_grad=True)

    def test_equals_the_textbook(self, attend) -> None:
        projected = self.projected()
        torch.testing.assert_close(attend(projected, 2, self.POSITION), textbook(projected, 2, self.POSITION))

    def test_equals_the_gradient_of_the_textbook(self, attend) -> None:
        projected, weight = self.projected(), torch.randn(3, 5, 8)
        mine, exact = (torch.autograd.grad((weight * way(projected, 2, self.POSITION)).sum(), projected)[0] for way in (attend, textbook))
        torch.testing.assert_close(mine, exact)

    def test_in_bfloat16_stays_close(self, attend) -> None:
        projected = self.projected()
        attended = attend(projected.bfloat16(), 2, self.POSITION)
        assert attended.dtype == torch.bfloat16
        torch.testing.assert_close(attended.float(), textbook(projected, 2, self.POSITION), rtol=0.05, atol=0.02)


def test_the_fused_attention_is_never_cudnns(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []
    fused = functional.scaled_dot_product_attention

    def told(*arguments, **settings) -> torch.Tensor:
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return fused(*arguments, **settings)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", told)
    attend_fused(torch.randn(2, 3, 3 * 8), 2, RotaryPosition(head_width=4, max_length=3))
    assert allowed == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled()


class TestRoundedLayers:
    POSITION = RotaryPosition(head_width=4, max_length=9)

    def layers(self) -> nn.ModuleList:
        torch.manual_seed(0)
        made = (TransformerLayer(width=8, num_heads=2, feed_forward_factor=4, dropout=0.2) for _ in range(2))
        return nn.ModuleList(made).eval()

    def answer(self, passed) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        layers, states = self.layers(), torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = passed(layers, states.bfloat16(), self.POSITION)
        assert states.dtype == torch.bfloat16
        (states.float() * torch.linspace(-1, 1, 8)).sum().backward()
        return states, {name: weight.grad for name, weight in layers.named_parameters()}

    def test_answer_and_learn_as_they_do_by_autocast(self) -> None:
        def one_by_one(layers: nn.ModuleList, states: torch.Tensor, position: RotaryPosition) -> torch.Tensor:
            for layer in layers:
                states = layer(states, position)
            return states

        (states, gradients), (expected, exact) = self.answer(pass_rounded), self.answer(one_by_one)
        torch.testing.assert_close(states, expected, rtol=0.02, atol=0.02)
        assert gradients.keys() == exact.keys()
        for name, gradient in gradients.items():
            assert gradient.dtype == torch.float32, name
            assert (gradient - exact[name]).norm() < 0.03 * exact[name].norm(), name

    def test_keep_their_own_weights(self) -> None:
        layers = self.layers()
        before = dict(layers.named_parameters())
        pass_rounded(layers, torch.randn(1, 2, 8).bfloat16(), self.POSITION)
        assert all(weight is before[name] for name, weight in layers.named_parameters())


class TestByteDropout:
    def test_drops_its_share_and_keeps_the_mean(self) -> None:
        torch.manual_seed(0)
        dropped = ByteDropout(0.2)(torch.ones(100_001))
        assert (dropped == 0).float().mean().item() == pytest.approx(51 / 256, abs=0.005)
        assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
        assert dropped.unique().tolist() == pytest.approx([0.0, 256 / 205])

    def test_passes_gradients_where_it_kept(self) -> None:
        values = torch.ones(64, requires_grad=True)
        dropped = ByteDropout(0.5)(values)
        dropped.sum().backward()
        assert torch.equal(values.grad, dropped)

    def test_adds_to_a_residual_what_it_keeps(self) -> None:
        residual, values = torch.randn(64), torch.randn(64)
        torch.manual_seed(3)
        added = ByteDropout(0.5).added(residual, values)
        torch.manual_seed(3)
        torch.testing.assert_close(added, residual + ByteDropout(0.5)(values))

    def test_is_silent_in_evaluation(self) -> None:
        values = torch.randn(16)
        assert ByteDropout(0.5).eval()(values) is values

    def test_is_drawn_from_the_global_generator(self) -> None:
        torch.manual_seed(3)
        first = ByteDropout(0.5)(torch.ones(64))
        torch.manual_seed(3)
        assert torch.equal(ByteDropout(0.5)(torch.ones(64)), first)

    def test_large_tensors_drop_others_each_time(self) -> None:
        first, second = (ByteDropout(0.5)(torch.ones(70_000)) for _ in range(2))
        assert (first == second).float().mean().item() == pytest.approx(0.5, abs=0.01)

    def test_a_large_tensor_is_drawn_from_the_global_generator(self) -> None:
        torch.manual_seed(3)
        first = ByteDropout(0.5)(torch.ones(70_000))
        ByteDropout(0.5)(torch.ones(300_000))
        torch.manual_seed(3)
        assert torch.equal(ByteDropout(0.5)(torch.ones(70_000)), first)

    def test_never_drops_everything(self) -> None:
        assert ByteDropout(0.9999)(torch.ones(100_000)).isfinite().all()
