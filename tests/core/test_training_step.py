"""Adam by the row, against Adam on whole tables."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mfn_core.config import TrainingConfig
from mfn_core.training.averaging import WeightAverage
from mfn_core.training.step import Adam

CONFIG = TrainingConfig(learning_rate=0.1, gradient_clip=0.5, averaging=0.9)


class Pair(nn.Module):
    """A table of four rows, and something that is no table."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(4, 3, sparse=sparse)
        self.line = nn.Linear(3, 1)

    def forward(self, rows: Tensor) -> Tensor:
        return self.line(self.table(rows)).square().sum()


class Run:
    def __init__(self, *, sparse: bool) -> None:
        self.network = Pair(sparse=sparse)
        tables = [self.network.table.weight] if sparse else []
        self.average = WeightAverage(self.network, CONFIG.averaging, tables)
        self.adam = Adam(self.network, CONFIG, self.average, tables)

    def step(self, *rows: int) -> None:
        self.adam.step(self.network(torch.tensor(rows)))
        self.average.update()

    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.network.state_dict())

    def averages(self) -> dict[str, Tensor]:
        with self.average.applied():
            return self.weights()


@pytest.mark.parametrize("read", [Run.weights, Run.averages])
def test_where_all_rows_are_touched_it_is_adam_on_the_whole_table(read) -> None:
    sparse, dense = Run(sparse=True), Run(sparse=False)
    for _ in range(5):
        for run in (sparse, dense):
            run.step(3, 0, 1, 2, 2)
    torch.testing.assert_close(read(sparse), read(dense), rtol=1e-4, atol=1e-5)


def test_gradients_of_rows_and_of_the_rest_are_clipped_together() -> None:
    sparse, dense = Run(sparse=True), Run(sparse=False)
    for run in (sparse, dense):
        run.step(1, 1, 3)
    ours, theirs = sparse.network.table.weight.grad, dense.network.table.weight.grad
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours.to_dense(), theirs)
    assert torch.stack([each.grad.norm() for each in dense.network.parameters()]).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_a_row_that_is_not_touched_stands_still() -> None:
    run = Run(sparse=True)
    run.step(1, 2)
    before = run.weights()["table.weight"]
    run.step(2, 3)
    moved = (run.weights()["table.weight"] != before).any(1)
    assert moved.tolist() == [False, False, True, True]


def test_the_average_takes_in_rows_that_stand_still_too() -> None:
    run = Run(sparse=True)
    expected = run.weights()["table.weight"]
    for update, rows in enumerate([(0, 1), (2, 3), (2, 2), (0, 3)], start=1):
        run.step(*rows)
        expected.lerp_(run.weights()["table.weight"], 1 - min(CONFIG.averaging, (1 + update) / (10 + update)))
    torch.testing.assert_close(run.averages()["table.weight"], expected)


def test_it_goes_on_from_a_saved_state() -> None:
    straight, resumed = Run(sparse=True), Run(sparse=True)
    straight.step(1, 2)
    resumed.network.load_state_dict(straight.network.state_dict())
    resumed.adam.load_state_dict(copy.deepcopy(straight.adam.state_dict()))
    resumed.average.load_state_dict(copy.deepcopy(straight.average.state_dict()))
    for run in (straight, resumed):
        run.step(2, 3)
    assert all(torch.equal(weight, resumed.weights()[name]) for name, weight in straight.weights().items())
    assert all(torch.equal(weight, resumed.averages()[name]) for name, weight in straight.averages().items())


class Line(nn.Module):
    """A parameter that is made where it stays: a fake GPU moves none."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, device=device))


def adam_on(device: str) -> Adam:
    network = Line(device)
    return Adam(network, CONFIG, WeightAverage(network, CONFIG.averaging))


@pytest.mark.parametrize(("saved_on", "device"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_state_of_another_kind_of_device_leaves_the_steps_as_recordable_as_this_one_needs(saved_on: str, device: str) -> None:
    with FakeTensorMode():
        fresh, resumed = adam_on(device), adam_on(device)
        resumed.load_state_dict(adam_on(saved_on).state_dict())
    ours, theirs = (each.state_dict()["param_groups"] for each in (resumed, fresh))
    assert ours == theirs
    assert ours[0]["capturable"] is (device == "cuda")
