"""Tells the terminal what goes on, with the time since the start."""

import logging
import time
from typing import TextIO


class Narrator(logging.Handler):
    """Prints lines, and the records of the loggers that it is given to."""

    def __init__(self, terminal: TextIO | None = None, started: float | None = None) -> None:
        """Start the clock, or take over one.

        Args:
            terminal: None: the standard output.
            started: of ``time.monotonic``; None: now.
        """
        super().__init__(logging.INFO)
        self._terminal = terminal
        self._started = time.monotonic() if started is None else started

    def say(self, line: str) -> None:
        """Print a line."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        print(f"{minutes:3d}:{seconds:02d}  {line}", file=self._terminal, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record: an epoch of the training."""
        self.say(f"  {record.getMessage()}")
