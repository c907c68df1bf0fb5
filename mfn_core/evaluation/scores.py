"""What a model says about users beside the truth, one row per user and label: the one form that evaluator, rivals and records share.

Columns by downstream task: ``label, score`` (activity); ``attribute, label, probabilities`` (attribute); ``rank, baseline_rank``
(recommendation); the user's id before them.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfn_core.schema import USER_ID

ACTIVITY = pa.schema([(USER_ID, pa.string()), ("label", pa.int8()), ("score", pa.float32())])
ATTRIBUTE = pa.schema(
    [(USER_ID, pa.string()), ("attribute", pa.string()), ("label", pa.int32()), ("probabilities", pa.list_(pa.float32()))]
)
RECOMMENDATION = pa.schema([(USER_ID, pa.string()), ("rank", pa.float32()), ("baseline_rank", pa.float32())])


def activity_scores(user_ids: NDArray[np.object_], label_B: NDArray[np.integer], score_B: NDArray[np.floating]) -> pa.Table:
    """Labels 0 or 1, and the probability of 1."""
    return pa.table([user_ids, label_B, score_B.astype(np.float32)], schema=ACTIVITY)


def attribute_scores(
    user_ids: NDArray[np.object_], attribute: str, label_B: NDArray[np.integer], probability_BC: NDArray[np.floating]
) -> pa.Table:
    """Classes of one attribute, and the probability of each class."""
    return pa.table([user_ids, [attribute] * len(user_ids), label_B, list(probability_BC.astype(np.float32))], schema=ATTRIBUTE)


def recommendation_scores(user_ids: NDArray[np.object_], rank_B: NDArray[np.float32], baseline_rank_B: NDArray[np.float32]) -> pa.Table:
    """Ranks of the held-out items, 0 is first, by the model and by popularity."""
    return pa.table([user_ids, rank_B, baseline_rank_B], schema=RECOMMENDATION)
