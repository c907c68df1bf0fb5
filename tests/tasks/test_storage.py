"""Files are published whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mfn_core.errors import ArtifactError
from tasks import storage


def test_a_staged_folder_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    uri = str(tmp_path / "store" / "artifact")

    with storage.staged_folder(uri, tmp_path / "scratch") as folder:
        (folder / "a.txt").write_text("one")
        assert not storage.exists(uri)

    assert storage.list_names(uri) == ["a.txt"]
    assert storage.list_names(str(tmp_path / "store")) == ["artifact"]


def test_a_staged_folder_leaves_the_old_one_when_the_block_raises(tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    with storage.staged_folder(uri, tmp_path) as folder:
        (folder / "old.txt").write_text("old")

    def interrupted() -> None:
        with storage.staged_folder(uri, tmp_path) as folder:
            (folder / "new.txt").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()

    assert storage.list_names(uri) == ["old.txt"]
    assert storage.list_names(str(tmp_path)) == ["artifact"]


def test_a_staged_folder_replaces_what_stood_there(tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    for name in ("old.txt", "new.txt"):
        with storage.staged_folder(uri, tmp_path) as folder:
            (folder / name).write_text(name)

    assert storage.list_names(uri) == ["new.txt"]


@pytest.mark.parametrize("stood_there", [False, True])
@pytest.mark.parametrize("renamed", [0, 1])
def test_of_two_that_publish_one_folder_at_once_the_later_stands_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stood_there: bool, renamed: int
) -> None:
    """The earlier one publishes before the later one renames anything, or between its two renames."""
    uri, replace, calls = str(tmp_path / "store" / "artifact"), os.replace, []

    def publish(content: str) -> None:
        with storage.staged_folder(uri, tmp_path) as folder:
            (folder / f"{content}.txt").write_text(content)

    def replace_after_another(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > renamed:
            monkeypatch.setattr(os, "replace", replace)
            publish("earlier")
        replace(source, target)

    if stood_there:
        publish("old")
    monkeypatch.setattr(os, "replace", replace_after_another)
    publish("later")
    assert storage.list_names(uri) == ["later.txt"]
    assert storage.list_names(str(tmp_path / "store")) == ["artifact"]


def test_json_with_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.json")
    storage.write_json(uri, {"auc": 0.5})

    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(uri, {"auc": float("nan")})

    assert storage.read_json(uri) == {"auc": 0.5}


def test_missing_and_broken_json_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"a": ')

    with pytest.raises(ArtifactError, match=r"none\.json is missing"):
        storage.read_json(str(tmp_path / "none.json"))
    with pytest.raises(ArtifactError, match=r"broken\.json is not JSON"):
        storage.read_json(str(tmp_path / "broken.json"))


def test_a_folder_of_an_object_store_is_fetched_anew_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, fetched = "memory://bucket/renewed", []
    get = MemoryFileSystem.get
    monkeypatch.setattr(MemoryFileSystem, "get", lambda *given, **named: (fetched.append(given[1]), get(*given, **named)))
    for content in ("old", "new"):
        with storage.staged_folder(uri, tmp_path) as folder:
            (folder / "a.txt").write_text(content)
        copies = [storage.local_folder(uri, tmp_path / "scratch") for _ in range(2)]
        assert copies[0] == copies[1]
        assert {path.name: path.read_text() for path in copies[0].iterdir()} == {"a.txt": content}
    assert [path.suffix for path in copies[0].parent.iterdir()] == ["", ""]  # either content, nothing half fetched
    assert len(fetched) == 2


def test_a_copy_that_nobody_asked_for_in_a_week_is_removed(tmp_path: Path) -> None:
    for name in ("used", "unused", "new"):
        with storage.staged_folder(f"memory://bucket/{name}", tmp_path) as folder:
            (folder / "a.txt").write_text(name)
    used, unused = (storage.local_folder(f"memory://bucket/{name}", tmp_path / "scratch") for name in ("used", "unused"))
    for copy in (used, unused):
        os.utime(copy, (0, 0))
    assert storage.local_folder("memory://bucket/used", tmp_path / "scratch") == used
    new = storage.local_folder("memory://bucket/new", tmp_path / "scratch")
    assert sorted(new.parent.iterdir()) == sorted([used, new])


def test_two_tasks_may_fetch_the_same_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "memory://bucket/shared"
    with storage.staged_folder(uri, tmp_path) as folder:
        (folder / "a.txt").write_text("one")
    rename = Path.rename

    def fetched_meanwhile(source: Path, target: Path) -> Path:
        shutil.copytree(source, target)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fetched_meanwhile)
    copy = storage.local_folder(uri, tmp_path / "scratch")
    assert [path.name for path in copy.iterdir()] == ["a.txt"]
    assert list(copy.parent.iterdir()) == [copy]


def test_an_object_store_gets_the_manifest_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, put_file = "memory://bucket/half", MemoryFileSystem.put_file

    def broken_off(self: MemoryFileSystem, lpath: str, rpath: str, **named: object) -> None:
        if rpath.endswith("shard-1"):
            raise OSError("connection lost")
        put_file(self, lpath, rpath, **named)

    def publish() -> None:
        with storage.staged_folder(uri, tmp_path) as folder:
            for name in ("manifest.json", "shard-0", "shard-1"):
                (folder / name).write_text(name)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", broken_off)
        with pytest.raises(OSError, match="connection lost"):
            publish()
    assert "manifest.json" not in storage.list_names(uri)
    publish()
    assert storage.list_names(uri) == ["manifest.json", "shard-0", "shard-1"]


def test_folders_publish_to_an_object_store_too(tmp_path: Path) -> None:
    uri = "memory://bucket/artifact"

    with storage.staged_folder(uri, tmp_path) as folder:
        (folder / "a.txt").write_text("one")

    assert storage.list_names(uri) == ["a.txt"]
    assert list(tmp_path.iterdir()) == []


@contextmanager
def another_process(folder: str) -> Iterator["tuple[subprocess.Popen[str], Path]"]:
    """A process that has just made the folder of an expression, and writes to it until it is killed."""
    script = f"""
