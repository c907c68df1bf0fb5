import numpy as np
import pyarrow as pa
import pytest

from mfn_core.data.attributes import AttributeLabels, attribute_labels, learnable_and_measurable
from mfn_core.errors import ConfigError, InsufficientDataError


def _labels(
    names: tuple[str, ...] | None = None, user_ids: tuple[str, ...] = ("ann", "bob", "cai", "dan"), **columns: list
) -> AttributeLabels:
    return attribute_labels(pa.table({"user_id": ["dan", "cai", "bob", "ann"]} | columns), user_ids, names)


def test_classes_are_sorted_and_labels_follow_the_users() -> None:
    labels = _labels(colour=["red", "blue", "red", "green"])
    assert labels.classes == {"colour": ("blue", "green", "red")}
    assert labels.labels_UA.tolist() == [[1], [2], [0], [2]]


def test_a_null_and_a_user_outside_the_table_are_unlabelled() -> None:
    labels = _labels(user_ids=("ann", "bob", "dan", "eve"), colour=["red", "blue", None, "green"])
    assert labels.labels_UA.tolist() == [[0], [-1], [1], [-1]]


def test_classes_of_users_outside_the_dataset_do_not_exist() -> None:
    assert _labels(user_ids=("ann", "bob"), colour=["red", "blue", "pink", "green"]).classes == {"colour": ("green", "pink")}


def test_numbers_become_classes_in_the_order_of_their_strings() -> None:
    assert _labels(code=[9, 10, 9, 1]).classes == {"code": ("1", "10", "9")}


def test_a_column_that_recodes_an_earlier_one_is_left_out() -> None:
    labels = _labels(colour=["red", "blue", "red", "green"], code=[1, 2, 1, 3])
    assert (list(labels.classes), labels.left_out) == (["colour"], {"code": "it re-codes colour"})


def test_a_coarser_column_is_an_attribute_of_its_own() -> None:
    assert list(_labels(colour=["red", "blue", "red", "green"], warm=[True, False, True, False]).classes) == ["colour", "warm"]


def test_a_named_column_may_recode_another() -> None:
    assert list(_labels(names=("code",), colour=["red", "blue", "red", "green"], code=[1, 2, 1, 3]).classes) == ["code"]


def test_a_column_of_one_value_is_left_out_by_the_automatic_rule() -> None:
    assert _labels(country=["de", "de", "de", None]).left_out == {"country": "1 values among the users; an attribute needs 2 to 50"}


def test_a_column_of_more_than_fifty_values_is_left_out_by_the_automatic_rule() -> None:
    user_ids = [f"u{number}" for number in range(51)]
    labels = attribute_labels(pa.table({"user_id": user_ids, "zip": user_ids}), user_ids, None)
    assert labels.left_out["zip"].startswith("51 values, more than 50; name it")


def test_a_list_has_no_classes() -> None:
    assert _labels(tags=[["a"], ["b"], ["a"], ["b"]]).left_out == {"tags": "a column of type list<item: string> has no classes"}


def test_asking_for_none_gives_none() -> None:
    labels = _labels(names=(), colour=["red", "blue", "red", "green"])
    assert (labels.classes, labels.labels_UA.shape) == ({}, (4, 0))


def test_a_misspelt_column_is_an_error_that_names_the_columns() -> None:
    with pytest.raises(ConfigError, match="no column 'color'; it has colour"):
        _labels(names=("color",), colour=["red", "blue", "red", "green"])


def test_a_named_column_of_one_class_is_an_error_with_the_remedy() -> None:
    with pytest.raises(InsufficientDataError, match=r"'country' has fewer than 2 classes.*\['de'\].*attributes=\['colour'\]"):
        _labels(names=("colour", "country"), colour=["red", "blue", "red", "green"], country=["de"] * 4)


def test_a_table_of_other_users_labels_nobody() -> None:
    labels = _labels(user_ids=("eve", "fay"), colour=["red", "blue", "red", "green"])
    assert labels.labels_UA.tolist() == np.empty((2, 0)).tolist()


SPLIT_B = np.array([0, 0, 1, 2], np.int8)  # ann and bob train, cai validates, dan tests


def test_an_attribute_that_train_and_test_users_have_a_value_of_is_kept() -> None:
    labels = _labels(colour=["red", None, "blue", "green"], warm=["no", "yes", "yes", "no"])
    kept = learnable_and_measurable(labels, SPLIT_B, named=True)
    assert (kept.classes, kept.labels_UA.tolist(), kept.left_out) == (labels.classes, labels.labels_UA.tolist(), {})


def test_an_attribute_that_no_test_user_has_a_value_of_is_left_out() -> None:
    labels = _labels(colour=[None, "blue", "red", "green"], warm=["no", "yes", "yes", "no"])
    kept = learnable_and_measurable(labels, SPLIT_B, named=False)
    assert (kept.classes, kept.labels_UA.tolist()) == ({"warm": ("no", "yes")}, [[0], [1], [1], [0]])
    assert kept.left_out == {"colour": "2 train users and 0 test users have a value; both splits need one"}


def test_a_named_attribute_that_no_test_user_has_a_value_of_is_an_error_with_the_remedy() -> None:
    labels = _labels(colour=[None, "blue", "red", "green"], warm=["no", "yes", "yes", "no"])
    with pytest.raises(InsufficientDataError, match=r"'colour': 2 train users and 0 test users have a value.*attributes=\['warm'\]"):
        learnable_and_measurable(labels, SPLIT_B, named=True)
