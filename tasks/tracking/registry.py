"""Registered versions: their evidence in tags, their standing in aliases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfn_core.errors import ConfigError
from tasks.settings import Settings
from tasks.tracking import FINGERPRINT
from tasks.tracking.client import connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

GATE, PASSED, GATE_REASON, GATE_CHAMPION = "mfn.gate", "passed", "mfn.gate.reason", "mfn.gate.champion"
SPLIT_SEED = "mfn.split_seed"
DATA_END = "mfn.dataset.end"  # ISO day, 00:00 UTC: neither histories nor labels reach it
HORIZON = "mfn.dataset.horizon_days"  # "None": no activity
MASK_SEEN = "mfn.recommendation.mask_seen"  # "True": items that a user has met are not recommended
PROMOTED_AT = "mfn.promoted_at"
CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"
_MAX_TAG = 100_000  # of a version, longer than of a run: JSON that is cut is none


@dataclass(frozen=True)
class Version:
    """A registered version."""

    number: int
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]


def find_version(settings: Settings, fingerprint: str) -> Version | None:
    """The registered version with this fingerprint, if there is one."""
    return next((version for version in versions(settings) if version.tags.get(FINGERPRINT) == fingerprint), None)


def register_version(settings: Settings, run_id: str, model_id: str, tags: Mapping[str, str]) -> Version:
    """Register a logged model under the settings' name, with its evidence."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    client = connect(settings)
    try:
        client.create_registered_model(settings.model_name, description="Macro-Micro Fusion Network: raw histories in, answers out.")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    kept = {key: str(value)[:_MAX_TAG] for key, value in tags.items()}
    return _version(client.create_model_version(settings.model_name, f"models:/{model_id}", run_id, tags=kept, model_id=model_id))


def versions(settings: Settings) -> list[Version]:
    """All registered versions, newest first."""
    client = connect(settings)
    found = client.search_model_versions(f"name = '{settings.model_name}'", max_results=10_000)
    aliases: dict[int, list[str]] = {}
    if found:
        for alias, number in client.get_registered_model(settings.model_name).aliases.items():
            aliases.setdefault(int(number), []).append(alias)
    listed = [_version(version, sorted(aliases.get(int(version.version), []))) for version in found]
    return sorted(listed, key=lambda version: version.number, reverse=True)


def version_of(settings: Settings, number_or_alias: int | str) -> Version | None:
    """The version with this number or alias, if there is one."""
    for version in versions(settings):
        if number_or_alias == version.number or number_or_alias in version.aliases:
            return version
    return None


def require_version(settings: Settings, number_or_alias: int | str) -> Version:
    """The version with this number or alias.

    Raises:
        ConfigError: there is none; names those that are there.
    """
    version = version_of(settings, number_or_alias)
    if version is None:
        there = ", ".join(" ".join([str(each.number), *(f"({alias})" for alias in each.aliases)]) for each in versions(settings)) or "none"
        raise ConfigError(
            f"model {settings.model_name} has no version or alias {number_or_alias!r}; versions: {there}. "
            "Name one of them, or run mfn_train"
        )
    return version


def lost_champion(settings: Settings) -> str:
    """That there was a champion and is none, in words with the remedy: its alias or its version was deleted. Empty in any other case."""
    last = last_promoted(settings)
    if last is None or version_of(settings, CHAMPION) is not None:
        return ""
    return (
        f"model {settings.model_name} has lost its champion: the last of its versions to be promoted is {last.number} "
        f"({last.tags.get(PROMOTED_AT, PREVIOUS)}), and none has the alias {CHAMPION}. Trigger mfn_promote with version={last.number}, or "
        "with that of another which passed the gate"
    )


def last_promoted(settings: Settings) -> Version | None:
    """The version that became champion last, whether or not it still is; None where none ever did."""
    promoted = [version for version in versions(settings) if PROMOTED_AT in version.tags or PREVIOUS in version.aliases]
    return max(promoted, key=lambda version: (version.tags.get(PROMOTED_AT, ""), version.number), default=None)


def set_alias(settings: Settings, alias: str, number: int) -> None:
    """Point an alias at a version."""
    connect(settings).set_registered_model_alias(settings.model_name, alias, str(number))


def delete_alias(settings: Settings, alias: str) -> None:
    """Take an alias away."""
    connect(settings).delete_registered_model_alias(settings.model_name, alias)


def tag_version(settings: Settings, number: int, tags: Mapping[str, str]) -> None:
    """Tag a version; later values win."""
    client = connect(settings)
    for key, value in tags.items():
        client.set_model_version_tag(settings.model_name, str(number), key, str(value)[:_MAX_TAG])


def _version(found: "ModelVersion", aliases: Sequence[str] = ()) -> Version:
    return Version(int(found.version), found.run_id or "", dict(found.tags), tuple(aliases))
