"""The answers of configurations that were evaluated, on disk: lines are added every few, so a kill costs little."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.files import sync_directory, write_atomic
from wenet_trainer.errors import ExploreError
from wenet_trainer.space import GroupConfig

FORMAT = "wenet-accuracies"
FORMAT_VERSION = 1

Answers = Mapping[GroupConfig, NDArray[np.bool_]]


class Journal:
    """A file whose first line says what its answers belong to; every other line is one configuration.

    A file of other weights or images is set aside under another name rather than refused: a search after a new
    training should not stop for it, and what it took hours to evaluate should not be lost.

    Args:
        path: the file; its folder is made.
        layers: the order in which lines name groups.
        images: answers of a line.
        identity: what else the answers depend on: weights, data, calibration.

    Attributes:
        set_aside: where a file of another identity is now; None where there was none.

    Raises:
        ExploreError: the file is something else, which is left alone, or it cannot be written.
    """

    def __init__(self, path: Path, layers: Sequence[str], images: int, identity: Mapping[str, str]) -> None:
        self._path, self._layers, self._images = path, tuple(layers), images
        self._head = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "identity": dict(identity),
            "images": images,
            "layers": list(self._layers),
        }
        self.set_aside: Path | None = None
        self._written: dict[GroupConfig, NDArray[np.bool_]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise _unwritable(path, error) from error

    def read(self) -> dict[GroupConfig, NDArray[np.bool_]]:
        """What was there when the file was opened: configuration → (images,)."""
        return dict(self._written)

    def add(self, answers: Answers) -> None:
        """Append configurations; they survive a power cut when this returns. Raises `ExploreError`."""
        lines = "".join(
            json.dumps({"groups": [config[name] for name in self._layers], "right": packed(right)}) + "\n"
            for config, right in answers.items()
        )
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _open(self) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        if content:
            head, *lines = content.split(b"\n")
            found = _members(head)
            if found is None or found.get("format") != FORMAT:
                raise ExploreError(
                    f"{self._path} is no journal of accuracies: move it away, or let the exploration write elsewhere"
                )
            if found == self._head:
                self._take(lines[:-1])
                whole = len(content) - len(lines[-1]) if lines else 0  # what a kill left half-written is cut off
                if whole:
                    os.truncate(self._path, whole)
                    return
            else:
                self._move()
        write_atomic(self._path, json.dumps(self._head).encode() + b"\n")

    def _take(self, lines: Sequence[bytes]) -> None:
        """Damaged lines, which only a failing disk leaves, are passed over: they are evaluated again."""
        for line in lines:
            members = _members(line) or {}
            groups = members.get("groups")
            try:
                bits = unpacked(str(members.get("right")), self._images)
            except ValueError:
                continue
            if not isinstance(groups, list) or not all(type(one) is int for one in groups):
                continue
            if len(groups) != len(self._layers):
                continue
            self._written[GroupConfig(dict(zip(self._layers, groups, strict=True)))] = bits

    def _move(self) -> None:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.old-{number}")).exists():
            number += 1
        self._path.rename(aside)
        sync_directory(self._path.parent)
        self.set_aside = aside


def packed(right: NDArray[np.bool_]) -> str:
    """Answers as text, eight in a byte."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, images: int) -> NDArray[np.bool_]:
    """What was packed: (images,).

    Raises:
        ValueError: it is the text of another number of answers, or of none.
    """
    found = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(found) != -(-images // 8):
        raise ValueError(f"{8 * len(found)} answers where {images} were wanted")
    return np.unpackbits(found, count=images).astype(np.bool_)


def _members(line: bytes) -> dict[str, Any] | None:
    try:
        members = json.loads(line)
    except ValueError:
        return None
    return members if isinstance(members, dict) else None


def _unwritable(path: Path, error: OSError) -> ExploreError:
    return ExploreError(
        f"cannot keep accuracies in {path} ({error.strerror or error}): make room or choose another folder; "
        "what is written there already will not be evaluated again"
    )
