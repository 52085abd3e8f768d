"""What a bundle says of itself: the values of `manifest.json`, and how they are read and written."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Dict, Mapping, NoReturn, Optional, Tuple

import numpy as np

from wenet_runtime.errors import BundleError

FORMAT = "wenet-bundle"
FORMAT_VERSION = 1

DTYPES: Mapping[str, type] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT64": np.int64,
    "INT32": np.int32,
    "UINT8": np.uint8,
}

# What a mode may be computed in, and how far engines that do so may disagree: the largest difference as a share
# of the largest value. Roundings differ between engines where they merge operators differently.
PRECISIONS: Mapping[str, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 3e-2, "int8": 1e-1}

SCORES = ("margin",)  # what a cascade may go by, see `cascade.margin`


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
    precision: str  # one of PRECISIONS
    accuracy: Accuracy
    macs: int
    params: int
    found_by: str
    statistics: Optional[str] = None  # file of recalibrated batch-norm statistics, inside the bundle


@dataclass(frozen=True)
class Rule:
    """One rule of the confidence cascade: `first` answers alone where its score reaches `threshold`, else `then` does.

    Attributes:
        first, then: ids of two modes.
        score: one of SCORES.
        threshold: least score that is sure enough.
        epsilon, delta: the certificate: with probability 1 - delta over the calibration images, the mean accuracy
            lost against `then` alone is below epsilon (0.003 is 0.3 points).
        images: how many stand behind the certificate.
        escalated: share of them that `then` answered.
        loss: mean accuracy lost on them, 0-1; negative where the cascade was better.
        data_sha256: tells which images they were.
    """

    first: str
    then: str
    score: str
    threshold: float
    epsilon: float
    delta: float
    images: int
    escalated: float
    loss: float
    data_sha256: str


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
    cascade: Tuple[Rule, ...] = ()  # at most one for two modes; where `then` is the same, the cheapest comes first


@lru_cache(maxsize=1)
def _manifest_adapter() -> Any:
    # pydantic decodes the frozen dataclasses strictly; imported late to keep `--help` fast.
    from pydantic import TypeAdapter

    return TypeAdapter(Manifest)


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Decode `manifest.json`, refusing unknown formats, unknown members and wrong types."""
    from pydantic import ValidationError

    try:
        members = json.loads(data, parse_constant=_no_constant)
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as the bytes whose SHA-256 identifies the bundle."""
    members: Dict[str, Any] = _manifest_adapter().dump_python(manifest, mode="json")
    if not manifest.cascade:
        del members["cascade"]  # runtimes from before the cascade read the bundle, too
    return (json.dumps(members, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
