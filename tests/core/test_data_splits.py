import numpy as np
import pytest

from mfn_core.data.splits import split_codes, user_hashes
from mfn_core.schema import SPLITS


def test_the_hash_is_blake2b_of_seed_and_user() -> None:
    # printf '0:ann' | b2sum -l 64
    assert user_hashes(["ann"], 0).tolist() == [0x83B4BCDCFBECB973]


@pytest.mark.parametrize(
    ("user_id", "seed", "split"),
    [
        ("ann", 0, "train"),  # 0x83b4… / 2**64 = .514
        ("eve", 0, "validation"),  # 0xd0b9… / 2**64 = .815
        ("dan", 0, "test"),  # 0xe9b8… / 2**64 = .913
        ("eve", 1, "train"),
        ("hal", 1, "validation"),
        ("u8817", 1, "test"),
    ],
)
def test_known_users_stay_where_they_are(user_id: str, seed: int, split: str) -> None:
    assert [SPLITS[code] for code in split_codes([user_id], seed)] == [split]


def test_codes_of_many_are_the_splits_of_each() -> None:
    assert split_codes(["dan", "ann", "eve"], 0).tolist() == [2, 0, 1]


def test_shares_are_eight_one_one() -> None:
    shares = np.bincount(split_codes([f"u{number}" for number in range(10_000)], 0)) / 10_000
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_nobody_is_no_problem() -> None:
    assert split_codes([], 0).tolist() == []
