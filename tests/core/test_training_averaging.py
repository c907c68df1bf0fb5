"""The moving average of the weights, by hand."""

import copy

import pytest
from torch import nn

from mfn_core.training.averaging import WeightAverage


def at(network: nn.Linear, value: float) -> nn.Linear:
    nn.init.constant_(network.weight, value)
    return network


@pytest.fixture
def network() -> nn.Linear:
    return at(nn.Linear(1, 1, bias=False), 0.0)


def average_of(average: WeightAverage, network: nn.Linear) -> float:
    with average.applied():
        return network.weight.item()


def test_early_updates_decay_faster(network):
    average = WeightAverage(network, 0.99)
    at(network, 11.0)
    average.update()
    assert average_of(average, network) == pytest.approx(9)  # decay 2 / 11: 0 + 9/11 of 11
    at(network, 17.0)
    average.update()
    assert average_of(average, network) == pytest.approx(15)  # decay 3 / 12: 9 + 3/4 of 8


def test_later_updates_decay_as_set(network):
    average = WeightAverage(network, 0.1)
    at(network, 10.0)
    average.update()
    assert average_of(average, network) == pytest.approx(9)


def test_the_network_has_its_own_weights_again_after(network):
    average = WeightAverage(network, 0.5)
    at(network, 4.0)
    with average.applied():
        assert network.weight.item() == 0
    assert network.weight.item() == 4
    with pytest.raises(RuntimeError, match="in the midst"), average.applied():
        raise RuntimeError("in the midst")
    assert network.weight.item() == 4


def test_without_decay_the_average_is_the_network(network):
    average = WeightAverage(network, 0.0)
    at(network, 4.0)
    average.update()
    assert average_of(average, network) == 4
    assert average.state_dict()["average"] == []


def test_what_no_update_changes_is_its_own_average(network):
    pair = nn.ModuleDict({"taught": network, "waiting": at(nn.Linear(1, 1, bias=False), 7.0)})
    average = WeightAverage(pair, 0.99, unchanged={"waiting.weight"})
    at(network, 11.0)
    average.update()
    assert average.state_dict()["average"] == [pytest.approx(9)]
    with average.applied():
        assert (pair["taught"].weight.item(), pair["waiting"].weight.item()) == (pytest.approx(9), 7)


def test_it_goes_on_from_a_saved_state(network):
    straight = WeightAverage(at(network, 0.0), 0.99)
    at(network, 11.0)
    straight.update()
    resumed = WeightAverage(network, 0.99)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    at(network, 17.0)
    resumed.update()
    assert average_of(resumed, network) == pytest.approx(15)
    assert average_of(straight, network) == pytest.approx(9)
