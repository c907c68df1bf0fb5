"""Literal batches and tiny networks: what the tests of the model read."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from mfn_core.data.batch import Batch
from mfn_core.data.histories import ViewHistories
from mfn_core.model.encoder import ViewEncoder
from mfn_core.model.network import MacroMicroFusionNetwork
from mfn_core.model.paper import PaperNetwork
from mfn_core.model.reader import GatedExperts, IdScores, Reader, ReaderParts
from mfn_core.schema import PAD, View

Event = tuple[int, int, int]  # internal id, internal category, seconds
_SIZES = {"num_macro_ids": 10, "num_macro_categories": 5, "num_micro_ids": 10, "num_micro_categories": 5}
_SHAPE = {"width": 8, "num_layers": 2, "num_heads": 2, "feed_forward_factor": 4, "max_length": 12}
_REST = {"num_macro_rows": 5, "num_micro_rows": 5, "attribute_sizes": (2, 3)}


@dataclass(frozen=True)
class User:
    """One user's events, oldest first; ``asof`` and ``targets`` are as long as ``micro``, or 1 where it is empty.

    Everybody is asked about at second 200.
    """

    macro: tuple[Event, ...] = ()
    micro: tuple[Event, ...] = ()
    asof: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    activity: float = float("nan")
    attributes: tuple[int, ...] = (-1, -1)


QUERY_TIME = 200
ANNA = User(
    macro=((2, 2, 10), (3, 3, 20), (4, 2, 90)),
    micro=((5, 4, 30), (6, 2, 40), (7, 4, 100), (2, 2, 101)),
    asof=(1, 1, 2, 2),
    targets=(6, 7, 2, PAD),
    activity=1.0,
    attributes=(1, 2),
)
BORIS = User(
    macro=((5, 3, 5), (2, 2, 7)),
    micro=((3, 3, 6), (4, 3, 50)),
    asof=(1, 1),
    targets=(4, PAD),
    activity=0.0,
    attributes=(0, 0),
)
WITHOUT_MACRO = User(micro=((5, 4, 30), (6, 2, 40)), asof=(-1, -1), targets=(6, PAD), activity=0.0, attributes=(0, 1))
WITHOUT_MICRO = User(macro=((2, 2, 10), (3, 3, 20)), asof=(1,), targets=(PAD,), activity=1.0, attributes=(1, -1))
NOBODY = User(asof=(-1,), targets=(PAD,))
EVERYBODY = (ANNA, BORIS, WITHOUT_MACRO, WITHOUT_MICRO, NOBODY)

DIARY = [5, 6, 7, 2, 3, 4]  # what follows what in the tables of the tiny network
READER_PARTS = ReaderParts(product=True, alignment=True, gate=True, num_filters=3)


def batch_of(*users: User, extra_padding: int = 0) -> Batch:
    """The users as a right-padded batch, optionally padded further than needed."""
    macro_length = max(1, *(len(user.macro) for user in users)) + extra_padding
    micro_length = max(1, *(len(user.micro) for user in users)) + extra_padding
    return Batch(
        rows_B=torch.arange(len(users)),
        **_view("macro", [user.macro for user in users], macro_length),
        **_view("micro", [user.micro for user in users], micro_length),
        asof_BL=_padded([user.asof for user in users], micro_length, -1),
        targets_BL=_padded([user.targets for user in users], micro_length, PAD),
        query_time_B=torch.full((len(users),), QUERY_TIME),
        activity_B=torch.tensor([user.activity for user in users]),
        attributes_BA=torch.tensor([user.attributes for user in users]),
    )


def histories_of(*ids: list[int]) -> ViewHistories:
    """One view of some users, of whom nothing counts but the ids; categories are all 2, events a second apart."""
    lengths = [len(history) for history in ids]
    events = np.array([event for history in ids for event in history], np.int32)
    return ViewHistories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), events, np.full_like(events, 2), np.arange(len(events), dtype=np.int64)
    )


def tiny_network(
    seed: int = 0,
    dropout: float = 0.0,
    views: tuple[View, ...] = ("macro", "micro"),
    reader_parts: ReaderParts = READER_PARTS,
    **sizes: int,
) -> MacroMicroFusionNetwork:
    """The default network of width 8 for ids 2 to 9 and categories 2 to 4 of both views, in evaluation mode."""
    torch.manual_seed(seed)
    network = MacroMicroFusionNetwork(
        **_encoders(dropout, sizes), **_REST, num_successors=4, transition_window=2, views=views, reader_parts=reader_parts
    )
    # What starts at zero would hide whether it is used.
    torch.nn.init.constant_(network.next_item.macro_gate, 0.5)
    for part in (network.items.bias, network.apps.bias):
        torch.nn.init.normal_(part)
    for module in network.modules():
        _fill(module)
    if len(network.successors.gains_NM) > max(DIARY):
        for table in (network.successors, network.neighbours):
            table.fit(histories_of(DIARY, DIARY, DIARY), np.zeros(3, np.int8), may_return=False)
    return network.eval()


def tiny_paper_network(seed: int = 0, dropout: float = 0.0, **sizes: int) -> PaperNetwork:
    """The source's network of the same size, in evaluation mode."""
    torch.manual_seed(seed)
    network = PaperNetwork(**_encoders(dropout, sizes), **_REST, dropout=dropout, num_alignment_filters=3)
    torch.nn.init.constant_(network.next_item.macro_gate, 0.5)
    torch.nn.init.normal_(network.fusion.absent_macro_D)
    torch.nn.init.normal_(network.fusion.absent_micro_D)
    return network.eval()


def _encoders(dropout: float, sizes: dict[str, int]) -> dict[str, ViewEncoder]:
    sizes = _SIZES | sizes
    return {
        view: ViewEncoder(num_ids=sizes[f"num_{view}_ids"], num_categories=sizes[f"num_{view}_categories"], **_SHAPE, dropout=dropout)
        for view in ("macro", "micro")
    }


def _fill(module: torch.nn.Module) -> None:
    if isinstance(module, GatedExperts):
        for gate in module.gates:
            torch.nn.init.normal_(gate.weight, std=0.1)
    elif isinstance(module, IdScores):
        for table in (module.macro, module.micro):
            torch.nn.init.normal_(table.weight[1:])
    elif isinstance(module, Reader):
        torch.nn.init.normal_(module.head[1].weight, std=0.1)


def _view(name: str, histories: list[tuple[Event, ...]], length: int) -> dict[str, torch.Tensor]:
    columns = [[[event[column] for event in history] for history in histories] for column in range(3)]
    ids, categories, times = (_padded(column, length, PAD) for column in columns)
    lengths = torch.tensor([len(history) for history in histories])
    met = [Counter(event[0] for event in history) for history in histories]
    return {
        f"{name}_ids_BL": ids,
        f"{name}_categories_BL": categories,
        f"{name}_times_BL": times,
        f"{name}_lengths_B": lengths,
        f"{name}_met_BM": _padded([sorted(counts) for counts in met], length, PAD).int(),
        f"{name}_met_counts_BM": _padded([[counts[item] for item in sorted(counts)] for counts in met], length, 0).int(),
        f"{name}_past_categories_BM": categories,
        f"{name}_past_times_BM": times,
    }


def _padded(rows: list[list[int]] | list[tuple[int, ...]], length: int, value: int) -> torch.Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], dtype=torch.int64)
