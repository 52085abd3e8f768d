"""The contract between the trainer and the device: what a bundle holds and how it is read.

A bundle is a directory: one supernet topology without numbers, one set of weights, and the
operating modes. Numbers travel as safetensors; nothing in a bundle is ever unpickled or executed.
`manifest` says what it says of itself, `bundle_files` writes one; this room reads and verifies.
"""

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict, Optional, Tuple

from numpy.typing import NDArray

from wenet_runtime.errors import BundleError, UnknownMode
from wenet_runtime.files import sha256_of
from wenet_runtime.manifest import (
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    Accuracy,
    FileEntry,
    Layer,
    Manifest,
    Mode,
    Norm,
    NormPattern,
    Preprocess,
    Rule,
    Shuffle,
    TensorSpec,
    decode_manifest,
    encode_manifest,
)
from wenet_runtime.manifest_checks import check_manifest
from wenet_runtime.tensors import map_tensors

# The contract's values belong to this room for whoever uses it.
__all__ = [
    "Bundle",
    "Accuracy",
    "DTYPES",
    "FORMAT",
    "FORMAT_VERSION",
    "FileEntry",
    "Layer",
    "Manifest",
    "Mode",
    "Norm",
    "NormPattern",
    "Preprocess",
    "Rule",
    "Shuffle",
    "TensorSpec",
    "decode_manifest",
    "encode_manifest",
    "GOLDEN",
    "MANIFEST",
    "SIGNATURE",
    "TOPOLOGY",
    "WEIGHTS",
    "load_tensors",
]

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"  # of the manifest, by whoever made the bundle; it need not be there
TOPOLOGY = "topology.onnx"
WEIGHTS = "weights.safetensors"
GOLDEN = "golden.safetensors"
MAX_MANIFEST_BYTES = 16 << 20
SIGNATURE_BYTES = 64  # Ed25519


class Bundle:
    """A verified bundle, opened read-only.

    Args:
        path: the bundle's directory.
        signed: tells whether a signature is that of a message; only bundles with such a one are then opened.

    Raises:
        BundleError: missing, damaged, unsafe, of an unknown format, or not signed as it must be; the message names
            the file.
    """

    def __init__(self, path: Path, *, signed: Optional[Callable[[bytes, bytes], bool]] = None) -> None:
        self.path = Path(path)
        data = _read_manifest(self.path)
        if signed is not None and not signed(data, _read_signature(self.path)):
            raise BundleError(
                f"{self.path / SIGNATURE} is no signature of this manifest by --verify-key: the bundle was changed, "
                "or signed with another key; get it again from where it was made"
            )
        self.manifest = decode_manifest(data, where=f"{self.path / MANIFEST}")
        self.sha256 = hashlib.sha256(data).hexdigest()
        for name, entry in self.manifest.files.items():
            _verify_file(self.path, name, entry)
        for required in (TOPOLOGY, WEIGHTS, GOLDEN):
            if required not in self.manifest.files:
                raise BundleError(f"bundle {self.path}: the manifest lists no '{required}': export it again")
        self._modes = {mode.id: mode for mode in self.manifest.modes}
        check_manifest(self.manifest)

    @property
    def modes(self) -> Tuple[Mode, ...]:
        """All modes, most accurate first."""
        return tuple(sorted(self.manifest.modes, key=lambda mode: (-mode.accuracy.value, mode.macs)))

    def mode(self, mode_id: str) -> Mode:
        """The mode of that id. Raises `UnknownMode` naming the ones there are."""
        try:
            return self._modes[mode_id]
        except KeyError:
            known = ", ".join(self._modes)
            raise UnknownMode(f"no mode '{mode_id}' in this bundle: it has {known}") from None

    def topology(self) -> bytes:
        """The full network's graph as ONNX bytes, without numbers."""
        return (self.path / TOPOLOGY).read_bytes()

    def weights(self) -> Dict[str, NDArray[Any]]:
        """Every number of the supernet by name: full weights and all batch-norm patterns, mapped and not read."""
        return map_tensors(self.path / WEIGHTS)

    def statistics(self, mode: Mode) -> Dict[str, NDArray[Any]]:
        """The mode's recalibrated batch-norm statistics by name; empty when it has none of its own."""
        return load_tensors(self.path / mode.statistics) if mode.statistics else {}

    def golden(self) -> Dict[str, NDArray[Any]]:
        """A few inputs (`input.<name>`) and each mode's outputs on them (`<mode id>.<name>`)."""
        return load_tensors(self.path / GOLDEN)


def load_tensors(path: Path) -> Dict[str, NDArray[Any]]:
    """Read a safetensors file into NumPy arrays. Raises `BundleError` naming the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError, KeyError) as error:
        raise BundleError(f"{path.name} is no readable safetensors file ({error}): export it again") from None


def _read_manifest(path: Path) -> bytes:
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: make one with `wenet-trainer export`, or `make demo`")
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} holds no {MANIFEST}: it is not a bundle, or was copied in part")
    if file.is_symlink() or file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{file} is a symbolic link or larger than {MAX_MANIFEST_BYTES} bytes: refused")
    return file.read_bytes()


def _read_signature(path: Path) -> bytes:
    file = path / SIGNATURE
    if file.is_symlink() or not file.is_file() or file.stat().st_size != SIGNATURE_BYTES:
        raise BundleError(
            f"{path} is not signed and --verify-key is given: where bundles are made, `openssl pkeyutl -sign -rawin "
            f"-inkey key.pem -in {MANIFEST} -out {SIGNATURE}` puts a signature of {SIGNATURE_BYTES} bytes beside the "
            "manifest"
        )
    return file.read_bytes()


def _verify_file(root: Path, name: str, entry: FileEntry) -> None:
    """One file: inside the bundle, a plain file with one link, of the promised size and hash."""
    parts = PurePosixPath(name).parts
    odd = "\\" in name or not name.isprintable() or any(part in ("..", ".") for part in parts)
    if not parts or name.startswith("/") or odd:
        raise BundleError(f"the manifest names {name!r}, which is not a file inside the bundle: refused")
    path = root
    try:
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise BundleError(f"'{name}' goes through a symbolic link: refused; copy the bundle with real files")
        status = os.stat(str(path))  # noqa: PTH116 - one call for kind, links and size
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"the bundle's file '{name}' is missing: copy or export the bundle again") from None
    except OSError as error:
        raise BundleError(f"the bundle's file '{name[:60]}' cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise BundleError(f"'{name}' is not a plain file with one link: refused; copy the bundle again")
    if status.st_size != entry.size:
        raise BundleError(
            f"'{name}' has {status.st_size} bytes, the manifest says {entry.size}: copy or export the bundle again"
        )
    found = sha256_of(path)
    if found != entry.sha256:
        raise BundleError(
            f"'{name}' has SHA-256 {found[:12]}…, the manifest says {entry.sha256[:12]}…: "
            "the file was changed; copy or export the bundle again"
        )
