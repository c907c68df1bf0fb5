"""What ``benchmarks/recbole`` wrote of a model of RecBole's, read into a comparison."""

from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mfn_core.data.dataset import Dataset
from mfn_core.errors import ArtifactError
from mfn_core.evaluation.scores import RECOMMENDATION
from mfn_core.schema import USER_ID
from tasks.held_out import held_out_rows

SECONDS = "seconds_of_all_trials"  # in the JSON of a run


def read_scores(uri: str, dataset: Dataset) -> pa.Table:
    """Read what RecBole's run wrote of this dataset, in the dataset's order of users.

    Raises:
        ArtifactError: the file is missing, damaged, or of other users.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            table = pq.read_table(file).select(RECOMMENDATION.names).cast(RECOMMENDATION)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise ArtifactError(f"scores {uri} cannot be read ({error}); run RecBole again") from error
    expected: list[Any] = dataset.histories.user_ids[held_out_rows(dataset)].tolist()
    place = {user: position for position, user in enumerate(table[USER_ID].to_pylist())}
    if len(table) != len(expected) or any(user not in place for user in expected):
        missing = sum(user not in place for user in expected)
        raise ArtifactError(
            f"scores {uri} have {len(table)} users, of whom {missing} of the dataset's {len(expected)} held-out users are missing; "
            "run RecBole on this dataset"
        )
    return table.take(pa.array([place[user] for user in expected]))
