"""What published scores must be, judged on one row of metrics."""

from great_expectations import ExpectationSuite
from great_expectations.expectations import ExpectColumnValuesToBeBetween

_ROUNDING = 1e-3


def suite() -> ExpectationSuite:
    """Checks on the scores of all users before they are published.

    Columns: ``scores`` (their name), ``users``, ``missing_users``, ``repeated_users``, ``not_finite``, ``outside_unit``
    (probabilities out of [0, 1]), ``largest_sum_error`` (of the attribute probabilities of a user), ``without_items``,
    ``repeated_items``, ``mean_activity``.
    """
    nobody = {"remedy": "ingest and validate logs of days before as_of, or choose a later as_of"}
    scoring = {"remedy": "clear the task score; if it comes back, report it: a fault of the scoring, not of the model"}
    model = {"remedy": "the model is to blame: by mfn_promote, promote the version whose alias is previous, and trigger mfn_score again"}
    return ExpectationSuite(
        name="scores",
        expectations=[
            ExpectColumnValuesToBeBetween(column="users", min_value=1, severity="critical", meta=nobody),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0, severity="critical", meta=scoring)
                for column in ("missing_users", "repeated_users", "repeated_items")
            ),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0, severity="critical", meta=model)
                for column in ("not_finite", "outside_unit")
            ),
            ExpectColumnValuesToBeBetween(column="largest_sum_error", max_value=_ROUNDING, severity="critical", meta=model),
            ExpectColumnValuesToBeBetween(column="mean_activity", min_value=0, max_value=1, severity="critical", meta=model),
            ExpectColumnValuesToBeBetween(
                column="without_items",
                max_value=0,
                severity="warning",
                meta={
                    "remedy": "of all users, and the model has not learned the recommendation; of some, and they have met every item that "
                    "it knows: train with more items, or with mask_seen=auto or off where people return to items"
                },
            ),
        ],
    )
