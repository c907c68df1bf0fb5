"""Whether seeds agree on the alignment atlas: correlations and shares by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tasks.comparison import atlas
from tests.factories import app_log, dataset_of, item_log
from tests.models import predictor_of

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
    predictor = SimpleNamespace(mean_alignment_GK=lambda *_, **__: alignment_GK)
    drawn = atlas.draw(predictor, data, 8)
    expected = [None if activity[app, item] == 0 else pytest.approx(0.5) for app in macro for item in micro]
    assert drawn["affinity"] == expected
    assert drawn["alignment"] == pytest.approx(alignment_GK[2:, 2:].ravel().tolist())


def test_categories_without_a_row_of_their_own_are_left_out() -> None:
    day = "2026-05-01T00:00:00"
    apps = [("ann", "m1", "chat", day), ("ann", "m1", "chat", "2026-05-02T00:00:00"), ("ann", "m2", "bank", "2026-05-03T00:00:00")]
    data = dataset_of(app_log(apps), item_log([("ann", "i1", "news", day)]), users=["ann"], split={"ann": "test"})
    rows_of_chat_and_news = np.full((3, 3), 0.2)
    predictor = SimpleNamespace(mean_alignment_GK=lambda *_, **__: rows_of_chat_and_news)
    # Two of Ann's three app events are of chat: .2 / sqrt(2 / 3).
    assert atlas.draw(predictor, data, 8) == {"alignment": [0.2], "affinity": [pytest.approx(0.244949)]}


def test_how_often_categories_meet_is_counted_over_all_that_the_network_counts(tmp_path: Path) -> None:
    apps = [("ann", "m1", "chat", "2026-05-01T00:00:00"), *(("ann", "m2", "bank", f"2026-05-0{day}T00:00:00") for day in range(2, 6))]
    data = dataset_of(app_log(apps), item_log([("ann", "i1", "news", "2026-05-01T00:00:00")]), users=["ann"], split={"ann": "test"})
    predictor = predictor_of(data, tmp_path)
    assert predictor.bundle.config.max_macro_length == 4  # the encoders do not see that Ann was in chat
    alignment_GK = predictor.mean_alignment_GK(data.histories, query_time=data.cut, rows=np.array([0]))
    bank, chat = (2 + data.vocabularies.macro_category.tokens.to_pylist().index(name) for name in ("bank", "chat"))
    drawn = atlas.draw(predictor, data, 8)
    # Of Ann's five app events four are of bank and one is of chat, of whose embedding the network has nothing to align.
    assert drawn["affinity"][bank - 2] == pytest.approx(alignment_GK[bank, 2] / (4 / 5) ** 0.5)
    assert (drawn["affinity"][chat - 2], alignment_GK[chat, 2]) == (0.0, 0.0)
