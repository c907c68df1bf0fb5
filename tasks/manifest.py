"""The small JSON beside every artifact: what it is, what it was made from, how to know it again.

A finished artifact is one whose manifest is there and names the same inputs and config; a retry finds it and returns it.
"""

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mfn_core.errors import ArtifactError
from tasks import storage
from tasks.storage import MANIFEST


class Manifest(BaseModel):
    """What an artifact is and where it came from. Travels through XCom as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = Field(description="curated, dataset, training, evaluation, scores, …")
    uri: str = Field(description="Folder of the artifact.")
    digest: str = Field(description="Digest of the content (curated) or of inputs, config and code (the rest).")
    rows: dict[str, int] = Field({}, description="Counts by name.")
    inputs: dict[str, str] = Field({}, description="Digest of every input by URI or name.")
    config: dict[str, Any] = Field({}, description="The settings that shaped the artifact.")
    code: str = Field("", description="Digest of the code that made it.")
    created_at: str = Field("", description="UTC time of writing; no part of any digest.")
    facts: dict[str, Any] = Field({}, description="What else a reader wants to know: cut, horizon, leak proof, skipped tasks.")


def digest_of(*parts: Any) -> str:
    """Hex SHA-256 of the canonical JSON of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def dataset_digest(dataset: Manifest) -> str:
    """What is in a dataset: its partitions, its users and its settings, but not the code of the network, nor how it is trained."""
    return digest_of(sorted(dataset.inputs.values()), dataset.config)


@cache
def code_digest() -> str:
    """Hex SHA-256 over the sources of ``mfn_core``: a model trained by other code is another model."""
    folder = Path(__file__).resolve().parent.parent / "mfn_core"
    hasher = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        hasher.update(source.relative_to(folder).as_posix().encode())
        hasher.update(source.read_bytes())
    return hasher.hexdigest()


def now() -> str:
    """UTC time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(manifest: Manifest, folder: str | None = None) -> None:
    """Write ``manifest.json`` into the artifact's folder, or into the staged one that will become it."""
    storage.write_json(storage.join(folder or manifest.uri, MANIFEST), manifest.model_dump(mode="json"))


def read(uri: str) -> Manifest:
    """Read the manifest of the artifact at ``uri``.

    Raises:
        ArtifactError: there is none.
    """
    return Manifest.model_validate(storage.read_json(storage.join(uri, MANIFEST)))


def find(uri: str, digest: str) -> Manifest | None:
    """The manifest of a finished artifact with this digest, or None where the work is still to do."""
    try:
        manifest = read(uri)
    except ArtifactError:
        return None
    return manifest if manifest.digest == digest else None
