"""The sequence builder on a log small enough to order by hand; 12:00:00 is written as noon."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mfn_core.data.histories import Histories
from mfn_core.data.sequences import build_histories, raw_histories
from mfn_core.data.vocabulary import Vocabularies, Vocabulary
from mfn_core.errors import SchemaError
from tests.factories import app_log, item_log

NOON = int(datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp())


def _vocabulary(*tokens: str) -> Vocabulary:
    """Ids 2, 3, … in the order given."""
    return Vocabulary.fit(pa.array(tokens), np.arange(len(tokens), 0, -1))


@pytest.fixture
def vocabularies() -> Vocabularies:
    return Vocabularies(
        _vocabulary("mail", "chat", "bank"), _vocabulary("work", "money"), _vocabulary("i1", "i2", "i3"), _vocabulary("news", "film")
    )


@pytest.fixture
def histories(vocabularies: Vocabularies) -> Histories:
    """ann has both views, bob items only, cai apps only, dan nothing; rows are shuffled."""
    apps = app_log(
        [
            ("ann", "bank", "money", "2026-03-04T12:00:20"),
            ("cai", "mail", "work", "2026-03-04T11:00:00"),
            ("ann", "mail", "work", "2026-03-04T12:00:10"),
            ("zoe", "mail", "work", "2026-03-04T12:00:00"),
            ("ann", "game", "fun", "2026-03-04T12:00:30"),
        ]
    )
    items = item_log(
        [
            ("ann", "i3", "news", "2026-03-04T12:00:30"),
            ("ann", "i2", "film", "2026-03-04T12:00:20"),
            ("bob", "i1", "news", "2026-03-04T12:00:00"),
            ("ann", "i9", "opera", "2026-03-04T12:00:30"),
            ("ann", "i1", "news", "2026-03-04T12:00:10"),
            ("ann", "i1", "news", "2026-03-04T12:00:30"),
        ],
        seq_no=[1, 0, 0, 0, 0, 1],
    )
    return build_histories(apps, items, ["bob", "ann", "dan", "cai"], vocabularies)


def test_users_come_in_the_order_asked_for(histories: Histories) -> None:
    assert histories.user_ids.tolist() == ["bob", "ann", "dan", "cai"]


def test_offsets_give_each_user_its_events_and_none_to_strangers(histories: Histories) -> None:
    assert histories.macro.offsets.tolist() == [0, 0, 3, 3, 4]
    assert histories.micro.offsets.tolist() == [0, 1, 6, 6, 6]


def test_events_are_ordered_by_time_and_unknown_apps_are_unknown(histories: Histories) -> None:
    assert histories.macro.ids.tolist() == [2, 4, 1, 2]
    assert histories.macro.categories.tolist() == [2, 3, 1, 2]
    assert (histories.macro.times - NOON).tolist() == [10, 20, 30, -3600]


def test_ties_are_ordered_by_seq_no_then_by_id(histories: Histories) -> None:
    # ann at :30 has i9 (seq 0), then i1 and i3 (both seq 1)
    assert histories.micro.ids.tolist() == [2, 2, 3, 1, 2, 4]


def test_ties_of_one_id_are_ordered_by_category(vocabularies: Vocabularies) -> None:
    rows = [("ann", "i1", category, "2026-03-04T12:00:00") for category in ("news", "film", "news")]
    assert build_histories(None, item_log(rows), ["ann"], vocabularies).micro.categories.tolist() == [3, 2, 2]


def test_users_and_times_too_many_for_one_number_are_ordered_all_the_same(vocabularies: Vocabularies) -> None:
    # 3e17 microseconds between the years 1 and 9999, times 40 users, is more than 2^63
    rows = [("u39", "bank", "money", "9999-01-01T00:00:00"), ("u39", "mail", "work", "0001-01-01T00:00:00")]
    histories = build_histories(app_log(rows), None, [f"u{number}" for number in range(40)], vocabularies)
    assert histories.macro.ids.tolist() == [2, 4]


def test_an_app_of_the_same_second_is_not_before(histories: Histories) -> None:
    # bob; ann's items at :10, :20, :30, :30, :30 against apps at :10, :20, :30
    assert histories.macro_before.tolist() == [0, 0, 1, 2, 2, 2]


def test_fractions_of_a_second_order_a_view_but_not_the_views(vocabularies: Vocabularies) -> None:
    apps = app_log([("ann", "mail", "work", "2026-03-04T12:00:00.100000")])
    items = item_log([("ann", "i1", "news", "2026-03-04T12:00:00.900000"), ("ann", "i2", "news", "2026-03-04T12:00:00.200000")])
    histories = build_histories(apps, items, ["ann"], vocabularies)
    assert (histories.micro.ids.tolist(), histories.macro_before.tolist()) == ([3, 2], [0, 0])


def test_times_before_1970_round_down(vocabularies: Vocabularies) -> None:
    apps = app_log([("ann", "mail", "work", "1969-12-31T23:59:59.500000")])
    assert build_histories(apps, None, ["ann"], vocabularies).macro.times.tolist() == [-1]


def test_an_absent_view_is_empty(vocabularies: Vocabularies) -> None:
    histories = build_histories(None, None, ["ann", "bob"], vocabularies)
    assert histories.macro.offsets.tolist() == histories.micro.offsets.tolist() == [0, 0, 0]


def test_rows_said_to_be_sorted_are_checked(vocabularies: Vocabularies) -> None:
    apps = app_log([("ann", "mail", "work", "2026-03-04T12:00:10"), ("ann", "mail", "work", "2026-03-04T12:00:00")])
    with pytest.raises(AssertionError, match="not sorted by time"):
        build_histories(apps, None, ["ann"], vocabularies, is_sorted=True)


def test_sorted_and_dictionary_encoded_rows_build_the_same(vocabularies: Vocabularies) -> None:
    rows = [("ann", "mail", "work", "2026-03-04T12:00:00"), ("ann", "bank", "money", "2026-03-04T12:00:10")]
    plain = app_log([*rows, ("bob", "chat", "work", "2026-03-04T11:00:00")])
    encoded = pa.table(
        {name: plain[name].dictionary_encode() if pa.types.is_string(plain[name].type) else plain[name] for name in plain.column_names}
    )
    histories = build_histories(encoded, None, ["ann", "bob"], vocabularies, is_sorted=True)
    assert (histories.macro.ids.tolist(), histories.macro.offsets.tolist()) == ([2, 4, 3], [0, 2, 3])


def _request(**columns: list) -> pd.DataFrame:
    micro = {
        "micro_ids": [["i1", "i2"]],
        "micro_categories": [["news", "film"]],
        "micro_times": [["2026-03-04T12:00:10Z", "2026-03-04T12:00:00Z"]],
    }
    return pd.DataFrame({"user_id": ["ann"]} | micro | columns)


def test_a_request_is_ordered_and_encoded_like_the_log(vocabularies: Vocabularies) -> None:
    histories = raw_histories(_request(), vocabularies)
    assert (histories.micro.ids.tolist(), histories.micro.categories.tolist()) == ([3, 2], [3, 2])
    assert (histories.micro.times - NOON).tolist() == [0, 10]


def test_events_of_equal_time_keep_the_order_of_the_list(vocabularies: Vocabularies) -> None:
    request = _request(micro_ids=[["i3", "i1"]], micro_times=[["2026-03-04T12:00:00Z"] * 2])
    assert raw_histories(request, vocabularies).micro.ids.tolist() == [4, 2]


@pytest.mark.parametrize("seed", range(4))
def test_a_request_and_a_log_of_the_same_events_are_the_same_histories(vocabularies: Vocabularies, seed: int) -> None:
    generator = np.random.default_rng(seed)
    users = ["ann", "bob", "cai"]
    columns, logs = {"user_id": users}, []
    for view, log, ids, categories in (
        ("macro", app_log, ["mail", "chat", "game"], ["work", "fun"]),
        ("micro", item_log, ["i1", "i2", "i9"], ["news", "film"]),
    ):
        lists = [
            [(generator.choice(ids), generator.choice(categories), f"2026-03-04T12:00:0{generator.integers(5)}") for _ in range(length)]
            for length in generator.integers(0, 9, len(users))
        ]
        events = [(user, *event) for user, listed in zip(users, lists, strict=True) for event in listed]
        logs.append(log(events, seq_no=list(range(len(events)))))
        for place, part in enumerate(("ids", "categories", "times")):
            end = "Z" if part == "times" else ""
            columns[f"{view}_{part}"] = [[f"{event[place]}{end}" for event in listed] for listed in lists]
    asked, logged = raw_histories(pd.DataFrame(columns), vocabularies), build_histories(*logs, users, vocabularies)
    for ours, theirs in ((asked.macro, logged.macro), (asked.micro, logged.micro)):
        for name in ("offsets", "ids", "categories", "times"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
    np.testing.assert_array_equal(asked.macro_before, logged.macro_before, strict=True)


@pytest.mark.parametrize(
    "time",
    [
        "2026-03-04T12:00:00Z",
        "2026-03-04T12:00:00.000+00:00",
        "2026-03-04T14:30:00+02:30",
        NOON,
        float(NOON),
        np.int64(NOON),
        np.int32(NOON),
        datetime(2026, 3, 4, 12, tzinfo=UTC),
        datetime(2026, 3, 4, 7, tzinfo=timezone(timedelta(hours=-5))),
        pd.Timestamp("2026-03-04T12:00:00", tz="UTC"),
    ],
    ids=str,
)
def test_every_form_of_time_is_the_same_moment(vocabularies: Vocabularies, time: object) -> None:
    assert raw_histories(_request(micro_times=[[time, time]]), vocabularies).micro.times.tolist() == [NOON, NOON]


@pytest.mark.parametrize(
    ("time", "complaint"),
    [
        ("2026-03-04T12:00:00", "no time zone"),
        (datetime(2026, 3, 4, 12), "no time zone"),  # noqa: DTZ001 - the missing zone is the case
        (pd.NaT, "no time"),
        (None, "NoneType is no time"),
        (float("nan"), "nan"),
        (True, "bool is no time"),
        ("yesterday", "Invalid isoformat"),
        (1_772_625_600_000, "milliseconds"),
    ],
    ids=str,
)
def test_any_other_time_is_refused_by_name(vocabularies: Vocabularies, time: object, complaint: str) -> None:
    with pytest.raises(SchemaError, match=f"micro_times of user 'ann'.*{complaint}"):
        raw_histories(_request(micro_times=[["2026-03-04T12:00:00Z", time]]), vocabularies)


def test_lists_of_unequal_length_are_refused_with_the_lengths(vocabularies: Vocabularies) -> None:
    with pytest.raises(SchemaError, match="user 'ann': micro_ids has 3, micro_categories has 2, micro_times has 2"):
        raw_histories(_request(micro_ids=[["i1", "i2", "i3"]]), vocabularies)


def test_half_a_view_is_refused(vocabularies: Vocabularies) -> None:
    with pytest.raises(SchemaError, match="no column 'micro_times'"):
        raw_histories(_request().drop(columns="micro_times"), vocabularies)


def test_a_request_without_users_is_refused(vocabularies: Vocabularies) -> None:
    with pytest.raises(SchemaError, match="no column 'user_id'"):
        raw_histories(_request().drop(columns="user_id"), vocabularies)


def test_a_scalar_for_a_list_is_refused(vocabularies: Vocabularies) -> None:
    with pytest.raises(SchemaError, match=r"micro_ids of user 'ann' is 'i1'.*send a list"):
        raw_histories(_request(micro_ids=["i1"]), vocabularies)


def test_a_null_id_is_refused(vocabularies: Vocabularies) -> None:
    with pytest.raises(SchemaError, match="micro_ids of user 'ann' holds None"):
        raw_histories(_request(micro_ids=[["i1", None]]), vocabularies)


def test_half_a_character_is_refused(vocabularies: Vocabularies) -> None:
    with pytest.raises(SchemaError, match=r"micro_ids of user 'ann' holds '\\ud83d', which is not valid Unicode.*send whole characters"):
        raw_histories(_request(micro_ids=[["i1", "\ud83d"]]), vocabularies)
    with pytest.raises(SchemaError, match=r"user_id holds '\\ud83d'"):
        raw_histories(_request().assign(user_id=pd.Series(["\ud83d"], dtype=object)), vocabularies)


def test_whole_numbers_are_ids_too(vocabularies: Vocabularies) -> None:
    numbered = Vocabularies(vocabularies.macro_id, vocabularies.macro_category, _vocabulary("17", "4"), vocabularies.micro_category)
    assert raw_histories(_request(micro_ids=[[4, 17]]), numbered).micro.ids.tolist() == [2, 3]


@pytest.mark.parametrize("nothing", [None, [], np.array([]), float("nan")], ids=repr)
def test_a_null_cell_is_an_empty_history(vocabularies: Vocabularies, nothing: object) -> None:
    request = _request(micro_ids=[nothing], micro_categories=[nothing], micro_times=[nothing])
    assert raw_histories(request, vocabularies).micro.lengths.tolist() == [0]


def test_a_user_asked_for_twice_is_answered_twice(vocabularies: Vocabularies) -> None:
    request = pd.concat([_request(), _request(micro_ids=[["i3", "i3"]])])
    histories = raw_histories(request, vocabularies)
    assert histories.user_ids.tolist() == ["ann", "ann"]
    assert histories.micro.ids.tolist() == [3, 2, 4, 4]
