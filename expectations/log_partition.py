"""What a curated day must be, judged on one row of metrics per day."""

from great_expectations import ExpectationSuite
from great_expectations.expectations import (
    ExpectColumnValuesToBeBetween,
    ExpectColumnValuesToBeUnique,
    ExpectColumnValuesToNotBeNull,
)

from mfn_core.schema import PARTITION, LogSchema


def suite(log: LogSchema) -> ExpectationSuite:
    """Checks on the days of one log before they are published.

    Columns: ``dt``, ``read``, ``accepted``, ``quarantined``, ``duplicates``, ``late``, ``users``, ``entities``, ``categories``,
    ``null_keys``, ``equal_rows`` (rows beyond the first of equal ones), ``outside_day`` (rows of another day), ``null_seq_no``,
    ``negative_durations``.
    """
    return ExpectationSuite(
        name=f"{log.dataset}_partition",
        expectations=[
            ExpectColumnValuesToNotBeNull(column=PARTITION, severity="critical"),
            ExpectColumnValuesToBeUnique(column=PARTITION, severity="critical"),
            ExpectColumnValuesToBeBetween(column="accepted", min_value=1, severity="critical"),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0, severity="critical")
                for column in ("null_keys", "equal_rows", "outside_day", "null_seq_no")
            ),
            ExpectColumnValuesToBeBetween(column="negative_durations", max_value=0, severity="warning"),
            ExpectColumnValuesToBeBetween(column="users", min_value=2, severity="warning"),
            ExpectColumnValuesToBeBetween(column="categories", min_value=2, max_value=10_000, severity="warning"),
            ExpectColumnValuesToBeBetween(column="quarantined", max_value=0, severity="info"),
        ],
    )
