"""A later dataset in the coding of an earlier model."""

from datetime import UTC, datetime

import numpy as np
import pytest

from mfn_core.errors import ConfigError
from mfn_core.evaluation.evaluator import evaluate
from mfn_core.evaluation.later_cuts import as_read_by, reencode, targets_since
from mfn_core.schema import UNKNOWN
from tests.factories import app_log, dataset_of, item_log
from tests.models import predictor_of

APPS = [("ann", "mail", "work", "2026-05-01T08:00:00"), ("bob", "bank", "money", "2026-05-02T08:00:00")]
ITEMS = [
    *(("ann", item, "news", f"2026-05-0{day}T09:00:00") for day, item in enumerate("abc", start=1)),
    *(("bob", item, "news", f"2026-05-0{day}T10:00:00") for day, item in enumerate("bca", start=1)),
]
LATER_APPS = [*APPS, ("ann", "game", "fun", "2026-05-11T08:00:00"), ("cai", "mail", "work", "2026-05-11T08:00:00")]
LATER_ITEMS = [
    *ITEMS,
    ("ann", "d", "film", "2026-05-12T09:00:00"),
    *(("cai", item, "news", f"2026-05-1{day}T10:00:00") for day, item in enumerate("dba", start=1)),
]
COLOURS = {"ann": "red", "bob": "blue"}
CUT, LATER_CUT = "2026-05-10T00:00:00", "2026-05-20T00:00:00"


def at_cut(apps, items, users, cut, **labels):
    return dataset_of(
        app_log(apps), item_log(items), users=users, cut=cut, split=dict.fromkeys(users, "test"), activity={"ann": 1, "bob": 0}, **labels
    )


@pytest.fixture
def earlier():
    return at_cut(APPS, ITEMS, ["ann", "bob"], CUT, attributes={"size": {"ann": "L", "bob": "S"}, "colour": COLOURS})


@pytest.fixture
def later():
    colours = {"colour": COLOURS | {"cai": "green"}, "city": {"ann": "Oslo"}}
    return at_cut(LATER_APPS, LATER_ITEMS, ["ann", "bob", "cai"], LATER_CUT, attributes=colours)


def seconds(time):
    return int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp())


def test_known_tokens_get_the_models_ids_and_new_ones_are_unknown(earlier, later):
    assert earlier.vocabularies.micro_id.tokens.to_pylist() == ["a", "b", "c"]
    assert later.vocabularies.micro_id.tokens.to_pylist() == ["a", "b", "c", "d"]
    read = reencode(later, earlier.vocabularies, earlier.attribute_classes)
    names = {
        "macro": earlier.vocabularies.macro_id.decode(read.histories.macro.ids).tolist(),
        "macro categories": earlier.vocabularies.macro_category.decode(read.histories.macro.categories).tolist(),
        "micro": earlier.vocabularies.micro_id.decode(read.histories.micro.ids).tolist(),
        "micro categories": earlier.vocabularies.micro_category.decode(read.histories.micro.categories).tolist(),
    }
    new = "<unknown>"
    assert names == {
        "macro": ["mail", new, "bank", "mail"],
        "macro categories": ["work", new, "money", "work"],
        "micro": ["a", "b", "c", new, "b", "c", "a", new, "b", "a"],
        "micro categories": ["news"] * 3 + [new] + ["news"] * 6,
    }
    assert read.vocabularies is earlier.vocabularies


def test_ids_are_the_models_where_its_order_is_another(later):
    rare_first = dataset_of(app_log([]), item_log([("u", "c", "news", "2026-05-01T08:00:00")] * 2 + ITEMS[:1]), users=["u"]).vocabularies
    read = reencode(later, rare_first, {})
    assert rare_first.micro_id.tokens.to_pylist() == ["c", "a"]
    assert read.histories.micro.ids[:4].tolist() == [3, UNKNOWN, 2, UNKNOWN]


def test_what_the_dataset_itself_does_not_know_stays_unknown(earlier, later):
    later.histories.micro.ids[0] = UNKNOWN
    assert reencode(later, earlier.vocabularies, {}).histories.micro.ids[0] == UNKNOWN


