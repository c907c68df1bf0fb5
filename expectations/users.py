"""What the curated users table must be, judged on one row of metrics per column."""

from great_expectations import ExpectationSuite
from great_expectations.expectations import ExpectColumnValuesToBeBetween

from expectations import FAULT_OF_INGEST
from mfn_core.data.attributes import MAX_AUTO_CLASSES, MIN_CLASSES


def suite() -> ExpectationSuite:
    """Checks on the users table before it is published.

    Columns: ``column``, ``rows``, ``null_ids`` and ``repeated_ids`` (0 for attributes), ``classes`` (null for the id),
    ``labelled_share`` (of the users).
    """
    return ExpectationSuite(
        name="users",
        expectations=[
            ExpectColumnValuesToBeBetween(
                column="rows", min_value=1, severity="critical", meta={"remedy": "deliver the users table again with its rows"}
            ),
            ExpectColumnValuesToBeBetween(column="null_ids", min_value=0, max_value=0, severity="critical", meta=FAULT_OF_INGEST),
            ExpectColumnValuesToBeBetween(column="repeated_ids", min_value=0, max_value=0, severity="critical", meta=FAULT_OF_INGEST),
            ExpectColumnValuesToBeBetween(
                column="classes",
                min_value=MIN_CLASSES,
                max_value=MAX_AUTO_CLASSES,
                severity="warning",
                meta={
                    "remedy": f"training leaves the column out: deliver {MIN_CLASSES} to {MAX_AUTO_CLASSES} classes, or "
                    "name it by the Param attributes to predict more all the same"
                },
            ),
            ExpectColumnValuesToBeBetween(
                column="labelled_share",
                min_value=0.01,
                severity="warning",
                meta={"remedy": "deliver more values, or leave the column out by the Param attributes: hardly any user teaches it"},
            ),
        ],
    )
