"""The contract between the trainer and the device: what a bundle holds and how it is read.

A bundle is a directory: one supernet topology without numbers, one set of weights, and the
operating modes. Numbers travel as safetensors; nothing in a bundle is ever unpickled or executed.
`bundle_files` writes one; this room only describes, reads and verifies.
"""

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.errors import BundleError, UnknownMode
from wenet_runtime.files import sha256_of

FORMAT = "wenet-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOPOLOGY = "topology.onnx"
WEIGHTS = "weights.safetensors"
GOLDEN = "golden.safetensors"
MAX_MANIFEST_BYTES = 16 << 20

# A mode's id names files in the cache and stands in headers and in paths.
_MODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

DTYPES: Mapping[str, type] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT64": np.int64,
    "INT32": np.int32,
    "UINT8": np.uint8,
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape[0]` is -1: the batch; `datatype` as Open Inference Protocol names it."""

    name: str
    datatype: str
    shape: Tuple[int, ...]

    @property
    def dtype(self) -> "np.dtype[Any]":
        """NumPy's name for the datatype."""
        return np.dtype(DTYPES[self.datatype])


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the input: decode to `color`, resize (bilinear), scale to 0–1, normalise."""

    color: str  # "L" or "RGB"
    height: int
    width: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """One weight-enabled layer: its node in the topology and its full weight in the weights file."""

    name: str
    kind: str  # "conv" or "linear"
    node: str
    weight: str
    bias: Optional[str]
    in_channels: int
    out_channels: int
    groups: Tuple[int, ...]  # allowed group counts, ascending, starting with 1


@dataclass(frozen=True)
class NormPattern:
    """Names of one weight-enabling pattern's batch-norm parameters in the weights file."""

    weight: str
    bias: str
    mean: str
    var: str


@dataclass(frozen=True)
class Norm:
    """One (switchable) batch norm. `layer` is the weight-enabled layer that switches it, None if fixed."""

    node: str
    layer: Optional[str]
    eps: float
    patterns: Mapping[int, NormPattern]


@dataclass(frozen=True)
class Shuffle:
    """One channel shuffle: a Gather on axis 1 whose indices follow from `channels` and `groups`."""

    node: str
    channels: int
    groups: int


@dataclass(frozen=True)
class Accuracy:
    """Share of validation images answered correctly, 0–1, with its 95 % interval."""

    value: float
    ci_low: float
    ci_high: float
    images: int


@dataclass(frozen=True)
class Mode:
    """One operating mode: a sub-network that is kept. `groups` gives each layer's group count."""

    id: str
    groups: Mapping[str, int]
    precision: str
    accuracy: Accuracy
    macs: int
    params: int
    found_by: str
    statistics: Optional[str] = None  # file of recalibrated batch-norm statistics, inside the bundle


@dataclass(frozen=True)
class FileEntry:
    """What the manifest promises about one file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`, decoded. Its own SHA-256 is the bundle's identity."""

    format: str
    format_version: int
    model: str
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    preprocess: Optional[Preprocess]
    labels: Tuple[str, ...]
    max_batch: int
    layers: Tuple[Layer, ...]
    norms: Tuple[Norm, ...]
    shuffles: Tuple[Shuffle, ...]
    modes: Tuple[Mode, ...]
    created_by: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)


