"""A dataset of any size, drawn straight into the form that ``build_dataset`` leaves: for benchmarks of what comes after it.

``python -m benchmarks.synthetic --out <folder> --users 50000``
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.data.dataset import DatasetFacts, Shard, shard_path, write_facts, write_shard
from mfn_core.data.histories import Histories, ViewHistories
from mfn_core.data.sequences import count_macro_before
from mfn_core.data.splits import split_codes
from mfn_core.data.vocabulary import Vocabularies, Vocabulary

_CUT = 1_780_272_000  # 2026-06-01
_SECONDS = 50 * 86_400  # before the cut
_NUM_APPS = 2_000
_SKEW = 3  # the share of ids below x of all is x to the power of 1 / 3

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """How large the dataset is."""

    users: int = 10_000
    events: int = 40  # per user and view, in the mean
    items: int = 10_000
    categories: int = 20  # of either view


def write_dataset(folder: Path, size: Size, seed: int = 0) -> Path:
    """Write users of half to one and a half times the mean number of events; activity and one attribute are coin flips.

    Returns:
        The folder.
    """
    rng = np.random.default_rng(seed)
    user_ids = np.array([f"u{number:08d}" for number in range(size.users)], object)
    macro = _view(rng, size, _NUM_APPS)
    micro = _view(rng, size, size.items)
    shard = Shard(
        histories=Histories(user_ids, macro, micro, count_macro_before(macro, micro)),
        split_B=split_codes(user_ids, 0),
        activity_B=rng.integers(2, size=size.users, dtype=np.int8),
        activity_time_B=np.full(size.users, -1, np.int64),
        attributes_BA=rng.integers(2, size=(size.users, 1), dtype=np.int32),
    )
    facts = DatasetFacts(_CUT, 7, {"group": ("left", "right")}, ("activity", "attribute", "recommendation"), {}, num_shards=1)
    vocabularies = Vocabularies(
        _vocabulary(_NUM_APPS, macro.ids),
        _vocabulary(size.categories, macro.categories),
        _vocabulary(size.items, micro.ids),
        _vocabulary(size.categories, micro.categories),
    )
    folder.mkdir(parents=True)
    write_shard(shard_path(folder, 0), shard, tuple(facts.attribute_classes))
    write_facts(folder, facts, vocabularies)
    return folder


def _view(rng: np.random.Generator, size: Size, num_ids: int) -> ViewHistories:
    lengths_U = rng.integers(max(size.events // 2, 1), size.events + size.events // 2 + 1, size.users)
    offsets = np.append(0, np.cumsum(lengths_U))
    ids = (rng.random(offsets[-1]) ** _SKEW * num_ids).astype(np.int32)
    seconds = rng.integers(_SECONDS, size=offsets[-1])
    order = np.lexsort((seconds, np.repeat(np.arange(size.users), lengths_U)))
    return ViewHistories(offsets, ids + 2, (ids % size.categories).astype(np.int32) + 2, _CUT - _SECONDS + seconds[order])


def _vocabulary(size: int, internal_ids: NDArray[np.int32]) -> Vocabulary:
    counts = np.bincount(internal_ids - 2, minlength=size)
    # Its order is that of the counts: ids that are drawn less often would be renumbered, so they get the counts of the order.
    return Vocabulary.fit(pa.array([f"{number:08d}" for number in range(size)]), np.sort(counts)[::-1] + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    write_dataset(options.out, Size(options.users, options.events, options.items, options.categories))


if __name__ == "__main__":
    main()
