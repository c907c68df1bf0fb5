"""The data contract: every column name of logs and users is typed here once.

Raw and curated logs share these names. In curated logs ids and categories are strings, ``event_time`` is
``timestamp[us, UTC]``, and ``seq_no`` is always present (0 where the source has none).
"""

from dataclasses import dataclass
from typing import Literal

View = Literal["macro", "micro"]
DownstreamTask = Literal["activity", "attribute", "recommendation"]
DOWNSTREAM_TASKS: tuple[DownstreamTask, ...] = ("activity", "attribute", "recommendation")

Split = Literal["train", "validation", "test"]
MaskSeen = Literal["auto", "on", "off"]  # see Dataset.masks_seen
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

USER_ID = "user_id"
EVENT_TIME = "event_time"
EVENT_TYPE = "event_type"
SEQ_NO = "seq_no"
PARTITION = "dt"

PAD = 0
UNKNOWN = 1
FIRST_KNOWN = 2  # internal id of the first token that a vocabulary knows
PAD_TOKEN = "<pad>"
UNKNOWN_TOKEN = "<unknown>"


@dataclass(frozen=True)
class LogSchema:
    """The contract of one log."""

    view: View
    dataset: str
    id: str
    category: str
    duration: str

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a raw file must have."""
        return (USER_ID, self.id, self.category, EVENT_TIME)

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that are kept where the source has them."""
        return (EVENT_TYPE, self.duration, SEQ_NO)

    @property
    def order(self) -> tuple[str, ...]:
        """What orders the rows of a log, first to last; no total order yet: rows may be alike in all four.

        ``total_order`` (tasks/log_rows.py) adds the category and the other columns, so that every engine and every run sorts alike.
        """
        return (USER_ID, EVENT_TIME, SEQ_NO, self.id)


APP_LOGS = LogSchema("macro", "app_logs", "app_id", "app_category", "duration_s")
ITEM_LOGS = LogSchema("micro", "item_logs", "item_id", "item_category", "dwell_s")
USERS = "users"
LOGS: dict[View, LogSchema] = {"macro": APP_LOGS, "micro": ITEM_LOGS}
