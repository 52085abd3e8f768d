"""Writing a bundle: all of it in place at once, or nothing changed."""

import dataclasses
import os
from pathlib import Path
from typing import Dict

import pytest

from tests.supernets import write_test_bundle
from wenet_runtime import bundle_files
from wenet_runtime.bundle import MANIFEST, Bundle
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.errors import BundleError


def files_of(bundle: Bundle) -> Dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}


def test_the_returned_hash_is_the_bundle_s_own(bundle: Bundle, tmp_path: Path) -> None:
    sha256 = write_bundle(tmp_path / "deep" / "copy", bundle.manifest, files_of(bundle))
    assert sha256 == Bundle(tmp_path / "deep" / "copy").sha256 == bundle.sha256


def test_an_empty_directory_may_become_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", bundle.manifest, files_of(bundle))
    assert Bundle(tmp_path / "empty").sha256 == bundle.sha256


def test_others_may_read_a_bundle_and_only_the_owner_write_it(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(tmp_path / "copy", bundle.manifest, files_of(bundle))
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "copy" / MANIFEST).stat().st_mode & 0o777 == 0o644


def test_a_directory_that_is_no_bundle_is_never_replaced(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only-copy.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        write_bundle(tmp_path / "thesis", bundle.manifest, files_of(bundle))
    assert (tmp_path / "thesis" / "only-copy.tex").read_text() == "years of work"


def test_a_plain_file_is_never_replaced(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        write_bundle(tmp_path / "file", bundle.manifest, files_of(bundle))
    assert (tmp_path / "file").read_text() == "kept"


def test_an_older_bundle_is_replaced_whole(bundle: Bundle, tmp_path: Path) -> None:
    write_test_bundle(tmp_path / "out", seed=1, levels=(16, 8, 4, 1))
    write_bundle(tmp_path / "out", bundle.manifest, files_of(bundle))
    assert Bundle(tmp_path / "out").sha256 == bundle.sha256
    assert not (tmp_path / "out" / "modes" / "m3.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_older_bundle_and_nothing_beside_it(
    bundle: Bundle, own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, data: bytes) -> None:
        if path.name == MANIFEST:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(bundle_files, "write_atomic", full_disk)
    renamed = dataclasses.replace(bundle.manifest, model="other")
    with pytest.raises(OSError, match="No space"):
        write_bundle(own_bundle, renamed, files_of(bundle))
    assert Bundle(own_bundle).manifest.model == "tiny"
    assert [path.name for path in own_bundle.parent.iterdir()] == [own_bundle.name]


def test_a_failure_to_move_in_puts_the_older_bundle_back(
    bundle: Bundle, own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename
    asked = []

    def second_fails(source: str, target: str) -> None:
        asked.append((source, target))
        if len(asked) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        write_bundle(own_bundle, dataclasses.replace(bundle.manifest, model="other"), files_of(bundle))
    assert Bundle(own_bundle).manifest.model == "tiny"
    assert [path.name for path in own_bundle.parent.iterdir()] == [own_bundle.name]
