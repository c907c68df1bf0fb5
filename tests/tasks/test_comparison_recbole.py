"""What is read of a run of RecBole's. RecBole itself is not needed."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfn_core.errors import ArtifactError
from tasks.comparison.recbole import read_scores
from tests.factories import app_log, dataset_of, item_log


@pytest.fixture
def dataset():
    """Users u1 and u2 have held-out events, u3 has nothing held out."""
    met = {"u1": ["b", "a", "c"], "u2": ["a", "b", "a", "d"], "u3": ["a", "b"]}
    events = [(user, item, "goods", f"2026-05-01T{hour:02d}:00:00") for user, items in met.items() for hour, item in enumerate(items)]
    return dataset_of(app_log([]), item_log(events), users=list(met))


def stored(folder, user_ids, ranks):
    path = folder / "scores.parquet"
    floats = pa.array(ranks, pa.float32())
    pq.write_table(pa.table({"user_id": pa.array(user_ids, pa.string()), "rank": floats, "baseline_rank": floats}), path)
    return str(path)


def test_scores_are_read_in_the_order_of_the_dataset(dataset, tmp_path):
    table = read_scores(stored(tmp_path, ["u2", "u1"], [2, 1]), dataset)
    assert table.to_pydict() == {"user_id": ["u1", "u2"], "rank": [1, 2], "baseline_rank": [1, 2]}


@pytest.mark.parametrize("user_ids", [["u1"], ["u1", "u3"], ["u1", "u2", "u3"], ["u1", "u1"]])
def test_scores_of_other_users_are_refused(dataset, tmp_path, user_ids):
    with pytest.raises(ArtifactError, match=f"have {len(user_ids)} users.* 2 held-out users"):
        read_scores(stored(tmp_path, user_ids, [0] * len(user_ids)), dataset)


def test_missing_and_foreign_files_are_refused(dataset, tmp_path):
    with pytest.raises(ArtifactError, match=r"nothing\.parquet cannot be read"):
        read_scores(str(tmp_path / "nothing.parquet"), dataset)
    pq.write_table(pa.table({"colour": ["red"]}), tmp_path / "foreign.parquet")
    with pytest.raises(ArtifactError, match=r"foreign\.parquet cannot be read"):
        read_scores(str(tmp_path / "foreign.parquet"), dataset)
