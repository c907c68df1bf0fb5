"""What a training run tells while it goes and when it ends. Free of torch: the task that relays it stays light."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Stop = Literal["max_epochs", "patience", "max_minutes"]


@dataclass(frozen=True)
class Progress:
    """One report: within an epoch's training or validation, at the end of the epoch, or while the labels are learned after the last.

    ``losses`` are means over the epoch so far (total, next_item, next_app, activity, attribute, mutual_information). ``validation``
    and ``score`` belong to the end of an epoch: ``activity_auc``, ``attribute_auc`` (and one per attribute), ``ndcg@10``,
    ``hr@10``, as far as the data gives them. Epochs count from 1. One that ``max_minutes`` cut short ends at a step before the last.
    """

    phase: Literal["training", "validation", "epoch", "labels"]
    epoch: int
    max_epochs: int
    step: int
    num_steps: int
    losses: dict[str, float]
    validation: dict[str, float]
    score: float | None
    best_epoch: int
    best_score: float | None
    users_per_s: float
    seconds_left: float  # at most: patience or max_minutes may end the run before

    def line(self) -> str:
        """The report in one line for a person."""
        parts = [f"epoch {self.epoch}/{self.max_epochs}"]
        if self.phase != "epoch":
            parts.append(f"{self.phase} step {self.step}/{self.num_steps}")
        elif self.step < self.num_steps:
            parts.append(f"ended at step {self.step}/{self.num_steps}")
        parts += [f"loss {self.losses['total']:.4f}"] if self.losses else []
        parts += [f"{name} {value:.4f}" for name, value in self.validation.items()]
        if self.phase == "epoch" and self.best_epoch:
            parts.append(f"best epoch {self.best_epoch}" + ("" if self.best_score is None else f" ({self.best_score:.4f})"))
        return ", ".join([*parts, f"{self.users_per_s:,.0f} users/s", f"at most {_duration(self.seconds_left)} left"])

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingResult:
    """How a finished run went. ``history`` holds the last report of every epoch."""

    data: str  # SHA-256 of all that was read
    stopped: Stop
    epochs: int
    best_epoch: int
    best_score: float | None
    validation: dict[str, float]
    num_parameters: int
    num_users: int
    device: str
    precision: str
    seconds: float
    encoder_seconds: float  # of these, until the last epoch was over
    users_per_s: float
    history: tuple[Progress, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> "TrainingResult":
        """What ``to_json`` gave.

        Raises:
            TypeError: it is of another version.
        """
        told: dict[str, Any] = {**content, "history": tuple(Progress(**each) for each in content["history"])}
        return TrainingResult(**told)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
