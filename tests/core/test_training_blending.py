"""How the shares of the next-item score are chosen, with networks whose answers are known."""

from dataclasses import dataclass, field

import pytest
import torch

from mfn_core.config import NetworkConfig, TrainingConfig
from mfn_core.model.blend import ItemBlend
from mfn_core.model.scoring import ItemScores
from mfn_core.model.transitions import Gains
from mfn_core.training import blending
from mfn_core.training.blending import fit_blend
from mfn_core.training.validation import Validation
from tests.factories import app_log, dataset_of, item_log

USERS = [f"u{number}" for number in range(40)]
# Everybody meets x, y, then z or w (the validation item), then x again (the test item).
LOG = [
    (user, item, "c", f"2026-05-0{day}T00:00:00")
    for number, user in enumerate(USERS)
    for day, item in enumerate(("x", "y", "z" if number % 4 else "w", "x"), start=1)
]
NUM_ITEMS = 6  # PAD, UNKNOWN, w, x, y, z


def dataset():
    return dataset_of(app_log([]), item_log(LOG), users=USERS, split=dict.fromkeys(USERS, "train"))


@dataclass
class Teller:
    """A network that prefers one item, beside a table that names the true one at so many of four users."""

    preferred: int
    told: dict[int, int]  # row of the user modulo 4 -> item that the table names
    blend: ItemBlend = field(default_factory=lambda: ItemBlend([0.3]))

    def eval(self):
        return self

    @property
    def items(self):
        return torch.nn.Linear(1, NUM_ITEMS)

    def parameters(self):
        return iter([torch.zeros(1)])

    def encode(self, batch):
        return None

    def own_last_item_scores(self, encoded, batch):
        wanted_BD = torch.eye(NUM_ITEMS)[self.preferred].repeat(len(batch.rows_B), 1)
        return ItemScores.plain(wanted_BD, torch.eye(NUM_ITEMS), torch.zeros(NUM_ITEMS))

    def gains(self, batch):
        items_B11 = torch.tensor([[[self.told[row % 4]]] for row in batch.rows_B.tolist()])
        return Gains(items_B11, torch.ones_like(items_B11, dtype=torch.float32))


def fitted(teller: Teller, mask_seen: bool = True, data=None) -> Teller:
    validation = Validation(data or dataset(), NetworkConfig(), TrainingConfig(evaluation_batch_size=16, device="cpu", mask_seen=mask_seen))
    fit_blend(teller, validation)
    return teller


TOKENS = dataset().vocabularies.micro_id.tokens.to_pylist()
W, X, Z = (2 + TOKENS.index(token) for token in "wxz")
ALWAYS_RIGHT = {0: W, 1: Z, 2: Z, 3: Z}
NEVER_RIGHT = {0: Z, 1: W, 2: W, 3: W}


def test_a_table_that_is_right_gains_share_and_one_that_is_wrong_loses_it() -> None:
    assert fitted(Teller(X, ALWAYS_RIGHT)).blend.shares_K.item() > 0.8
    assert fitted(Teller(X, NEVER_RIGHT)).blend.shares_K.item() < -0.2


def test_a_network_that_is_right_is_sharpened_and_one_that_is_wrong_is_blunted() -> None:
    silent = dict.fromkeys(range(4), 0)
    # z is the answer of three users in four, w of the others: log 3 = 1.10 apart would be likeliest. With the prior of 5 of 40 users:
    # d/ds [log(1 + e^s) - .75 s + .125 log(s)^2] = 0.
    assert fitted(Teller(Z, silent)).blend.sharpness.item() == pytest.approx(1.0442, abs=1e-3)
    assert fitted(Teller(W, silent)).blend.sharpness.item() < 0.5


def test_seen_items_take_no_part_as_in_the_ranking() -> None:
    # x is seen by all: to prefer it costs nothing where seen items are left out.
    silent = dict.fromkeys(range(4), 0)
    assert fitted(Teller(X, silent), mask_seen=True).blend.sharpness.item() == pytest.approx(1, abs=1e-3)
    assert fitted(Teller(X, silent), mask_seen=False).blend.sharpness.item() < 0.9


def test_few_users_do_not_carry_the_shares_away() -> None:
    # One user against a prior of five: 40 of them took the share beyond .8.
    log = [(f"v{number}", item, "c", f"2026-05-0{day}T00:00:00") for number in range(8) for day, item in enumerate("xywz", start=1)]
    few = dataset_of(app_log([]), item_log([*log[:4], *[row for row in log[4:] if row[1] in "xy"]]), users=[f"v{n}" for n in range(8)])
    teller = Teller(X, {0: 2 + few.vocabularies.micro_id.tokens.to_pylist().index("y")})
    assert abs(fitted(teller, data=few).blend.shares_K.item() - 0.3) < 0.1


def test_the_fit_does_not_depend_on_an_earlier_one() -> None:
    once = fitted(Teller(X, ALWAYS_RIGHT)).blend.shares_K.clone()
    twice = fitted(fitted(Teller(X, ALWAYS_RIGHT))).blend.shares_K
    assert torch.equal(once, twice)


def test_without_held_out_items_the_shares_stay() -> None:
    data = dataset_of(app_log([]), item_log(LOG[:2]), users=USERS, split=dict.fromkeys(USERS, "train"))
    blend = fitted(Teller(X, ALWAYS_RIGHT), data=data).blend
    assert (blend.sharpness.item(), blend.shares_K.tolist()) == (1, [pytest.approx(0.3)])


def test_no_more_users_are_asked_than_scores_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(blending, "_MOST_SCORES", 8 * NUM_ITEMS)
    monkeypatch.setattr(blending, "_LEAST_USERS", 2)

    class Counting(Teller):
        def encode(self, batch):
            asked.append(len(batch.rows_B))

    fitted(Counting(X, ALWAYS_RIGHT))
    assert sum(asked) == 8
