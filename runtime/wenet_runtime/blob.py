"""One file of numbers, equal ones once: what several modes share lies in it, and in memory, only one time."""

import hashlib
from typing import Any, BinaryIO, Dict, Tuple

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # a cache line, and no vector unit wants more


class BlobWriter:
    """Appends arrays to a file.

    Args:
        file: open for writing, empty. Arrays are written as they come, so none is kept in memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._whole = hashlib.sha256()
        self._places: Dict[Tuple[bytes, int], int] = {}
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._whole.hexdigest()

    def add(self, value: NDArray[Any]) -> int:
        """Write an array unless its bytes are there already. Returns where they are."""
        content = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        key = (hashlib.sha256(content.data).digest(), content.nbytes)
        if key not in self._places:
            self._write(bytes(-self.size % ALIGNMENT))
            self._places[key] = self.size
            self._write(content.data)
        return self._places[key]

    def _write(self, content: "bytes | memoryview") -> None:
        self._file.write(content)
        self._whole.update(content)
        self.size += len(content)
