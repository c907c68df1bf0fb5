"""Files are published whole or not at all."""

import shutil
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


def test_folders_publish_to_an_object_store_too(tmp_path: Path) -> None:
    uri = "memory://bucket/artifact"

    with storage.staged_folder(uri, tmp_path) as folder:
        (folder / "a.txt").write_text("one")

    assert storage.list_names(uri) == ["a.txt"]
    assert list(tmp_path.iterdir()) == []
