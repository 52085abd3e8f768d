"""How a network is trained: the settings that, with the code, decide every weight."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from wenet_trainer.errors import TrainingError

SAMPLINGS = ("mixed", "paper")
TEACHERS = ("none", "inplace")


@dataclass(frozen=True)
class Recipe:
    """Training settings.

    Attributes:
        data: name of the data source.
        model: name of the supernet, and the arguments of its constructor.
        epochs: passes over the training images.
        batch: images per step.
        samples: sub-networks per step, the full and the smallest among them (s of Algorithm 1; the
            paper takes 20).
        sampling: `paper` draws every layer uniformly; `mixed` also draws uniform modes and whole
            blocks, which per-layer draws over many layers practically never come near.
        teacher: `none` for hard labels (the paper), `inplace` to teach sub-networks with the full
            network's answers.
        learning_rate: the peak, after a linear warm-up and before a cosine to zero.
        weight_decay: AdamW's.
        seed: fixes splits, views, initial weights and draws.
    """

    data: str = "digits"
    model: str = "digits_resnet"
    model_arguments: Mapping[str, int] = field(default_factory=dict)
    epochs: int = 16
    batch: int = 32
    samples: int = 4
    sampling: str = "mixed"
    teacher: str = "none"
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 2), ("samples", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must be at least {least}")
        if self.sampling not in SAMPLINGS:
            raise TrainingError(f"unknown sampling '{self.sampling}': known are {', '.join(SAMPLINGS)}")
        if self.teacher not in TEACHERS:
            raise TrainingError(f"unknown teacher '{self.teacher}': known are {', '.join(TEACHERS)}")
        if not 0 < self.learning_rate < 10 or not 0 <= self.weight_decay < 10:
            raise TrainingError(
                f"learning rate {self.learning_rate} or weight decay {self.weight_decay} is out of range: "
                "both are small numbers, the learning rate above 0"
            )

    def differences(self, other: "Recipe") -> list[str]:
        """What `other` has differently, in words."""
        return [
            f"{f.name} is {getattr(other, f.name)!r} there, {getattr(self, f.name)!r} here"
            for f in fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON members."""
        members = asdict(self)
        members["model_arguments"] = dict(self.model_arguments)
        return members

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> "Recipe":
        """Back from `to_json`. Raises `TrainingError` for unknown or impossible members."""
        unknown = set(members) - {f.name for f in fields(cls)}
        if unknown:
            raise TrainingError(f"unknown training settings {sorted(unknown)}: written by another wenet-trainer?")
        try:
            return cls(**json.loads(json.dumps(members)))
        except TypeError as error:
            raise TrainingError(f"training settings make no sense ({error})") from None
