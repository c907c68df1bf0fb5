"""Whether seeds agree on the alignment atlas: correlations and shares by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from tasks.comparison import atlas
from tests.factories import app_log, dataset_of, item_log

ONE = {"alignment": [0.1, 0.2, 0.3, 0.4], "affinity": [0.5, None, 0.2, 0.1]}


def test_seeds_that_rank_the_pairs_alike_correlate_fully() -> None:
    other = {"alignment": [1.0, 2.0, 3.0, 9.0], "affinity": [0.9, 0.1, 0.8, 0.7]}
    assert atlas.stability([ONE, other]) == [
        {"part": "alignment", "pairs": 1, "mean": pytest.approx(1), "lowest": pytest.approx(1)},
        {"part": "affinity", "pairs": 1, "mean": pytest.approx(1), "lowest": pytest.approx(1)},
    ]


def test_the_mean_and_the_lowest_are_over_all_pairs_of_seeds() -> None:
    swapped = {"alignment": [0.2, 0.1, 0.3, 0.4], "affinity": [0.5, None, 0.2, 0.1]}
    # Two swapped neighbours of four: 1 - 6 * 2 / (4 * 15) = .8; alike: 1.
    alignment, _ = atlas.stability([ONE, ONE, swapped])
    assert alignment == {"part": "alignment", "pairs": 3, "mean": pytest.approx(2.6 / 3), "lowest": pytest.approx(0.8)}


def test_one_seed_agrees_with_nobody() -> None:
    assert atlas.stability([ONE]) == []


def test_what_gives_no_correlation_is_left_out() -> None:
    one_pair, nothing = {"alignment": [0.1], "affinity": [None]}, {"alignment": [], "affinity": []}
    assert atlas.stability([one_pair, one_pair]) == atlas.stability([nothing, nothing]) == []
    flat = {"alignment": [0.1, 0.1, 0.1, 0.1], "affinity": ONE["affinity"]}
    assert [row["part"] for row in atlas.stability([ONE, flat])] == ["affinity"]


def test_the_affinity_is_the_alignment_over_how_often_categories_meet() -> None:
    day = "2026-05-01T00:00:00"
    apps = [("ann", "m1", "chat", day), ("ann", "m2", "bank", "2026-05-02T00:00:00"), ("bob", "m1", "chat", day)]
    items = [("ann", "i1", "news", day), ("bob", "i2", "sport", day)]
    data = dataset_of(app_log(apps), item_log(items), users=["ann", "bob"], split={"ann": "test", "bob": "test"})
    macro, micro = (vocabulary.tokens.to_pylist() for vocabulary in (data.vocabularies.macro_category, data.vocabularies.micro_category))
    # All of it half of what meets. Ann is in chat and bank, half and half, and in news; Bob in chat and in sport: roots of shares.
    activity = {("chat", "news"): 0.5**0.5 / 2, ("bank", "news"): 0.5**0.5 / 2, ("chat", "sport"): 0.5, ("bank", "sport"): 0.0}
    alignment_GK = np.zeros((4, 4))
    alignment_GK[2:, 2:] = [[0.5 * activity[app, item] for item in micro] for app in macro]
    lengths = SimpleNamespace(max_macro_length=2, max_micro_length=3)
    predictor = SimpleNamespace(bundle=SimpleNamespace(config=lengths), mean_alignment_GK=lambda *_, **__: alignment_GK)
    drawn = atlas.draw(predictor, data, 8)
    expected = [None if activity[app, item] == 0 else pytest.approx(0.5) for app in macro for item in micro]
    assert drawn["affinity"] == expected
    assert drawn["alignment"] == pytest.approx(alignment_GK[2:, 2:].ravel().tolist())


def test_categories_without_a_row_of_their_own_are_left_out() -> None:
    day = "2026-05-01T00:00:00"
    apps = [("ann", "m1", "chat", day), ("ann", "m1", "chat", "2026-05-02T00:00:00"), ("ann", "m2", "bank", "2026-05-03T00:00:00")]
    data = dataset_of(app_log(apps), item_log([("ann", "i1", "news", day)]), users=["ann"], split={"ann": "test"})
    lengths = SimpleNamespace(max_macro_length=3, max_micro_length=3)
    rows_of_chat_and_news = np.full((3, 3), 0.2)
    predictor = SimpleNamespace(bundle=SimpleNamespace(config=lengths), mean_alignment_GK=lambda *_, **__: rows_of_chat_and_news)
    # Two of Ann's three app events are of chat: .2 / sqrt(2 / 3).
    assert atlas.draw(predictor, data, 8) == {"alignment": [0.2], "affinity": [pytest.approx(0.244949)]}
