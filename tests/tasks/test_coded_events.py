"""Events of curated files as numbers: who, what and when, in the files of their shards."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.data.window import seconds_of
from mfn_core.schema import APP_LOGS, PARTITION, USER_ID
from tasks import coded_events, curated
from tasks.coded_events import CodedEvents
from tasks.manifest import Manifest
from tests.factories import app_log

ANN = ("ann", "mail", "work", "2026-03-02T08:00:00")
BOB = ("bob", "bank", "money", "2026-03-02T09:00:00")
LATER_ANN = ("ann", "bank", "money", "2026-03-03T07:00:00")
AFTER = ("ann", "game", "fun", "2026-03-04T00:00:00")
CUT = seconds_of(np.datetime64("2026-03-04").item())
USERS, SHARD_STARTS = np.array(["bob", "ann"], object), np.array([0, 1, 2])  # bob in the first shard, ann in the second


def publish(folder: Path, days: dict[str, list], **options) -> list[Manifest]:
    """The manifests of curated days, each of one file."""
    found = []
    for day, rows in days.items():
        uri = folder / f"dt={day}"
        uri.mkdir()
        pq.write_table(app_log(rows), uri / "part.parquet", **options)
        found.append(Manifest(kind="curated", uri=str(uri), digest="", facts={curated.FILES: ["part.parquet"], PARTITION: day}))
    return found


def coded(folder: Path, days: list[Manifest]) -> CodedEvents:
    aside = folder / "aside"
    aside.mkdir()
    return CodedEvents.write({"macro": days}, USERS, SHARD_STARTS, CUT, aside)


def apps_of(events: CodedEvents, number: int) -> list[tuple]:
    rows = events.of_shard("macro", number, slice(number, number + 1)).to_pylist()
    return [(row[USER_ID], row[APP_LOGS.id], row[APP_LOGS.category], row["event_time"].isoformat()[:19]) for row in rows]


DELTA = {"use_dictionary": False, "column_encoding": {USER_ID: "DELTA_BYTE_ARRAY"}}


@pytest.mark.parametrize("options", [{}, {"row_group_size": 1}, DELTA], ids=["dictionaries", "row groups", "differences"])
@pytest.mark.parametrize("rows_per_group", [1, 100])
def test_a_shard_has_the_events_of_its_users_before_the_cut(tmp_path, monkeypatch, options, rows_per_group):
    monkeypatch.setattr(coded_events, "_ROWS_PER_GROUP", rows_per_group)
    days = publish(tmp_path, {"2026-03-02": [ANN, BOB], "2026-03-03": [LATER_ANN, AFTER]}, **options)
    events = coded(tmp_path, days)
    assert apps_of(events, 0) == [BOB]
    assert apps_of(events, 1) == [ANN, LATER_ANN]


def test_days_from_the_cut_on_are_not_opened(tmp_path):
    days = publish(tmp_path, {"2026-03-02": [ANN, BOB], "2026-03-04": [AFTER]})
    Path(days[1].uri, "part.parquet").unlink()
    assert apps_of(coded(tmp_path, days), 1) == [ANN]


def test_the_draft_knows_every_token_before_the_cut(tmp_path):
    days = publish(tmp_path, {"2026-03-02": [ANN, BOB], "2026-03-04": [AFTER]})
    draft = coded(tmp_path, days).draft_vocabularies()
    assert (draft.macro_id.tokens.to_pylist(), draft.macro_category.tokens.to_pylist()) == (["bank", "mail"], ["money", "work"])
    assert len(draft.micro_id.tokens) == 0


def test_a_view_that_is_not_there_has_no_events_and_a_shard_without_events_has_no_rows(tmp_path):
    events = coded(tmp_path, publish(tmp_path, {"2026-03-02": [ANN]}))
    assert events.of_shard("micro", 0, slice(0, 1)) is None
    assert events.of_shard("macro", 0, slice(0, 1)).schema.field(USER_ID).type == pa.dictionary(pa.int32(), pa.string())
    assert apps_of(events, 0) == []
