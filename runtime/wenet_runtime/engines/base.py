"""What every engine is: a backend builds and loads modes, an engine runs one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Protocol

from numpy.typing import NDArray

from wenet_runtime.bundle import Mode

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph  # imports onnx, which serving from a warm cache needs not

Tensors = Mapping[str, NDArray[Any]]


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
    """Builds and loads modes on this device. Both may be called on any thread, also while engines run."""

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
