"""One flat model per DAG: the form in the Airflow UI is generated from it, and the first task validates it again."""

from datetime import date

from pydantic import Field

from mfn_core.config import Config, DatasetConfig, NetworkConfig, SimulationConfig, TrainingConfig


class IngestConfig(Config):
    """Ingest of one log: the day of the schedule, or a range of days for a first load."""

    first_day: date | None = Field(
        None,
        description="First day to ingest. Empty: the run's partition, in scheduled runs with the days before it that are new or changed; "
        "for a manual run, the first raw day.",
    )
    last_day: date | None = Field(None, description="Last day to ingest. Empty: the run's partition; for a manual run, the last raw day.")
    days_per_chunk: int = Field(31, ge=1, le=366, description="Days that one mapped task reads at once.")


class IngestUsersConfig(Config):
    """Ingest of the users table."""


class ValidateConfig(Config):
    """Checks across both logs of a day, or of a range of days."""

    first_day: date | None = Field(
        None,
        description="First day to validate. Empty: the run's partition and what it takes along; for a manual run, the first curated day.",
    )
    last_day: date | None = Field(
        None, description="Last day to validate. Empty: the run's partition; for a manual run, the last curated day."
    )
    reference_days: int = Field(28, ge=1, le=366, description="Days before, that volume and categories are compared with.")
    min_volume_ratio: float = Field(
        0.2,
        ge=0,
        description="A day with fewer rows than this multiple of the median of the reference days is warned of; with fail_on_drift it is "
        "stopped.",
    )
    max_volume_ratio: float = Field(
        5.0,
        gt=0,
        description="A day with more rows than this multiple of the median of the reference days is warned of; with fail_on_drift it is "
        "stopped.",
    )
    max_new_category_share: float = Field(
        0.2, ge=0, le=1, description="A larger share of a day's rows in categories that the reference days lack stops the day."
    )
    min_category_rows: int = Field(
        100,
        ge=1,
        description="Categories of a day are compared where it has this many rows, and its reference days together as many. Of more than "
        "10 categories, the reference days need a tenth of it for each.",
    )
    min_user_overlap: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A day of which a smaller share of the users of the smaller log is known to the other log is stopped; below 0.01 it is "
        "warned of in any case.",
    )
    fail_on_drift: bool = Field(False, description="Volume out of its limits stops the day; else it is warned of.")
    accept_missing_log: bool = Field(
        False,
        description="Judge the day (first_day and last_day alike) by the log that it has, where the other is lost for good, or nobody used "
        "it that day; a day that no log has is passed over. It stays with the day.",
    )


class _LearningConfig(DatasetConfig, NetworkConfig, TrainingConfig):
    """What is learned from, and how: of a training and of a comparison alike."""

    first_day: date | None = Field(None, description="First curated day to learn from. Empty: all.")
    last_day: date | None = Field(None, description="Last curated day to learn from. Empty: all.")


class TrainConfig(_LearningConfig):
    """Everything that shapes a model, from curated logs to the registry."""

    bootstrap_samples: int = Field(
        1000,
        ge=100,
        le=10_000,
        description="Resamples of the test users for intervals and the gate. Time grows with them: of 100,000 test users a thousand take "
        "some ten seconds a label, up to a minute for an attribute of 50 classes, the gate twice that; it ends after six hours.",
    )
    force: bool = Field(False, description="Train although a version with the same fingerprint is registered.")


class CompareConfig(_LearningConfig):
    """Models on one dataset: the network of this form, the same without one of its parts, and its rivals."""

    models: tuple[str, ...] | None = Field(
        None,
        description="Models to compare, one name a line. Networks: mfn, paper, macro_only, micro_only, concatenation, no_alignment, "
        "no_mutual_information, no_gate, shuffled_macro. Classical rivals of recommendation: popularity, bigram, skip_bigram, item_knn; of "
        "activity and attributes: logistic, lightgbm_counts, lightgbm_crosses, lightgbm_items. RecBole's: sasrec, gru4rec, bert4rec. "
        "Empty: all.",
    )
    seeds: int = Field(5, ge=1, le=100, description="Runs of every model; the first has the seed of the training, each other one more.")
    trials: int = Field(8, ge=1, le=1000, description="Settings that each classical rival tries on validation. Networks are not tuned.")
    recbole_scores: str = Field(
        "", description="Folder of what RecBole's finished runs on this dataset wrote (benchmarks/recbole/README.md). Empty: none."
    )
    bootstrap_samples: int = Field(
        1000, ge=100, le=10_000, description="Resamples of the test users for intervals and verdicts; time grows with them."
    )


class PromoteConfig(Config):
    """Makes a version the champion."""

    version: int | None = Field(None, ge=1, description="Version to promote. Empty: the one with alias candidate.")
    reason: str = Field("", max_length=1000, description="Why; kept as a tag of the version.")


class ScoreConfig(Config):
    """Batch scoring of every user."""

    as_of: date | None = Field(
        None,
        description="Events before this day, 00:00 UTC, are read. Empty: the day after the last validated day, or after the last curated "
        "one where none is validated.",
    )
    alias: str = Field(
        "champion", min_length=1, description="Alias of the model to score with. Scores of another become the latest of their day."
    )
    top_k: int = Field(10, ge=1, le=1000, description="Items per user. Another number replaces the scores of the same day and version.")
    batch_size: int = Field(128, ge=1, le=65_536, description="Users per batch.")


class SimulateConfig(SimulationConfig):
    """Writes the raw logs of a simulated world."""
