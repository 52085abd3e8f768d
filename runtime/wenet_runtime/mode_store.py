"""The modes of one bundle as files of one device: a blob of numbers, a model each, and an index written last.

    modes.bin      the numbers of all modes, equal ones once, memory-mapped
    <mode>.model   what the engine made of the mode, without its large numbers
    index.json     what belongs together, with sizes and hashes

Files replace older ones under their names, so that a process which has those mapped goes on with them.
"""

import hashlib
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, Mapping, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.blob import BlobWriter
from wenet_runtime.engines.base import Artifact
from wenet_runtime.files import sha256_of, write_atomic
from wenet_runtime.mode_index import INDEX_VERSION, ModeEntry, ModeIndex, Number, decode_index, encode_index

BLOB = "modes.bin"
INDEX = "index.json"


class ModeStore:
    """Modes read from their folder.

    Args:
        folder: where they lie.
        identity: what they must have been built from and for.
        modes: the ids they must be of.

    Raises:
        FileNotFoundError: there are none.
        ValueError, OSError: they are damaged, or something else's.
    """

    def __init__(self, folder: Path, *, identity: Mapping[str, str], modes: Collection[str]) -> None:
        self._folder = folder
        index = decode_index((folder / INDEX).read_bytes(), identity=identity, modes=modes)
        # Hashed once, here: loading a mode must be quick, and nobody but the owner can write.
        _check_file(folder / BLOB, index.blob_size, index.blob_sha256)
        for mode_id, entry in index.modes.items():
            _check_file(_model(folder, mode_id), entry.size, entry.sha256)
        self._modes = index.modes
        self._mapped: Optional[mmap.mmap] = None
        self._blob: NDArray[Any] = np.empty(0, np.uint8)
        if index.blob_size:  # an empty file cannot be mapped
            with (folder / BLOB).open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._blob = np.frombuffer(self._mapped, np.uint8)

    def artifact(self, mode_id: str) -> Artifact:
        """One mode; its numbers are the mapped file itself. Raises `OSError` if its model has gone."""
        numbers = {name: self._number(one) for name, one in self._modes[mode_id].numbers.items()}
        return Artifact(_model(self._folder, mode_id).read_bytes(), numbers)

    def release(self, mode_id: str, kept: Iterable[str]) -> None:
        """Let the system have the memory of a mode's numbers back, but for those of modes that are kept.

        They may be read all the same: from the file again.
        """
        shared = {number.offset for other in kept for number in self._modes[other].numbers.values()}
        for number in self._modes[mode_id].numbers.values():
            if self._mapped is not None and number.offset not in shared and number.nbytes:
                start = number.offset // mmap.PAGESIZE * mmap.PAGESIZE
                self._mapped.madvise(mmap.MADV_DONTNEED, start, number.offset + number.nbytes - start)

    def _number(self, number: Number) -> NDArray[Any]:
        piece = self._blob[number.offset : number.offset + number.nbytes]
        return piece.view(np.dtype(number.dtype)).reshape(number.shape)


def write_modes(folder: Path, artifacts: Iterable[Tuple[str, Artifact]], *, identity: Mapping[str, str]) -> None:
    """Write modes as they come, keeping none in memory, and then their index.

    Args:
        folder: where they go; only one process may write there at a time.
        artifacts: id and content of each.
        identity: what they are built from and for.
    """
    for pattern in (f".{BLOB}.*", ".*.model.*", f".{INDEX}.*"):  # of a process that was killed
        for left in folder.glob(pattern):
            left.unlink()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{BLOB}.", dir=str(folder))  # readable by its owner only
    try:
        modes: Dict[str, ModeEntry] = {}
        with os.fdopen(descriptor, "wb") as file:
            blob = BlobWriter(file)
            for mode_id, artifact in artifacts:
                numbers = {
                    name: Number(str(value.dtype), tuple(value.shape), blob.add(value))
                    for name, value in artifact.numbers.items()
                }
                write_atomic(_model(folder, mode_id), artifact.model, mode=0o600)
                digest = hashlib.sha256(artifact.model).hexdigest()
                modes[mode_id] = ModeEntry(digest, len(artifact.model), numbers)
                del artifact  # its numbers need not wait for the next one's
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, str(folder / BLOB))  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink()
        raise
    index = ModeIndex(INDEX_VERSION, dict(identity), blob.sha256, blob.size, modes)
    write_atomic(folder / INDEX, encode_index(index), mode=0o600)


def _model(folder: Path, mode_id: str) -> Path:
    return folder / f"{mode_id}.model"


def _check_file(path: Path, size: int, sha256: str) -> None:
    """Whether a file is what the index says. Raises `ValueError` naming it."""
    found = path.stat().st_size
    if found != size:
        raise ValueError(f"{path.name} has {found} bytes, its index says {size}")
    if sha256_of(path) != sha256:
        raise ValueError(f"{path.name} has been changed")
