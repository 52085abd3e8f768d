"""What TensorRT made on this device: `<cache>/trt/`, readable by its owner only, never shipped.

Building an engine takes minutes on a small board, so each is kept as soon as it is there, and a build that was
killed goes on where it was. A file says its size and its hash; a damaged one is removed and made again.
"""

import contextlib
import hashlib
import json
import os
import struct
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.errors import EngineError
from wenet_runtime.files import make_private, write_atomic

FORMAT = 1
LIMIT_BYTES = 1 << 30  # of engines; what every start needs lies in the bundle's own cache, so the oldest go
PLAN, TIMING, PLATFORM = ".plan", ".timing", ".platform"
ABANDONED_S = 3600.0  # no write takes so long: what is older and not whole is of a process that was killed

_HEAD = struct.Struct("<8sQ32s")  # what it is, bytes behind this, their sha256
_MAGIC = b"WeNetTRT"


@dataclass(frozen=True)
class Origin:
    """The device that an engine belongs to. No other can run it."""

    tensorrt: str
    gpu: str
    compute_capability: str
    l4t: str

    @property
    def key(self) -> str:
        """Names what belongs to the device alone."""
        return _sha256_of(asdict(self))[:16]


@dataclass(frozen=True)
class Recipe:
    """How an engine is built.

    Attributes:
        fp16, int8: which precisions TensorRT may use beside fp32.
        fp32_layers: patterns of layers that stay in fp32.
        workspace_bytes: scratch memory that one layer may take.
        most_rows: of one run.
    """

    fp16: bool
    int8: bool
    fp32_layers: Tuple[str, ...]
    workspace_bytes: int
    most_rows: int


@dataclass(frozen=True)
class Header:
    """What an engine says of itself, beside it in the cache."""

    onnx_sha256: str
    origin: Origin
    recipe: Recipe

    @property
    def key(self) -> str:
        """Names the engine: everything that it depends on."""
        return _sha256_of(self._members())

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(self._members(), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Header":
        """Read one. Raises `ValueError` for what is none."""
        try:
            members: Dict[str, Any] = json.loads(data)
            if members["format"] != FORMAT:
                raise ValueError(f"it is of format {members['format']!r}, this runtime reads {FORMAT}")
            recipe = dict(members["recipe"])
            recipe["fp32_layers"] = tuple(recipe["fp32_layers"])
            found = cls(str(members["onnx_sha256"]), Origin(**members["origin"]), Recipe(**recipe))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is no header of an engine ({error!r})") from None
        if not isinstance(found.recipe.most_rows, int) or found.recipe.most_rows < 1:
            raise ValueError(f"it takes {found.recipe.most_rows!r} rows")
        return found

    def _members(self) -> Dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


class Journal:
    """The folder of engines, timing caches and what the platform can do.

    Args:
        folder: made if it is not there; None keeps nothing.
        limit_bytes: what engines may take.

    Raises:
        EngineError: it cannot be made.
    """

    def __init__(self, folder: Optional[Path], *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        if folder is not None:
            with _writing(folder):
                make_private(folder)
                folder.chmod(0o700)
                self._forget_abandoned(folder)

    def read(self, name: str) -> Optional[NDArray[np.uint8]]:
        """(nbytes,) what was kept under a name; None if there is nothing that is whole."""
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            content: NDArray[np.uint8] = np.fromfile(str(path), np.uint8)
            _check(content)
            os.utime(str(path))  # the oldest go first
            return content[_HEAD.size :]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            warnings.warn(f"{path} cannot be used ({error}): it is made again", stacklevel=2)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def write(self, name: str, data: "NDArray[np.uint8] | bytes") -> None:
        """Keep something under a name; engines that are too many go. Raises `EngineError`."""
        if self._folder is None:
            return
        content = bytes(data)
        head = _HEAD.pack(_MAGIC, len(content), hashlib.sha256(content).digest())
        with _writing(self._folder):
            write_atomic(self._folder / name, head + content, mode=0o600)
            if name.endswith(PLAN):
                self._shrink(name)

    @staticmethod
    def _forget_abandoned(folder: Path) -> None:
        """Remove what killed processes began to write. Younger files may be another process's that writes now."""
        for path in folder.glob(".*"):
            with contextlib.suppress(FileNotFoundError):  # another process does the same
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()

    def _shrink(self, newest: str) -> None:
        assert self._folder is not None
        found: List[Tuple[float, int, Path]] = []
        for path in self._folder.glob(f"*{PLAN}"):
            with contextlib.suppress(FileNotFoundError):  # another process shrinks too
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found, key=lambda one: one[0]):
            if total <= self._limit_bytes:
                break
            if path.name != newest:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                total -= size


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(f"cannot write {folder} ({error.strerror}): choose another --cache-dir") from None


def _check(content: NDArray[np.uint8]) -> None:
    """Whether a file is whole. Raises `ValueError`."""
    if content.size < _HEAD.size:
        raise ValueError(f"it has only {content.size} bytes")
    magic, size, digest = _HEAD.unpack(content[: _HEAD.size].tobytes())
    if magic != _MAGIC:
        raise ValueError("it is something else")
    if size != content.size - _HEAD.size:
        raise ValueError(f"it holds {content.size - _HEAD.size} bytes and says {size}")
    if hashlib.sha256(content[_HEAD.size :].data).digest() != digest:
        raise ValueError("it has been changed")


def _sha256_of(members: Any) -> str:
    return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()
