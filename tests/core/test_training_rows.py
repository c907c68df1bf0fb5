"""The moving average of single rows: made up for later, the same as at every step."""

import pytest
import torch
from torch import Tensor, nn

from mfn_core.training.rows import RowAverage

DECAYS = (0.2, 0.5, 0.9, 0.8)
TOUCHED = ([0, 2], [1, 2], [2], [0])


def touch(table: Tensor, rows: list[int], step: int) -> None:
    table[rows] += torch.arange(1.0, len(rows) + 1)[:, None] * (step + 1)


def test_equals_an_average_that_takes_in_all_rows_at_every_step() -> None:
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    dense, average = table.clone(), RowAverage(nn.Parameter(table))
    for step, (decay, rows) in enumerate(zip(DECAYS, TOUCHED, strict=True)):
        average.catch_up(torch.tensor(rows))
        touch(table, rows, step)
        average.update(torch.tensor(rows), decay)
        dense.lerp_(table, 1 - decay)
    average.catch_up()
    torch.testing.assert_close(average.average_ND, dense)


def test_a_row_nears_its_weight_by_all_the_decays_at_once() -> None:
    table = torch.tensor([[0.0], [0.0]])
    average = RowAverage(nn.Parameter(table))
    both, other = torch.tensor([0, 1]), torch.tensor([1])
    average.catch_up(both)
    table += 8
    average.update(both, 0.75)  # 0 + 1/4 of 8
    for _ in range(2):
        average.catch_up(other)
        average.update(other, 0.5)
    assert average.average_ND[0].item() == 2
    average.catch_up()
    assert average.average_ND.flatten().tolist() == pytest.approx([8 - 6 / 4, 8 - 6 / 4])


def test_making_up_twice_changes_nothing() -> None:
    table = torch.tensor([[0.0]])
    average = RowAverage(nn.Parameter(table))
    table += 8
    average.update(torch.tensor([0]), 0.75)
    for _ in range(2):
        average.catch_up()
        assert average.average_ND.item() == 2
