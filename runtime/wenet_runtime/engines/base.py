"""What every engine is: a backend loads modes, an engine runs one."""

from typing import Any, Callable, Dict, Mapping, Protocol

from numpy.typing import NDArray

from wenet_runtime.bundle import Mode

Tensors = Mapping[str, NDArray[Any]]


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
    """Loads modes on this device."""

    name: str
    version: str

    def load(self, mode: Mode, model: Callable[[], bytes]) -> Engine:
        """Load one mode.

        Args:
            mode: which mode; only a simulated backend reads its figures.
            model: makes the mode's plain ONNX model; not called when the backend needs none.
        """
        ...

    def close(self) -> None:
        """Free what the backend shares among its engines."""
        ...
