"""The next-item sequences of a dataset, for environments that lack ``mfn_core``: users, items and positions as NumPy arrays.

python -m benchmarks.peers.sequences --data <dataset> --out sequences.npz
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.peers.program import TEST, TRAIN, VALIDATION, Sequences
from benchmarks.recbole.atomic_files import split_of_targets
from mfn_core.data.dataset import Dataset
from mfn_core.schema import SPLITS, UNKNOWN

_PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def sequences(dataset: Dataset) -> Sequences:
    """Every event but those of training whose item the vocabulary lacks."""
    micro = dataset.histories.micro
    users = np.repeat(np.arange(len(dataset)), micro.lengths)
    positions = np.arange(len(users)) - micro.offsets[users]
    parts = np.array([_PARTS[name] for name in SPLITS])[split_of_targets(dataset, users, positions)]
    items = np.maximum(micro.ids.astype(np.int64) - UNKNOWN - 1, -1)
    kept = (items >= 0) | (parts != TRAIN)
    return Sequences(users[kept], items[kept], positions[kept], parts[kept], len(dataset.vocabularies.micro_id) - UNKNOWN - 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of a dataset, as build_dataset writes it")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sequences(Dataset.open(options.data)).write(options.out)
