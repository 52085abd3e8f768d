"""Files that are never half-written: temporary name, fsync, rename."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to disk, so that a rename inside it survives a power cut."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Make a directory and those above it that are not there, each for its owner alone. Raises `OSError`."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)  # with `parents=True` only the last one would get the mode


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` so that readers see the old content or the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=str(path.parent))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # noqa: PTH101 - a name from mkstemp, not yet a Path
        os.replace(temporary, str(path))  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink()
        raise
    sync_directory(path.parent)


def swap_in(staging: Path, path: Path) -> None:
    """Rename `staging` to `path`. A directory cannot replace a full one, so the old one steps aside first."""
    aside = staging.with_name(staging.name + ".old")
    if path.exists():
        os.rename(str(path), str(aside))  # noqa: PTH104
    try:
        os.rename(str(staging), str(path))  # noqa: PTH104
    except OSError:
        if aside.exists():
            os.rename(str(aside), str(path))  # noqa: PTH104
        raise
    sync_directory(path.parent)
    shutil.rmtree(str(aside), ignore_errors=True)
