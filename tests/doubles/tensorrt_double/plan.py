"""The double's plans: bytes that carry the model, and the version and device that they were built for."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple

MAGIC = b"double of a TensorRT plan, runs on no device\n"


@dataclass(frozen=True)
class TensorPlan:
    """One input or output; `shape` has -1 where it is free."""

    name: str
    label: str
    shape: Tuple[int, ...]
    is_input: bool


@dataclass(frozen=True)
class Plan:
    """What a plan says beside its model.

    Attributes:
        profiles: per profile, per input: the least, best and greatest shape.
        device_memory_bytes: what a context needs to run.
        weight_bytes: what an engine holds as long as it lives.
    """

    version: str
    board: str
    compute_capability: Tuple[int, ...]
    name: str
    tensors: Tuple[TensorPlan, ...]
    profiles: Tuple[Dict[str, Tuple[Tuple[int, ...], ...]], ...]
    flags: Tuple[str, ...]
    layers: Tuple[str, ...]
    device_memory_bytes: int
    weight_bytes: int

    @property
    def inputs(self) -> List[TensorPlan]:
        return [one for one in self.tensors if one.is_input]


def pack(plan: Plan, model: bytes) -> bytes:
    """A plan and its model as one string of bytes."""
    head = json.dumps({**asdict(plan), "model_sha256": hashlib.sha256(model).hexdigest()}).encode()
    return MAGIC + len(head).to_bytes(8, "little") + head + model


def unpack(data: bytes) -> Optional[Tuple[Plan, bytes]]:
    """The plan and model, or None if the bytes are no whole plan."""
    if not data.startswith(MAGIC):
        return None
    at = len(MAGIC) + 8
    size = int.from_bytes(data[len(MAGIC) : at], "little")
    try:
        head: Dict[str, Any] = json.loads(data[at : at + size])
    except ValueError:
        return None
    model = data[at + size :]
    if hashlib.sha256(model).hexdigest() != head.pop("model_sha256", None):
        return None
    head["tensors"] = tuple(
        TensorPlan(one["name"], one["label"], tuple(one["shape"]), one["is_input"]) for one in head["tensors"]
    )
    head["profiles"] = tuple(
        {name: tuple(tuple(shape) for shape in shapes) for name, shapes in one.items()} for one in head["profiles"]
    )
    for name in ("compute_capability", "flags", "layers"):
        head[name] = tuple(head[name])
    return Plan(**head), model
