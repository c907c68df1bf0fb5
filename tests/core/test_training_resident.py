"""Batches gathered from histories on the device, against those that the host collates."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mfn_core.config import NetworkConfig
from mfn_core.data.batching import collate
from mfn_core.schema import UNKNOWN
from mfn_core.training.resident import ResidentHistories, Shape
from tests.factories import app_log, dataset_of, item_log, patterned_dataset

CPU = torch.device("cpu")
DATASET = patterned_dataset()
EVERYBODY = np.arange(len(DATASET))


def with_unknown_items(dataset):
    """Every fourth item event is of an item that the vocabulary lacks."""
    ids = dataset.histories.micro.ids.copy()
    ids[::4] = UNKNOWN
    return replace(dataset, histories=replace(dataset.histories, micro=replace(dataset.histories.micro, ids=ids)))


def resident(dataset, longest, latest_macro=False):
    config = NetworkConfig(max_macro_length=longest, max_micro_length=longest)
    return ResidentHistories(dataset, config, dataset.activity_B, dataset.attributes_BA, CPU, latest_macro=latest_macro)


@pytest.mark.parametrize("dataset", [DATASET, with_unknown_items(DATASET)], ids=["known", "unknown"])
@pytest.mark.parametrize("longest", [1, 3, 8])
@pytest.mark.parametrize("latest_macro", [False, True])
def test_are_those_of_the_host(dataset, longest, latest_macro):
    collated = collate(
        dataset.histories,
        EVERYBODY,
        prefix="train",
        held_out_B=dataset.held_out_B,
        max_macro_length=longest,
        max_micro_length=longest,
        activity_B=dataset.activity_B,
        attributes_BA=dataset.attributes_BA,
        query_time=dataset.cut,
        latest_macro=latest_macro,
    )
    shape = Shape(len(dataset), *(ids.shape[1] for ids in (collated.macro_ids_BL, collated.micro_ids_BL)), 0)
    gathered = resident(dataset, longest, latest_macro).batch(torch.from_numpy(EVERYBODY), shape)
    for field in fields(collated):
        torch.testing.assert_close(getattr(gathered, field.name), getattr(collated, field.name), equal_nan=True, msg=field.name)


def test_work_where_a_view_is_empty_throughout():
    dataset = dataset_of(app_log([("a", "x", "c", "2026-05-01T00:00:00")]), item_log([]), users=["a"])
    histories = resident(dataset, 8)
    batch = histories.batch(torch.tensor([0]), histories.shape(np.array([0])))
    assert batch.macro_ids_BL.tolist() == [[2, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.micro_ids_BL.tolist() == [[0]]
    assert batch.asof_BL.tolist() == [[0]]


def seven_users(lengths):
    """Users of so many item events, of which two are held out, and as many app events."""
    days = [f"2026-05-{1 + position // 20:02d}T{position % 20:02d}:00:00" for position in range(max(lengths))]
    events = [(f"u{user}", f"x{day}", "c", day) for user, length in enumerate(lengths) for day in days[:length]]
    return dataset_of(app_log(events), item_log(events), users=[f"u{user}" for user in range(len(lengths))])


def test_sizes_are_rounded_up_by_eights_and_by_quarters_of_powers_of_two():
    dataset = seven_users([7, 20, 36, 68, 100])
    histories = resident(dataset, 80)
    shapes = [histories.shape(np.array([user])) for user in range(5)]
    assert [shape.macro_length for shape in shapes] == [8, 24, 40, 80, 80]
    assert [shape.micro_length for shape in shapes] == [8, 24, 40, 80, 80]


def test_room_is_for_all_targets_and_by_eighths_of_all_positions():
    dataset = seven_users([7, 34])  # windows of 5 and 32 events, 4 and 31 targets
    histories = resident(dataset, 80)
    assert histories.shape(np.array([0])) == Shape(1, 8, 8, 4)
    assert histories.shape(np.array([0, 0, 0])) == Shape(3, 8, 8, 12)
    assert histories.shape(np.array([0, 1])) == Shape(2, 40, 32, 40)  # 35 of 64 positions


def test_in_a_large_batch_room_is_by_16384_positions():
    histories = resident(seven_users([34]), 80)
    num_users = 20_000  # 620,000 targets at 640,000 positions
    assert histories.shape(np.zeros(num_users, int)) == Shape(num_users, 40, 32, 38 * 2**14)
