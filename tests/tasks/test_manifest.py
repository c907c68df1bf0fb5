"""A manifest says what an artifact is; a retry knows a finished one by it."""

from pathlib import Path

import pytest

from mfn_core.errors import ArtifactError
from tasks import manifest
from tasks.manifest import Manifest


def test_a_finished_artifact_is_found_by_its_digest(tmp_path: Path) -> None:
    written = Manifest(kind="dataset", uri=str(tmp_path), digest="abc", rows={"users": 3})
    manifest.write(written)

    assert manifest.find(str(tmp_path), "abc") == written
    assert manifest.find(str(tmp_path), "other") is None
    assert manifest.find(str(tmp_path / "nowhere"), "abc") is None


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        manifest.read(str(tmp_path))


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert manifest.digest_of({"a": 1, "b": 2}) == manifest.digest_of({"b": 2, "a": 1})
    assert manifest.digest_of({"a": 1}) != manifest.digest_of({"a": 2})


def test_datasets_of_the_same_partitions_and_settings_are_the_same_whoever_they_were_built_for() -> None:
    first = Manifest(
        kind="dataset", uri="a", digest="of one training", inputs={"day 1": "x", "day 2": "y"}, config={"split_seed": 0}, code="c"
    )
    second = first.model_copy(update={"uri": "b", "digest": "of another", "inputs": {"day 2": "y", "day 1": "x"}, "code": "d"})
    other_day = first.model_copy(update={"inputs": {"day 1": "x", "day 2": "z"}})
    other_split = first.model_copy(update={"config": {"split_seed": 1}})

    assert manifest.dataset_digest(first) == manifest.dataset_digest(second)
    assert len({manifest.dataset_digest(each) for each in (first, other_day, other_split)}) == 3
