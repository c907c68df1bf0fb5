"""The history of a run, its clock, and what it tells."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from mfn_core.config import TrainingConfig
from mfn_core.training.progress import Progress, Stop

_SECONDS_BETWEEN_REPORTS = 5.0


class Journal:
    """One entry per finished epoch; earlier attempts count, by their entries and by their seconds.

    The clock starts when it is made.

    Args:
        config: the limits: epochs, patience, minutes.
        report: told what happens.
    """

    def __init__(self, config: TrainingConfig, report: Callable[[Progress], None]) -> None:
        self.history: tuple[Progress, ...] = ()
        self._config, self._report = config, report
        self._seconds_before = 0.0
        self._started = self._last_report = time.monotonic()

    def go_on(self, history: Sequence[Progress], seconds: float) -> None:
        """Take over the entries and the seconds of an earlier attempt."""
        self.history, self._seconds_before = tuple(history), seconds

    @property
    def seconds(self) -> float:
        """Of the run so far."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def is_time_up(self) -> bool:
        """Whether ``max_minutes`` have passed."""
        return self.seconds >= self._config.max_minutes * 60

    @property
    def is_report_due(self) -> bool:
        """Whether nothing has been told for some seconds."""
        return time.monotonic() - self._last_report >= _SECONDS_BETWEEN_REPORTS

    def stopped(self) -> Stop | None:
        """The limit that the last finished epoch has met."""
        if not self.history:
            return None
        last = self.history[-1]
        if last.step < last.num_steps:  # nothing else cuts an epoch short
            return "max_minutes"
        if last.epoch >= self._config.max_epochs:
            return "max_epochs"
        if last.epoch - last.best_epoch >= self._config.patience:
            return "patience"
        return "max_minutes" if self.is_time_up else None

    def tell(
        self,
        phase: Literal["training", "validation", "labels"],
        epoch: int,
        step: int,
        num_steps: int,
        losses: dict[str, float],
        users_per_s: float,
    ) -> None:
        """Report what goes on."""
        best = (self.history[-1].best_epoch, self.history[-1].best_score) if self.history else (0, None)
        self._say(self._progress(phase, epoch, step, num_steps, losses, users_per_s, best))

    def write(
        self,
        epoch: int,
        step: int,
        num_steps: int,
        losses: dict[str, float],
        users_per_s: float,
        validation: dict[str, float],
        score: float | None,
    ) -> Progress:
        """Make the entry of an epoch that ended at a step, the last or not; ``tell_last`` tells it, once it is safe."""
        progress = self._progress("epoch", epoch, step, num_steps, losses, users_per_s, self._best(epoch, score))
        self.history += (replace(progress, validation=validation, score=score),)
        return self.history[-1]

    def tell_last(self) -> None:
        """Report the last entry."""
        self._say(self.history[-1])

    def _progress(
        self,
        phase: Literal["training", "validation", "epoch", "labels"],
        epoch: int,
        step: int,
        num_steps: int,
        losses: dict[str, float],
        users_per_s: float,
        best: tuple[int, float | None],
    ) -> Progress:
        return Progress(
            phase=phase,
            epoch=epoch,
            max_epochs=self._config.max_epochs,
            step=step,
            num_steps=num_steps,
            losses=losses,
            validation={},
            score=None,
            best_epoch=best[0],
            best_score=best[1],
            users_per_s=users_per_s,
            seconds_left=self._seconds_left(epoch - 1 + step / num_steps if phase == "training" else epoch),
        )

    def _best(self, epoch: int, now: float | None) -> tuple[int, float | None]:
        """Epoch and score of the best weights. Without a score the latest are the best."""
        last = self.history[-1] if self.history else None
        if last is None or now is None or last.best_score is None or now > last.best_score:
            return epoch, now
        return last.best_epoch, last.best_score

    def _seconds_left(self, epochs_done: float) -> float:
        """At most this many seconds are left, at the pace so far: by the epochs to go and by ``max_minutes``."""
        seconds = self.seconds
        by_epochs = seconds / epochs_done * (self._config.max_epochs - epochs_done)
        return min(by_epochs, max(self._config.max_minutes * 60 - seconds, 0.0))

    def _say(self, progress: Progress) -> None:
        self._last_report = time.monotonic()
        self._report(progress)
