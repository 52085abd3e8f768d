"""What an exploration is asked for; the flags of `wenet-trainer explore` are these fields."""

from dataclasses import dataclass, field
from pathlib import Path

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.problem import Limits
from wenet_trainer.space import GRANULARITIES

AUTO, ENOUGH_BLOCKS = "auto", 8  # fewer give a search hardly anything to choose from


@dataclass(frozen=True)
class Exploring:
    """Settings of one exploration.

    Attributes:
        method: the search: "table", "paper", "evolve", or "package.module:function".
        granularity: "layer" or "block": what one knob moves; "auto": blocks where there are `ENOUGH_BLOCKS`.
        evaluations: most configurations whose accuracy is evaluated.
        modes: most modes to keep.
        limits: what modes must keep to.
        tables: layer tables of the devices that modes are for; none: a table of this machine is measured.
        measured: measure every configuration instead of going by a table.
        precisions: try other precisions than fp32, too.
        search_images: validation images behind the search's accuracies; None: see `images.apart`.
        rounds: interleaved runs behind a final latency.
        threads: of one inference.
        meter: source of watts, as `wenet-runtime --meter`.
        seed: of everything random; None: the checkpoint's.
    """

    method: str = "table"
    granularity: str = "auto"
    evaluations: int = 250
    modes: int = 8
    limits: Limits = field(default_factory=Limits)
    tables: tuple[Path, ...] = ()
    measured: bool = False
    precisions: bool = True
    search_images: int | None = None
    rounds: int = 200
    threads: int = 1
    meter: str = "none"
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.modes < 2:
            raise ExploreError(f"--modes is {self.modes}, but must be at least 2: the full network and a faster one")
        if self.granularity not in (AUTO, *GRANULARITIES):
            known = ", ".join((AUTO, *GRANULARITIES))
            raise ExploreError(f"--granularity is '{self.granularity}': known are {known}")
        if self.evaluations < 1:
            raise ExploreError(f"--evaluations is {self.evaluations}: give at least 1")
        if self.measured and self.tables:
            raise ExploreError("--measured measures on this machine and --table goes by another's figures: give one")