import time
from pathlib import Path
from tasks import storage
with {folder} as made:
    (made / "spilled.bin").write_text("much")
    print(made, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize("folder", ["storage.temporary_folder(Path({0!r}))", "storage.staged_folder({1!r}, Path({0!r}))"])
def test_what_a_killed_process_leaves_is_removed_by_whoever_comes_next_and_what_a_living_one_uses_is_not(
    tmp_path: Path, folder: str
) -> None:
    scratch, artifact = tmp_path / "scratch", tmp_path / "store" / "artifact"
    with another_process(folder.format(str(scratch), str(artifact))) as (process, made):
        with storage.temporary_folder(scratch):
            assert (made / "spilled.bin").exists()
        process.kill()
        process.wait()
        assert made.exists()
        with storage.temporary_folder(scratch) as mine:
            assert not made.exists()
            assert mine.exists()
    assert list(scratch.iterdir()) == []


def test_what_a_killed_process_has_fetched_by_half_is_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    script = f"""
import os, signal
from pathlib import Path
from fsspec.implementations.memory import MemoryFileSystem
from tasks import storage

def killed(self, rpath, lpath, **named):
    Path(lpath).mkdir()
    (Path(lpath) / "half.bin").write_text("much")
    os.kill(os.getpid(), signal.SIGKILL)

MemoryFileSystem.get = killed
storage.write_json("memory://bucket/artifact/manifest.json", {{}})
storage.local_folder("memory://bucket/artifact", Path({str(scratch)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGKILL
    assert len(list(scratch.rglob("half.bin"))) == 1
    with storage.temporary_folder(scratch):
        assert list(scratch.rglob("half.bin")) == []


def test_a_folder_that_is_about_to_be_made_is_left_alone(tmp_path: Path) -> None:
    about_to_be_locked = tmp_path / "1.lock"  # its maker has written nothing to it
    about_to_be_locked.touch()
    with storage.temporary_folder(tmp_path):
        assert about_to_be_locked.exists()


def test_folders_of_many_threads_do_not_remove_each_other(tmp_path: Path) -> None:
    def use(number: int) -> bool:
        with storage.temporary_folder(tmp_path) as folder:
            (folder / "a.txt").write_text(str(number))
            with storage.temporary_folder(tmp_path):
                return (folder / "a.txt").read_text() == str(number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(200)))
    assert list(tmp_path.iterdir()) == []