class Bundle:
    """A verified bundle, opened read-only.

    Args:
        path: the bundle's directory.

    Raises:
        BundleError: missing, damaged, unsafe or of an unknown format; the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        data = _read_manifest(self.path)
        self.manifest = decode_manifest(data, where=f"{self.path / MANIFEST}")
        self.sha256 = hashlib.sha256(data).hexdigest()
        for name, entry in self.manifest.files.items():
            _verify_file(self.path, name, entry)
        for required in (TOPOLOGY, WEIGHTS, GOLDEN):
            if required not in self.manifest.files:
                raise BundleError(f"bundle {self.path}: the manifest lists no '{required}': export it again")
        self._modes = {mode.id: mode for mode in self.manifest.modes}
        _check_references(self.manifest)

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
        """Every number of the supernet by name: full weights and all batch-norm patterns."""
        return load_tensors(self.path / WEIGHTS)

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


@lru_cache(maxsize=1)
def _manifest_adapter() -> Any:
    # pydantic decodes the frozen dataclasses strictly; imported late to keep `--help` fast.
    from pydantic import TypeAdapter

    return TypeAdapter(Manifest)


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Decode `manifest.json`, refusing unknown formats, unknown members and wrong types."""
    from pydantic import ValidationError

    try:
        members = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}): export the bundle again") from None
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        raise BundleError(f"{where} is not a {FORMAT} manifest: point --bundle at an exported bundle")
    version = members.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{where} has format version {version!r}, this runtime reads {FORMAT_VERSION}: "
            "export it again with a matching wenet-trainer, or upgrade wenet-runtime"
        )
    unknown = sorted(set(members) - set(Manifest.__dataclass_fields__))
    if unknown:
        raise BundleError(f"{where} has unknown members {unknown}: export it again with a matching wenet-trainer")
    try:
        manifest: Manifest = _manifest_adapter().validate_python(members)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{where}: '{at}': {first['msg']}: export the bundle again") from None
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as the bytes whose SHA-256 identifies the bundle."""
    members: Dict[str, Any] = _manifest_adapter().dump_python(manifest, mode="json")
    return (json.dumps(members, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _read_manifest(path: Path) -> bytes:
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: make one with `wenet-trainer export`, or `make demo`")
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} holds no {MANIFEST}: it is not a bundle, or was copied in part")
    if file.is_symlink() or file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{file} is a symbolic link or larger than {MAX_MANIFEST_BYTES} bytes: refused")
    return file.read_bytes()


def _verify_file(root: Path, name: str, entry: FileEntry) -> None:
    """One file: inside the bundle, a plain file with one link, of the promised size and hash."""
    parts = PurePosixPath(name).parts
    odd = "\\" in name or "\0" in name or any(part in ("..", ".") for part in parts)
    if not parts or name.startswith("/") or odd:
        raise BundleError(f"the manifest names '{name}', which is not a file inside the bundle: refused")
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


def _check_references(manifest: Manifest) -> None:
    """What one part of the manifest says of another must be so."""
    layers = {layer.name: layer for layer in manifest.layers}
    if not manifest.modes:
        raise BundleError("the bundle has no modes: export it again")
    if len({mode.id for mode in manifest.modes}) != len(manifest.modes):
        raise BundleError("two modes of the bundle share an id: export it again")
    for spec in manifest.inputs + manifest.outputs:
        if spec.datatype not in DTYPES:
            raise BundleError(f"tensor '{spec.name}' has unknown datatype '{spec.datatype}': known are {list(DTYPES)}")
    for mode in manifest.modes:
        if not _MODE_ID.fullmatch(mode.id):
            raise BundleError(f"{mode.id!r} is no mode id: take letters, digits and . _ -, a letter or digit first")
        if set(mode.groups) != set(layers):
            raise BundleError(f"mode '{mode.id}' does not give groups for exactly the bundle's layers")
        for name, groups in mode.groups.items():
            if groups not in layers[name].groups:
                raise BundleError(f"mode '{mode.id}': layer '{name}' allows {layers[name].groups}, not {groups}")
        if mode.statistics is not None and mode.statistics not in manifest.files:
            raise BundleError(f"mode '{mode.id}' names '{mode.statistics}', which the manifest does not list")
    for norm in manifest.norms:
        wanted = set(layers[norm.layer].groups) if norm.layer in layers else {1}
        if norm.layer is not None and norm.layer not in layers:
            raise BundleError(f"batch norm '{norm.node}' is switched by unknown layer '{norm.layer}'")
        if set(norm.patterns) != wanted:
            raise BundleError(f"batch norm '{norm.node}' has patterns {sorted(norm.patterns)}, wanted {sorted(wanted)}")
