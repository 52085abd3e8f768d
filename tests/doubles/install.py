"""Puts the doubles where `import` finds them, for one test."""

import sys
from dataclasses import dataclass
from typing import Any, List, Optional, Set, Tuple

import pytest

from tests.doubles.board import NANO, Board
from tests.doubles.cudart_double import make_cudart
from tests.doubles.gpu import Gpu
from tests.doubles.pycuda_double import make_pycuda
from tests.doubles.tensorrt_double import make_tensorrt
from tests.doubles.tensorrt_double.names import missing

CUDA_MODULES = ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart")


@dataclass(frozen=True, eq=False)
class Double:
    """What a test holds of the doubles.

    Attributes:
        version: of TensorRT.
        tensorrt: the module.
        gpu: the simulated device, or None.
    """

    version: str
    tensorrt: Any
    gpu: Optional[Gpu]

    @property
    def touched(self) -> Set[Tuple[str, str]]:
        """Which (class, member) pairs of TensorRT were used."""
        return set(self.tensorrt._touched)

    @property
    def built(self) -> List[Any]:
        """What was built: the plan, the workspace, the layers with a precision of their own."""
        return list(self.tensorrt._library.built)

    def assert_all_freed(self) -> None:
        """Raise unless everything was freed and waited for, and nothing was misused, even where code swallowed it."""
        if self.gpu is not None:
            self.gpu.assert_clean()


def install(
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    *,
    board: Optional[Board] = NANO,
    cuda: str = "pycuda",
    checks: bool = True,
) -> Double:
    """Put the doubles into `sys.modules` until the test ends.

    Args:
        monkeypatch: takes them out again.
        version: of TensorRT; the test is skipped where its recorded names are not at hand.
        board: the device; None is a machine without one.
        cuda: "pycuda", "cuda-python" (`cuda.bindings.runtime` and `cuda.cudart`) or "none". What is not chosen cannot
            be imported.
        checks: False shows that a check's test fails without the check.
    """
    reason = missing(version)
    if reason:
        pytest.skip(reason)
    gpu = None if board is None else Gpu(board, checks=checks)
    for name in CUDA_MODULES:
        monkeypatch.setitem(sys.modules, name, None)  # an import fails
    made = {}
    if cuda == "pycuda":
        package, driver = make_pycuda(gpu)
        made = {"pycuda": package, "pycuda.driver": driver}
    elif cuda == "cuda-python":
        made = make_cudart(gpu)
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    tensorrt = make_tensorrt(version, gpu=gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    return Double(version, tensorrt, gpu)
