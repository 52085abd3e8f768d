"""How a network is trained: the settings that, with the code, decide every weight."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from wenet_trainer.errors import TrainingError

AMPS = ("none", "bf16", "fp16")
CLASSIFIERS = ("dense", "grouped")
OPTIMIZERS = ("adamw", "sgd")
TEACHERS = ("none", "inplace", "ema")


def setting(default: Any, text: str) -> Any:
    """A dataclass field with its help text, from which flags, configuration file and docs are made."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """Training settings; each one's meaning stands beside it."""

    data: str = setting("digits", "data source: digits, generated, folder:PATH, parquet:PATH, webdataset:PATH")
    image_size: int = setting(0, "side of the network's input in pixels; 0 takes the source's own")
    augment: str = setting("none", "augmentation: none, flip, standard or strong")
    model: str = setting("digits_resnet", "supernet: a name of the table or package.module:Class")
    model_arguments: Mapping[str, int] = setting({}, "an argument of the model's constructor, as name=number")
    convert: bool = setting(False, "the model is a plain network: convert it to a supernet")
    classifier: str = setting("dense", "dense, or grouped: the last dense layer is weight-enabled, too")
    pretrained: str = setting("", "safetensors file with a plain network's numbers to start from")
    epochs: int = setting(12, "passes over the training images")
    batch: int = setting(32, "images per step, over all processes")
    samples: int = setting(4, "sub-networks per step, full and smallest among them; the paper takes 20")
    sampling: str = setting("target", "sub-networks to train: target, uniform (the paper's), progressive or fixed")
    groups: int = setting(1, "the one pattern that --sampling fixed trains")
    teacher: str = setting("ema", "who teaches the sub-networks: none (the paper), inplace or ema")
    teacher_share: float = setting(0.5, "share of the teacher's answers in a sub-network's loss; the rest is the label")
    teacher_decay: float = setting(0.997, "how slowly the ema teacher follows, per step")
    label_smoothing: float = setting(0.0, "share of every label that is spread over all classes")
    optimizer: str = setting("adamw", "adamw or sgd (Nesterov momentum 0.9)")
    learning_rate: float = setting(4e-3, "peak of the schedule")
    warm_up: float = setting(0.15, "share of the steps in which the learning rate rises; a cosine to zero follows")
    weight_decay: float = setting(0.05, "of weights; never of norms and biases")
    clip_norm: float = setting(0.0, "greatest norm of the step's gradient; 0 does not clip")
    amp: str = setting("none", "mixed precision: none, bf16 or fp16")
    seed: int = setting(0, "fixes splits, views, initial weights and draws")

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 2), ("samples", 2), ("seed", 0), ("groups", 1), ("image_size", 0)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must be at least {least}")
        for name, known in (
            ("teacher", TEACHERS),
            ("amp", AMPS),
            ("classifier", CLASSIFIERS),
            ("optimizer", OPTIMIZERS),
        ):
            if getattr(self, name) not in known:
                raise TrainingError(f"unknown {name} '{getattr(self, name)}': known are {', '.join(known)}")
        for name, low, high in (
            ("weight_decay", 0.0, 10.0),
            ("label_smoothing", 0.0, 0.9),
            ("teacher_share", 0.0, 1.0),
            ("teacher_decay", 0.0, 0.99999),
            ("warm_up", 0.0, 0.9),
            ("clip_norm", 0.0, 1e9),
        ):
            if not low <= getattr(self, name) <= high:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must lie between {low:g} and {high:g}")
        if self.seed >= 2**32:
            raise TrainingError(f"seed is {self.seed}, but must be below 2**32")
        if not 0 < self.learning_rate < 10:
            raise TrainingError(f"learning_rate is {self.learning_rate}, but must lie above 0 and below 10")

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
