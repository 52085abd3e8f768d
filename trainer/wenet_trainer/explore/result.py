"""`frontier.json`: what an exploration found, every step of it, and the modes to export."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wenet_runtime.bundle import Accuracy
from wenet_runtime.files import write_atomic
from wenet_trainer.errors import ExploreError

FORMAT = "wenet-frontier"
FORMAT_VERSION = 1
FILE = "frontier.json"


@dataclass(frozen=True)
class Latency:
    """One image's inference time on the machine that explored, milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int


@dataclass(frozen=True)
class Point:
    """A configuration the search evaluated, with the search's own (quicker) figures."""

    groups: Mapping[str, int]
    accuracy: float
    latency_ms: float
    macs: int


@dataclass(frozen=True)
class Round:
    """One step of Algorithm 2: all candidates, and which of them was taken."""

    candidates: tuple[Point, ...]
    chosen: int


@dataclass(frozen=True)
class FoundMode:
    """A mode that is kept, with figures on all validation images and a latency of its own.

    The images that the search chose by are among those of the accuracy, so it is slightly optimistic.
    """

    id: str
    groups: Mapping[str, int]
    accuracy: Accuracy
    macs: int
    params: int
    latency: Latency
    found_by: str


@dataclass(frozen=True)
class Frontier:
    """The file's content.

    Attributes:
        weights_sha256: the checkpoint's weights, so that no other checkpoint is exported with these figures.
        search: name of the search; device: what latency was measured on; data: the data source.
        calibration_images: training images behind every batch-norm statistic.
        search_images: validation images behind the search's accuracies.
        accuracy_evaluations, latency_measurements: how many configurations were evaluated.
        threshold: the least accuracy asked for; result: what the search returned for it.
        start, steps: the full network and every step of the search.
        uniforms, drawn: the uniform configurations and random ones, evaluated beside the search.
        notes: for a person: what the accuracies on all validation images changed.
        modes: from the fastest to the most accurate; only the full network may be below the threshold.
    """

    weights_sha256: str
    search: str
    granularity: str
    seed: int
    device: str
    data: str
    calibration_images: int
    search_images: int
    accuracy_evaluations: int
    latency_measurements: int
    threshold: float
    result: Point
    start: Point
    steps: tuple[Round, ...]
    uniforms: tuple[Point, ...]
    drawn: tuple[Point, ...]
    notes: tuple[str, ...]
    modes: tuple[FoundMode, ...]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def points(self) -> list[Point]:
        """Every distinct configuration that was evaluated."""
        seen = [self.start, *self.uniforms, *self.drawn, *(point for step in self.steps for point in step.candidates)]
        return list({frozenset(point.groups.items()): point for point in seen}.values())


@lru_cache(maxsize=1)
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Frontier)


def write_frontier(path: Path, frontier: Frontier) -> None:
    """Write the file, at once or not at all."""
    members = _adapter().dump_python(frontier, mode="json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(members, indent=1, sort_keys=True) + "\n").encode())


def read_frontier(path: Path) -> Frontier:
    """Read the file. Raises `ExploreError` naming it when it is missing, damaged or foreign."""
    from pydantic import ValidationError

    if not path.is_file():
        raise ExploreError(f"no frontier at {path}: make one with `wenet-trainer explore`")
    try:
        members = json.loads(path.read_bytes())
    except ValueError as error:
        raise ExploreError(f"{path} is not JSON ({error}): explore again") from None
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        raise ExploreError(f"{path} is no {FORMAT} file: name one that `wenet-trainer explore` wrote")
    if members.get("format_version") != FORMAT_VERSION:
        raise ExploreError(
            f"{path} has format version {members.get('format_version')!r}, this wenet-trainer reads "
            f"{FORMAT_VERSION}: explore again"
        )
    try:
        frontier: Frontier = _adapter().validate_python(members)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ExploreError(f"{path}: '{where}': {first['msg']}: explore again") from None
    return frontier
