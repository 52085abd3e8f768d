"""Measurements on disk as they are taken, so that what was measured once is not measured again after a kill."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wenet_runtime.files import write_atomic
from wenet_trainer.errors import ExploreError


class Records:
    """JSON values by key in a file of lines; the first line says what they belong to.

    A line that a kill cut short is dropped. Values of another identity, of another network, machine or way of
    timing, lie in another file.

    Args:
        path: the file, to whose name the identity's hash is added; its folder is made. None keeps values in memory.
        identity: what the values belong to.

    Attributes:
        path: the file; None in memory.

    Raises:
        ExploreError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str]) -> None:
        if path is not None:
            own = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:12]
            path = path.with_name(f"{path.stem}-{own}{path.suffix}")
        self.path = path
        self._values: dict[str, Any] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [_parsed(line) for line in path.read_bytes().splitlines()] if path.exists() else []
            if lines and lines[0] == {"identity": dict(identity)}:
                self._values = {line["key"]: line["value"] for line in lines[1:] if line is not None and "key" in line}
            header = [{"identity": dict(identity)}]
            entries = [{"key": key, "value": value} for key, value in self._values.items()]
            write_atomic(path, b"".join(_line(one) for one in [*header, *entries]))
        except OSError as error:
            raise _unusable(path, error) from None

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Any:
        """The value kept under a key, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value that JSON can carry; it is on disk when this returns.

        Raises:
            ExploreError: it cannot be written.
        """
        self._values[key] = value
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                file.write(_line({"key": key, "value": value}))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(self.path, error) from None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and ("identity" in found or {"key", "value"} <= set(found)) else None


def _unusable(path: Path, error: OSError) -> ExploreError:
    return ExploreError(f"cannot keep measurements in {path} ({error.strerror}): make room, or explore elsewhere")
