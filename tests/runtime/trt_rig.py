"""A TensorRT backend on the test double, with a bundle's modes at hand. Nothing here is a measurement."""

import contextlib
from pathlib import Path
from typing import Any, Iterator, List, Optional

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.doubles.board import NANO, Board
from tests.doubles.install import Double, install
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines.base import Artifact, EngineOptions
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.engines.trt import TrtBackend
from wenet_runtime.engines.trt_engine import TrtEngine
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet, lower

VERSIONS = ("8.2.1", "8.5.2", "8.6.1", "10.3.0", "10.13.3.9")
# Of the largest value: the double rounds weights to fp16, and a small network's answers differ by less than this.
FP16 = 1e-2


class Rig:
    """A backend and what it is to be compared with."""

    def __init__(self, double: Double, bundle: Bundle, cache: Optional[Path], fp32_layers: List[str]) -> None:
        self.double = double
        self.bundle = bundle
        self.backend = TrtBackend(bundle, 1, EngineOptions(cache, tuple(fp32_layers)))
        self._supernet = Supernet.of(bundle)

    def graph(self, mode_id: str = "m0") -> Graph:
        mode = self.bundle.mode(mode_id)
        return lower(self._supernet, mode.groups, self.bundle.statistics(mode))

    def artifact(self, mode_id: str = "m0") -> Artifact:
        return self.backend.build(self.graph(mode_id), mode_id)

    def engine(self, mode_id: str = "m0") -> TrtEngine:
        return self.backend.load(self.bundle.mode(mode_id), lambda: self.artifact(mode_id))

    def answers(self, images: NDArray[Any], mode_id: str = "m0") -> NDArray[Any]:
        """What ONNX Runtime answers to the plain network."""
        reference = OrtBackend().load_bytes(self.graph(mode_id).to_bytes(), name=mode_id)
        with contextlib.closing(reference):
            return np.asarray(reference.infer({"input": images})["logits"])

    @property
    def plans(self) -> List[Any]:
        """What TensorRT was asked to build, in order."""
        return [one["plan"] for one in self.double.built]


@contextlib.contextmanager
def rigged(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    version: str = "8.2.1",
    *,
    board: Board = NANO,
    cuda: str = "pycuda",
    cache: Optional[Path] = None,
    fp32_layers: Optional[List[str]] = None,
) -> Iterator[Rig]:
    """A rig on a double, which must be left clean: everything freed, nothing misused."""
    double = install(monkeypatch, version, board=board, cuda=cuda)
    rig = Rig(double, bundle, cache, fp32_layers or [])
    try:
        yield rig
    finally:
        rig.backend.close()
    double.assert_all_freed()


def near(found: NDArray[Any], wanted: NDArray[Any], tolerance: float = FP16) -> bool:
    """Whether answers are the same but for rounding."""
    return bool(np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max())


@contextlib.contextmanager
def replaced(cls: Any, **members: Any) -> Iterator[None]:
    """Other members for one of the double's classes, which do not let themselves be changed otherwise."""
    before = {name: vars(cls)[name] for name in members}
    for name, member in members.items():
        type.__setattr__(cls, name, member)
    try:
        yield
    finally:
        for name, member in before.items():
            type.__setattr__(cls, name, member)
