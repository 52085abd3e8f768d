"""What every engine is: a backend builds and loads modes, an engine runs one.

A backend is made as `Class(bundle, threads, options)`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Protocol, Tuple

from numpy.typing import NDArray

from wenet_runtime.bundle import Mode

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph  # imports onnx, which serving from a warm cache needs not

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EngineOptions:
    """What the settings say to whatever engine is chosen.

    Attributes:
        cache: the cache's root, where a backend may keep what helps to build modes of any bundle; None keeps nothing.
        fp32_layers: names of layers, with * and ?, that are computed in fp32 where the others are not.
    """

    cache: Optional[Path] = None
    fp32_layers: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Numerics:
    """How a backend computes a mode on this device.

    Attributes:
        emitted: the precision that the mode's graph is written in for it, one of `PRECISIONS`.
        computed: the precision of its arithmetic, to whose tolerance its answers are held.
        symmetric: int8 is written with activations around zero and biases in float.
        fp32_layers: nodes of the graph, with * and ?, that int8 leaves in float.
    """

    emitted: str
    computed: str
    symmetric: bool = False
    fp32_layers: Tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Artifact:
    """A mode in an engine's own form, as it lies in the cache of one device.

    Attributes:
        model: opaque to all but the engine that built it.
        numbers: the large numbers the model refers to, by name, outside of it so that modes may share them.
            An engine reads them where they lie for as long as it is open, and never writes to them.
    """

    model: bytes
    numbers: Tensors


class Engine(Protocol):
    """One loaded mode. Used by one thread at a time."""

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run one batch: every input by name, (batch, …), to every output by name.

        Raises:
            EngineError: the engine failed; it may be used again.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. Closing twice is harmless."""
        ...


class Backend(Protocol):
    """Builds and loads modes on this device. Both may be called on any thread, also while engines run.

    A backend may also have `numerics(mode) -> Numerics`, if it does not compute modes as they are, and
    `builds_quickly = False`, if building takes seconds, so that layers are not tuned one by one.
    """

    name: str
    version: str

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Turn a mode's plain network into the engine's own form: slow, once per device.

        Args:
            graph: the network; the numbers of the result may be its own arrays.
            name: stands in the error if it cannot be built.

        Raises:
            EngineError: the engine does not take this network.
        """
        ...

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> Engine:
        """Load one mode: quick.

        Args:
            mode: which mode; only a simulated backend reads its figures.
            artifact: gives what `build` made of the mode; not called when the backend needs none.
            threads: of one inference; the backend's own number if not given.

        Raises:
            EngineError: the artifact is not one this engine can run.
        """
        ...

    def close(self) -> None:
        """Free what the backend shares among its engines."""
        ...


def numerics_of(backend: Backend, mode: Mode) -> Numerics:
    """How a backend computes a mode: as it is, unless the backend says otherwise."""
    told: Optional[Callable[[Mode], Numerics]] = getattr(backend, "numerics", None)
    return Numerics(mode.precision, mode.precision) if told is None else told(mode)


def builds_quickly(backend: Backend) -> bool:
    """Whether building takes milliseconds rather than seconds, so that many variants may be tried."""
    quick: bool = getattr(backend, "builds_quickly", True)
    return quick
