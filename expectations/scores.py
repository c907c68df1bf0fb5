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
    return ExpectationSuite(
        name="scores",
        expectations=[
            ExpectColumnValuesToBeBetween(column="users", min_value=1, severity="critical"),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0, severity="critical")
                for column in ("missing_users", "repeated_users", "not_finite", "outside_unit", "repeated_items")
            ),
            ExpectColumnValuesToBeBetween(column="largest_sum_error", max_value=_ROUNDING, severity="critical"),
            ExpectColumnValuesToBeBetween(column="mean_activity", min_value=0, max_value=1, severity="critical"),
            ExpectColumnValuesToBeBetween(column="without_items", max_value=0, severity="warning"),
        ],
    )
