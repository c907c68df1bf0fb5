"""Where things are and how this installation behaves. The only reader of the environment.

Every field is set by ``MFN_<NAME>``; a misspelt ``MFN_`` variable is an error, not a silent default.
"""

import os
import re
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from mfn_core.errors import ConfigError
from mfn_core.schema import View
from tasks.config_errors import invalid, unknown

_PREFIX = "MFN_"
_REPOSITORY = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings of this installation."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    home: Path = Field(_REPOSITORY, description="The folder that holds dags/ and mfn_core/.")
    var: Path = Field(_REPOSITORY / "var", description="Folder of everything that is written: databases, logs, artifacts.")
    raw_uri: str = Field("", description="Folder of raw app_logs/, item_logs/ and users. Empty: <var>/raw.")
    store_uri: str = Field("", description="Folder of curated logs, datasets, training runs and scores. Empty: <var>/store.")
    tracking_uri: str = Field("", description="MLflow tracking URI. Empty: SQLite under <var>/mlflow.")
    experiment: str = Field("mfn", description="MLflow experiment.")
    model_name: str = Field("mfn", description="Name of the registered model.")
    views: tuple[View, ...] = Field(("macro", "micro"), min_length=1, description="The views that this deployment has.")
    app_log_columns: dict[str, str] = Field({}, description="Source column of each contract column of the app log, where they differ.")
    item_log_columns: dict[str, str] = Field({}, description="The same for the item log.")
    user_columns: dict[str, str] = Field({}, description="The same for the users table.")
    late_rows: Literal["event_time", "quarantine"] = Field(
        "event_time", description="Rows of another day than their folder's: to the partition of their event time, or to quarantine."
    )
    redelivery_days: int = Field(
        7,
        ge=0,
        le=366,
        description="Days before its own that a scheduled ingest reads too, where their raw files have changed or were never read.",
    )
    earliest_day: date = Field(
        date(1970, 1, 2), description="Rows with an event_time before this day, 00:00 UTC, are rejected: times of dead clocks, zeros."
    )
    max_rejected_share: float = Field(0.01, ge=0, le=1, description="Above this share of rejected rows nothing is published.")
    max_duplicate_share: float = Field(0.2, ge=0, le=1, description="Above this share of exact duplicates nothing is published.")
    promotion: Literal["automatic", "manual"] = Field(
        "automatic", description="automatic: a candidate that passes the gate becomes champion. manual: mfn_promote waits to be triggered."
    )
    duckdb_memory_limit: str = Field("4GB", description="Memory limit of the ETL engine; it spills to disk above.")
    duckdb_threads: int = Field(2, ge=1, description="Threads of the ETL engine.")
    training_processes: int = Field(
        1, ge=1, description="Processes that train one network together: on a GPU each, or on a share of the CPU's cores each."
    )
    airflow_url: str = Field("http://127.0.0.1:8080", description="Address of the Airflow UI, for links.")
    mlflow_url: str = Field("http://127.0.0.1:5000", description="Address of the MLflow UI, for links.")

    @cached_property
    def raw(self) -> str:
        """URI of the raw logs."""
        return self.raw_uri or str(self.var / "raw")

    @cached_property
    def store(self) -> str:
        """URI of the pipeline's artifacts; MLflow's, Data Docs, locks and scratch files lie elsewhere."""
        return self.store_uri or str(self.var / "store")

    @cached_property
    def tracking(self) -> str:
        """Absolute MLflow tracking URI."""
        return self.tracking_uri or f"sqlite:///{self.var / 'mlflow' / 'mlflow.db'}"

    @cached_property
    def passwords(self) -> list[str]:
        """Passwords that the URIs carry, as they stand there and as they are meant: no log may show them."""
        found = (re.search(r"//[^/:@]*:([^/]+)@", uri) for uri in (self.raw, self.store, self.tracking))
        return sorted({spelt for each in found if each for spelt in (each[1], unquote(each[1]))})

    @cached_property
    def scratch(self) -> Path:
        """Local folder for spilling and for files on their way to the store."""
        return self.var / "scratch"


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigError: an ``MFN_`` variable is unknown or its value is out of range.
    """
    known = [_variable(name) for name in Settings.model_fields]
    if strange := sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known):
        raise ConfigError(unknown("environment variable", strange, known))
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError(f"{invalid(error, _variable)}. Set another value, or unset the variable") from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        named = _variable(field[1]) if field else str(error)
        raise ConfigError(
            f'{named}={os.environ.get(named)!r}: {error.__cause__}; it is JSON, a list as ["micro"], a mapping as {{"user_id": "uid"}}'
        ) from error


def _variable(field: str) -> str:
    return f"{_PREFIX}{field}".upper()