def test_classes_are_mapped_by_name_and_new_ones_are_unlabelled(earlier, later):
    assert later.attribute_classes["colour"] == ("blue", "green", "red")
    read = reencode(later, earlier.vocabularies, {"size": ("L", "S"), "colour": ("red", "blue")})
    assert read.attribute_classes == {"size": ("L", "S"), "colour": ("red", "blue")}
    # size, colour of ann, bob and cai; nobody has a size in the later dataset, cai's green is new
    assert read.attributes_BA.tolist() == [[-1, 0], [-1, 1], [-1, -1]]


def test_an_unlabelled_user_stays_so(earlier, later):
    later.attributes_BA[0, 0] = -1
    assert reencode(later, earlier.vocabularies, {"colour": ("red", "blue")}).attributes_BA.tolist() == [[-1], [1], [-1]]


def test_users_times_and_other_labels_stay(earlier, later):
    read = reencode(later, earlier.vocabularies, earlier.attribute_classes)
    assert read.histories.user_ids.tolist() == ["ann", "bob", "cai"]
    for view in ("macro", "micro"):
        assert np.array_equal(getattr(read.histories, view).times, getattr(later.histories, view).times)
        assert np.array_equal(getattr(read.histories, view).offsets, getattr(later.histories, view).offsets)
    assert np.array_equal(read.histories.macro_before, later.histories.macro_before)
    assert (read.cut, read.tasks) == (later.cut, later.tasks)
    assert read.activity_B.tolist() == [1, 0, -1]


def test_only_targets_since_the_cut_count(later):
    # ann's last item is of 12 May, bob's of 3 May, cai's of 13 May
    assert later.held_out_B.tolist() == [2, 2, 2]
    assert targets_since(later, seconds(CUT)).held_out_B.tolist() == [2, 0, 2]


def test_a_target_in_the_second_of_the_cut_counts(later):
    assert targets_since(later, seconds("2026-05-12T09:00:00")).held_out_B.tolist() == [2, 0, 2]
    assert targets_since(later, seconds("2026-05-12T09:00:01")).held_out_B.tolist() == [0, 0, 2]


def test_a_user_without_a_target_or_without_items_gets_none():
    users = ["few", "none"]
    later = dataset_of(app_log(APPS), item_log([("few", "a", "news", "2026-05-12T09:00:00")]), users=users)
    assert targets_since(later, seconds(CUT)).held_out_B.tolist() == [0, 0]


def test_the_ordinary_evaluator_measures_an_earlier_model(earlier, later, tmp_path):
    predictor = predictor_of(earlier, tmp_path)
    read = as_read_by(predictor.bundle, later)
    ranked = evaluate(predictor, read, "recommendation", samples=100).scores
    assert ranked["user_id"].to_pylist() == ["ann", "cai"]
    assert ranked["baseline_rank"].to_pylist()[0] == len(earlier.vocabularies.micro_id)  # d is new to the model: a miss
    assert evaluate(predictor, read, "activity", samples=100).scores["user_id"].to_pylist() == ["ann", "bob"]
    coloured = evaluate(predictor, read, "attribute", samples=100)
    assert coloured.scores["label"].to_pylist() == [1, 0]
    assert list(coloured.measurements) == ["colour"]


@pytest.mark.parametrize("cut", [CUT, "2026-05-09T00:00:00"])
def test_a_cut_that_is_not_later_is_refused(earlier, tmp_path, cut):
    bundle = predictor_of(earlier, tmp_path).bundle
    same = at_cut(APPS, ITEMS, ["ann", "bob"], cut)
    with pytest.raises(ConfigError, match=f"cut {seconds(cut)} .* is not later than the model's {seconds(CUT)}"):
        as_read_by(bundle, same)


def test_nothing_of_the_given_dataset_is_changed(earlier, later):
    before = later.histories.micro.ids.copy(), later.held_out_B.copy()
    targets_since(reencode(later, earlier.vocabularies, {}), seconds(CUT))
    assert np.array_equal(later.histories.micro.ids, before[0])
    assert np.array_equal(later.held_out_B, before[1])
