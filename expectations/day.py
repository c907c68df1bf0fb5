"""What a day must be across both logs, judged on one row of metrics per day and log."""

from typing import Literal

from great_expectations import ExpectationSuite
from great_expectations.expectations import ExpectColumnValuesToBeBetween

_MAX_SILENT_HOURS = 6
_MIN_LIKELY_OVERLAP = 0.01  # ids of two kinds meet too, by chance or by a test account


def suite(
    *, min_volume_ratio: float, max_volume_ratio: float, max_new_category_share: float, min_user_overlap: float, fail_on_drift: bool
) -> ExpectationSuite:
    """Checks on curated days before anything is trained on them.

    Columns: ``day`` (day and log), ``rows``, ``volume_ratio`` (rows by the median of the reference days), ``new_category_share``
    (rows in categories that the reference days do not have), ``new_categories`` (their names), ``silent_hours`` (from the last
    event to the end of the day, beyond the median of the reference days), ``user_overlap`` (share of the users of the smaller log
    whom the other log knows). A metric is null where there is nothing to compare with.

    Args:
        min_volume_ratio: limit of ``volume_ratio``.
        max_volume_ratio: limit of ``volume_ratio``.
        max_new_category_share: limit of ``new_category_share``.
        min_user_overlap: limit of ``user_overlap``; less than 0.01 is a warning in any case.
        fail_on_drift: volume out of its limits is critical, else a warning.
    """
    same_users = "compare the user ids of both logs: they must be of one kind"
    drift: Literal["critical", "warning"] = "critical" if fail_on_drift else "warning"
    return ExpectationSuite(
        name="day",
        expectations=[
            ExpectColumnValuesToBeBetween(column="rows", min_value=1, severity="critical", meta={"remedy": "ingest the day again"}),
            ExpectColumnValuesToBeBetween(
                column="volume_ratio",
                min_value=min_volume_ratio,
                max_value=max_volume_ratio,
                severity=drift,
                meta={"remedy": "ask the producer for missing or repeated files, or widen min_volume_ratio and max_volume_ratio"},
            ),
            ExpectColumnValuesToBeBetween(
                column="new_category_share",
                max_value=max_new_category_share,
                severity="critical",
                meta={
                    "detail": "new_categories",
                    "remedy": "if the categories were renamed, ingest the earlier days again under the new names, or raise the limit",
                },
            ),
            ExpectColumnValuesToBeBetween(
                column="silent_hours",
                max_value=_MAX_SILENT_HOURS,
                severity="warning",
                meta={"remedy": "ask the producer whether the day was cut short, and ingest it again when the rest is there"},
            ),
            ExpectColumnValuesToBeBetween(
                column="user_overlap",
                min_value=min_user_overlap,
                severity="critical",
                meta={"remedy": f"{same_users}; or lower min_user_overlap"},
            ),
            ExpectColumnValuesToBeBetween(
                column="user_overlap", min_value=_MIN_LIKELY_OVERLAP, severity="warning", meta={"remedy": same_users}
            ),
        ],
    )
