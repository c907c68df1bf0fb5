"""Who is in train, validation and test: 8:1:1 by a seeded hash of the user id.

The hash knows nothing of the day, the machine or the other users, so two models meet on the same test users.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_TRAIN_BELOW = 0.8
_VALIDATION_BELOW = 0.9
_DIGEST_BYTES = 8


def user_hashes(user_ids: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """64-bit BLAKE2b of ``"<seed>:<user_id>"``, most significant byte first."""
    salt = f"{seed}:"
    digests = b"".join(hashlib.blake2b((salt + user_id).encode(), digest_size=_DIGEST_BYTES).digest() for user_id in user_ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def split_codes(user_ids: Iterable[str], seed: int) -> NDArray[np.int8]:
    """Position in ``schema.SPLITS`` of every user: 0 train, 1 validation, 2 test."""
    return codes_of_hashes(user_hashes(user_ids, seed))


def codes_of_hashes(hashes: NDArray[np.uint64]) -> NDArray[np.int8]:
    """``split_codes`` of users whose ``user_hashes`` are at hand."""
    uniform = hashes / 2.0**64
    return np.digitize(uniform, [_TRAIN_BELOW, _VALIDATION_BELOW]).astype(np.int8)
