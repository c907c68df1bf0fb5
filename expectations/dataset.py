"""What a training dataset must be, judged on one row of metrics."""

from great_expectations import ExpectationSuite
from great_expectations.expectations import ExpectColumnValuesToBeBetween

from mfn_core.data.dataset import MOST_RETURNING


def suite(min_users: int) -> ExpectationSuite:
    """Checks on a dataset before anything is trained on it.

    Columns: ``dataset`` (its id), ``num_users``, ``num_train``, ``num_validation``, ``num_test``, ``split_mismatch`` (users less
    the three), ``leak_violations`` (inputs not older than their label), ``null_tokens`` (PAD inside a history),
    ``events_after_cut``, ``unknown_share`` (of training events), ``empty_histories`` (users without any event),
    ``returning_share`` (of the users with held-out events, whose test target is of an item that they had met; null where nothing is held
    out, or where seen items are not left out whatever the data are).
    """
    rebuild = {"remedy": "do not train on it: rebuild the dataset, and report the leak if it comes back"}
    few = {"remedy": "ingest more days or users, or lower min_users"}
    empty = {"remedy": "ingest more users, or choose another split_seed"}
    return ExpectationSuite(
        name="dataset",
        expectations=[
            ExpectColumnValuesToBeBetween(column="num_users", min_value=min_users, severity="critical", meta=few),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=1, severity="critical", meta=empty)
                for column in ("num_train", "num_validation", "num_test")
            ),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0, severity="critical", meta=rebuild)
                for column in ("split_mismatch", "leak_violations", "null_tokens", "events_after_cut", "empty_histories")
            ),
            ExpectColumnValuesToBeBetween(
                column="unknown_share", max_value=0.2, severity="warning", meta={"remedy": "lower min_count to know more apps and items"}
            ),
            ExpectColumnValuesToBeBetween(
                column="returning_share",
                max_value=MOST_RETURNING,
                severity="warning",
                meta={
                    "remedy": "people return to items here: set mask_seen to auto or off in the form; on, such targets are ranked against "
                    "new items alone, and no recommendation ever is of an item that its user has met"
                },
            ),
        ],
    )
