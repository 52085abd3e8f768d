"""Files are whole or absent, and leave nothing beside them."""

import hashlib
from pathlib import Path

import pytest

from wenet_runtime import files
from wenet_runtime.files import make_private, sha256_of, sync_directory, write_atomic


def test_the_hash_of_a_file_longer_than_one_piece_is_right(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_a_file_is_replaced_whole_with_the_permissions_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old and longer")
    write_atomic(tmp_path / "x", b"new", mode=0o600)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="Read-only"):
        write_atomic(tmp_path / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_syncing_a_directory_that_is_not_there_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "nowhere")


def test_every_folder_that_is_made_is_private_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    make_private(tmp_path / "there/a/b/c")
    make_private(tmp_path / "there/a/b/c")
    modes = [(tmp_path / one).stat().st_mode & 0o777 for one in ("there", "there/a", "there/a/b", "there/a/b/c")]
    assert modes == [0o755, 0o700, 0o700, 0o700]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match=r"exists|directory"):
        make_private(tmp_path / "a")
