"""`frontier.json`: what an exploration found, all it looked at, and the modes to export."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from wenet_runtime.bundle import Accuracy
from wenet_runtime.files import write_atomic
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.problem import Limits

FORMAT = "wenet-frontier"
FORMAT_VERSION = 2
FILE = "frontier.json"


@dataclass(frozen=True)
class Latency:
    """One image's inference time, milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int


@dataclass(frozen=True)
class Point:
    """A configuration the search evaluated, with the search's own (quicker) figures.

    Attributes:
        latency_ms, energy_mj: predicted by a table, or measured; energy where a meter answers.
        found_by: which part of the search asked for it.
    """

    groups: Mapping[str, int]
    accuracy: float
    latency_ms: float
    energy_mj: float | None
    macs: int
    found_by: str


@dataclass(frozen=True)
class FoundMode:
    """A mode that is kept.

    Attributes:
        accuracy: with recalibrated statistics, on images that the search did not choose by.
        latency: measured whole, all modes interleaved.
        energy_mj: of one image, and what measured it; None and "none" where no meter answers.
        predicted_ms: what the tables that the search went by say, by device; tables are of fp32.
        below_full, below_full_error: the full network's accuracy less this mode's, image by image, and its
            standard error, which is much smaller than the intervals' widths suggest.
    """

    id: str
    groups: Mapping[str, int]
    precision: str
    accuracy: Accuracy
    macs: int
    params: int
    latency: Latency
    found_by: str
    energy_mj: float | None = None
    energy_source: str = "none"
    predicted_ms: Mapping[str, float] = field(default_factory=dict)
    below_full: float = 0.0
    below_full_error: float = 0.0


@dataclass(frozen=True)
class Dropped:
    """A finalist that is not kept, with its final figures and the reason as a sentence."""

    groups: Mapping[str, int]
    precision: str
    accuracy: Accuracy
    latency: Latency
    energy_mj: float | None
    why: str


@dataclass(frozen=True)
class Reference:
    """The corner that hypervolume is measured from."""

    latency_ms: float
    accuracy: float
    energy_mj: float | None = None


@dataclass(frozen=True)
class Frontier:
    """The file's content.

    Attributes:
        weights_sha256: the checkpoint's weights, so that no other checkpoint is exported with these figures.
        method: name of the search; granularity: what one knob moved; seed: of everything random.
        device: what latencies were measured on; tables: the devices whose tables the search went by.
        data: the data source; calibration_images: behind every batch-norm statistic;
        search_images, final_images: behind the search's accuracies and behind the modes' own; no image is in both.
        accuracy_evaluations, latency_measurements: how many configurations were evaluated.
        search_seconds: the search's own time, without any evaluation.
        reference, hypervolume: of the modes, as a share of the box between the reference and (0 ms, accuracy 1).
        points: every configuration that was evaluated, in order.
        dropped: finalists that were not kept.
        notes: sentences for a person.
        modes: from the fastest to the slowest here; the full network may break the limits, and those that were
            kept by other devices' tables may do so here.
    """

    weights_sha256: str
    method: str
    granularity: str
    seed: int
    device: str
    tables: tuple[str, ...]
    data: str
    calibration_images: int
    search_images: int
    final_images: int
    accuracy_evaluations: int
    latency_measurements: int
    search_seconds: float
    limits: Limits
    reference: Reference
    hypervolume: float
    points: tuple[Point, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    modes: tuple[FoundMode, ...]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def lines(self) -> list[str]:
        """The frontier for a person's terminal."""
        found = [*self.notes]
        for mode in self.modes:
            low, high = 100 * mode.accuracy.ci_low, 100 * mode.accuracy.ci_high
            energy = "" if mode.energy_mj is None else f", {mode.energy_mj:.3g} mJ ({mode.energy_source})"
            found.append(
                f"{mode.id}: {100 * mode.accuracy.value:.1f} % ({low:.1f}–{high:.1f}), {mode.macs / 1e6:.1f} MMACs, "
                f"{mode.latency.p50_ms:.3f} ms{energy}, {mode.precision}, found by {mode.found_by}"
            )
        found += [
            f"dropped: {one.precision}, {100 * one.accuracy.value:.1f} %, {one.latency.p50_ms:.3f} ms: {one.why}"
            for one in self.dropped
        ]
        found.append(
            f"{self.accuracy_evaluations} accuracies evaluated, {self.search_seconds:.1f} s of search, hypervolume "
            f"{self.hypervolume:.4f} of the box to {self.reference.latency_ms:.3g} ms and accuracy "
            f"{self.reference.accuracy:.3g}"
        )
        return found


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
