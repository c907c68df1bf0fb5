"""Files by URI (local folder, s3://, gs://): joined, listed, read, and published whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from mfn_core.errors import ArtifactError

MANIFEST = "manifest.json"
_LOCK = ".lock"
_SECONDS_KEPT = 7 * 86_400  # a copy that nobody has asked for since: far longer than any task runs


def join(uri: str, *parts: str) -> str:
    """Join path parts onto a URI."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = url_to_fs(uri)
    return bool(filesystem.exists(path))


def list_names(uri: str) -> list[str]:
    """Sorted names of the entries of a folder; empty where there is no such folder."""
    filesystem, path = url_to_fs(uri)
    if not filesystem.isdir(path):
        return []
    return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False))


def read_json(uri: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArtifactError: the file is missing or no JSON.
    """
    try:
        with fsspec.open(uri, "rt", encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise ArtifactError(f"{uri} is missing; run the step that writes it again") from error
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{uri} is not JSON ({error}); delete it and run the step that writes it again") from error


def write_json(uri: str, content: dict[str, Any]) -> None:
    """Write a JSON object so that a reader sees the old file or the new one, never a part."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    filesystem, path = url_to_fs(uri)
    filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if not _is_local(filesystem):
        filesystem.pipe_file(path, text.encode())
        return
    aside = Path(f"{path}.{uuid.uuid4().hex[:8]}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def remove(uri: str) -> None:
    """Remove a file or folder, if it is there."""
    filesystem, path = url_to_fs(uri)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def upload(local: Path, uri: str) -> None:
    """Put a local file at a URI; on a local store by rename, so that no reader sees a part."""
    filesystem, path = url_to_fs(uri)
    filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if not _is_local(filesystem):
        filesystem.put_file(str(local), path)
        return
    aside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    shutil.move(local, aside)
    os.replace(aside, path)


@contextmanager
def temporary_folder(scratch: Path, at: Path | None = None) -> Iterator[Path]:
    """A new folder until the block ends; those of processes that were killed are removed first.

    The kernel frees the lock of a process however it dies.

    Args:
        scratch: folder of this machine; a lock file in it says whose folder is in use.
        at: the path of the folder; by default a name of its own in ``scratch``.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(scratch)
    folder = (at or scratch / uuid.uuid4().hex).absolute()
    owner = scratch / f"{uuid.uuid4().hex}{_LOCK}"
    with owner.open("x", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            lock.write(f"{folder}\n")
            lock.flush()
            folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            owner.unlink(missing_ok=True)


def _remove_abandoned(scratch: Path) -> None:
    for owner in scratch.glob(f"*{_LOCK}"):
        # Held by a living process, or gone meanwhile; and what cannot be removed must not stop anybody.
        with suppress(OSError), owner.open("r+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder, end, _ = lock.read().partition("\n")
            if end:  # else its maker has not come so far as to make the folder
                shutil.rmtree(folder, ignore_errors=True)
                owner.unlink(missing_ok=True)


@contextmanager
def staged_folder(uri: str, scratch: Path) -> Iterator[Path]:
    """A local folder that becomes ``uri`` when the block ends, and vanishes when it raises.

    Anything that stood at ``uri`` is replaced. Write the manifest last: a reader trusts a folder by its manifest.
    """
    filesystem, path = url_to_fs(uri)
    local = _is_local(filesystem)
    with temporary_folder(scratch, Path(f"{path}.{uuid.uuid4().hex[:8]}.tmp") if local else None) as aside:
        yield aside
        if local:
            _replace_folder(aside, Path(path))
        else:
            _put_folder(filesystem, aside, path)


def local_folder(uri: str, scratch: Path) -> Path:
    """The folder as a local path: itself where the store is local, else a copy under ``scratch`` of the files as they are now.

    Copies that nobody has asked for in a week are removed whenever another is fetched.
    """
    filesystem, path = url_to_fs(uri)
    if _is_local(filesystem):
        return Path(path)
    versions = sorted((name, filesystem.checksum(name)) for name in filesystem.find(path))
    # One copy for each content: who reads one is never robbed of it by who fetches the next.
    digest = hashlib.sha256(repr((path, versions)).encode()).hexdigest()[:16]
    copy = scratch / "mirror" / f"{Path(path).name}-{digest}"
    with suppress(FileNotFoundError):
        os.utime(copy)
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(scratch) as aside:
        try:
            filesystem.get(path, str(aside / copy.name), recursive=True)
            (aside / copy.name).rename(copy)
        except OSError:
            if not copy.exists():  # else another task has fetched the same meanwhile
                raise
    os.utime(copy)
    _remove_unused(copy.parent)
    return copy


def _remove_unused(mirror: Path) -> None:
    for copy in mirror.iterdir():
        with suppress(FileNotFoundError):  # another task removes the same
            if time.time() - copy.stat().st_mtime > _SECONDS_KEPT:
                # Renamed first: what is left by a process that dies here is no copy.
                shutil.rmtree(copy.rename(copy.with_name(f"{copy.name}.{uuid.uuid4().hex[:8]}.tmp")), ignore_errors=True)


def local_path(uri: str) -> Path | None:
    """The path of a URI on this machine's file system; None for any other store."""
    filesystem, path = url_to_fs(uri)
    return Path(path) if _is_local(filesystem) else None


def _replace_folder(new: Path, target: Path) -> None:
    """Rename ``new`` to ``target``; the old folder is renamed away first, so a crash leaves one of the two on disk."""
    old = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.old.tmp")
    with suppress(FileNotFoundError):
        os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _replace_folder(new, target)  # another process has published there meanwhile
    shutil.rmtree(old, ignore_errors=True)


def _put_folder(filesystem: fsspec.AbstractFileSystem, folder: Path, path: str) -> None:
    """Upload the files of a folder, the manifest after all others: who finds it finds them."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    for batch in ([file for file in files if file.name != MANIFEST], [file for file in files if file.name == MANIFEST]):
        if batch:
            filesystem.put([str(file) for file in batch], [f"{path}/{file.relative_to(folder).as_posix()}" for file in batch])


def _is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    return "file" in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,))
