"""What a curated day must be, judged on one row of metrics per day."""

from great_expectations import ExpectationSuite
from great_expectations.expectations import (
    ExpectColumnValuesToBeBetween,
    ExpectColumnValuesToBeUnique,
    ExpectColumnValuesToNotBeNull,
)

from expectations import FAULT_OF_INGEST
from mfn_core.schema import PARTITION, LogSchema

# Of the frame of metrics. All but the first are numbers of rows or of distinct values.
COLUMNS = (
    PARTITION,
    "read",
    "accepted",
    "quarantined",
    "duplicates",
    "late",
    "users",
    "entities",
    "categories",
    "null_keys",
    "equal_rows",  # beyond the first of equal ones
    "outside_day",  # of another day
    "null_seq_no",
    "negative_durations",
)


def suite(log: LogSchema) -> ExpectationSuite:
    """Checks on the days of one log before they are published, with the columns ``COLUMNS``."""
    columns = f"MFN_{log.dataset.upper().removesuffix('S')}_COLUMNS"
    return ExpectationSuite(
        name=f"{log.dataset}_partition",
        expectations=[
            ExpectColumnValuesToNotBeNull(column=PARTITION, severity="critical", meta=FAULT_OF_INGEST),
            ExpectColumnValuesToBeUnique(column=PARTITION, severity="critical", meta=FAULT_OF_INGEST),
            ExpectColumnValuesToBeBetween(column="accepted", min_value=1, severity="critical", meta=FAULT_OF_INGEST),
            *(
                ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0, severity="critical", meta=FAULT_OF_INGEST)
                for column in ("null_keys", "equal_rows", "outside_day", "null_seq_no")
            ),
            ExpectColumnValuesToBeBetween(
                column="negative_durations",
                max_value=0,
                severity="warning",
                meta={"remedy": f"no model reads {log.duration}, whoever else does is misled: have the producer correct it"},
            ),
            ExpectColumnValuesToBeBetween(
                column="users",
                min_value=2,
                severity="warning",
                meta={"remedy": f"ask the producer for the rest of the day, and see that {columns} names the column of the users"},
            ),
            ExpectColumnValuesToBeBetween(
                column="categories",
                min_value=2,
                max_value=10_000,
                severity="warning",
                meta={
                    "remedy": f"one category tells nothing apart, and of so many each is rare: deliver some dozens as {log.category}, "
                    f"or name their column by {columns}"
                },
            ),
            ExpectColumnValuesToBeBetween(
                column="quarantined",
                max_value=0,
                severity="info",
                meta={"remedy": f"read _reason of the rows under quarantine/{log.dataset}, and have the producer correct them"},
            ),
        ],
    )
