"""Writes a bundle: every file hashed into the manifest, complete or not at all."""

import dataclasses
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Dict, Mapping

from wenet_runtime.bundle import MANIFEST, FileEntry, Manifest, encode_manifest
from wenet_runtime.errors import BundleError
from wenet_runtime.files import swap_in, write_atomic


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Write a bundle directory, complete or not at all.

    An older bundle at `path` is put aside and removed once the new one stands; a reader that opens the
    path between those two renames finds none and may try again.

    Args:
        path: where the bundle goes. An existing directory is replaced only if it is a bundle.
        manifest: the manifest; its `files` member is filled in here.
        files: every file but the manifest, by its name inside the bundle.

    Returns:
        The bundle's SHA-256 (that of its manifest).

    Raises:
        BundleError: `path` exists and is not a bundle.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not a bundle: choose another --out or remove it")
    entries: Dict[str, FileEntry] = {
        name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    encoded = encode_manifest(dataclasses.replace(manifest, files=entries))
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=str(path.parent)))
    try:
        for name, data in files.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, data)
        write_atomic(staging / MANIFEST, encoded)
        staging.chmod(0o755)
        swap_in(staging, path)
    except BaseException:
        shutil.rmtree(str(staging), ignore_errors=True)
        raise
    return hashlib.sha256(encoded).hexdigest()
