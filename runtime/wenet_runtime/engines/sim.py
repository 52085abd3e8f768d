"""A simulated engine: takes a mode's time without computing it. For tests, laptops and the simulator.

Everything it answers is made up and must be shown as simulated.
"""

import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode, TensorSpec
from wenet_runtime.engines.base import Artifact, EngineOptions, Tensors
from wenet_runtime.errors import EngineError

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph

# A simulated device of this speed; a real one differs, which is what `profile` is for.
GMACS_PER_S = 10.0
FIXED_MS = 0.2


class SimEngine:
    """Sleeps for the mode's simulated time, then answers zeros with a one at the input's largest entry."""

    def __init__(self, seconds: float, outputs: Tuple[TensorSpec, ...], sleep: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._outputs = outputs
        self._sleep = sleep
        self._open = True

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Wait as long as the mode would take per row, answer by a fixed rule."""
        if not self._open:
            raise EngineError("this engine is closed")
        first = next(iter(inputs.values()))
        batch = first.shape[0]
        self._sleep(self._seconds * batch)
        results: Dict[str, NDArray[Any]] = {}
        for spec in self._outputs:
            result = np.zeros((batch, *spec.shape[1:]), spec.dtype)
            flat = result.reshape(batch, -1)
            flat[np.arange(batch), first.reshape(batch, -1).argmax(axis=1) % flat.shape[1]] = 1
            results[spec.name] = result
        return results

    def close(self) -> None:
        """Refuse further work, as a real engine would."""
        self._open = False


class SimBackend:
    """Loads simulated modes: time = fixed part + MACs / speed.

    Args:
        bundle: gives the outputs' shapes.
        threads: divides the time, as if every thread helped.
        options: unused.
        sleep: how time passes; tests pass their own.
    """

    name = "sim"
    version = "1"

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 1,
        options: EngineOptions = EngineOptions(),  # noqa: B008
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        del options
        self._outputs = bundle.manifest.outputs
        self._threads = threads
        self._sleep = sleep

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Nothing is built: what is simulated needs no model."""
        del graph, name
        return Artifact(b"", {})

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> SimEngine:
        """Make a simulated mode; the model itself is not asked for."""
        del artifact
        seconds = (FIXED_MS + mode.macs / (GMACS_PER_S * 1e6)) / 1e3 / (threads or self._threads)
        return SimEngine(seconds, self._outputs, self._sleep)

    def close(self) -> None:
        """Nothing is held."""
