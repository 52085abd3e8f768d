"""ONNX Runtime on the CPU: the engine every device has."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Artifact, EngineOptions, Tensors
from wenet_runtime.engines.ort_session import FAILURES, expect_numbers_outside, onnxruntime, plain_options
from wenet_runtime.errors import EngineError

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph

# The shared arena's first region. A mode's first run takes its activations in pieces, later runs take them in one
# piece, and only pieces of one region can be joined again; what is never touched of it takes no memory.
ARENA_BYTES = 64 << 20


class OrtEngine:
    """One mode as an ONNX Runtime session.

    Args:
        session: the session.
        numbers: what its weights lie in; the session borrows them, so they go only after it.
    """

    def __init__(self, session: "onnxruntime.InferenceSession", numbers: "List[onnxruntime.OrtValue]") -> None:
        self._session = session
        self._numbers = numbers
        self._outputs: List[str] = [output.name for output in session.get_outputs()]

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run one batch; see `Engine.infer`."""
        if self._session is None:
            raise EngineError("this engine is closed")
        try:
            values = self._session.run(self._outputs, inputs)
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._outputs, values))

    def close(self) -> None:
        """Drop the session, then its numbers."""
        self._session = None
        self._numbers = []


class OrtBackend:
    """Builds and loads modes for ONNX Runtime's CPU provider.

    Args:
        bundle, options: unused; every backend is made the same way.
        threads: intra-op threads of each session. One engine runs at a time, so inter-op is 1.
    """

    name = "ort"
    version = onnxruntime.__version__

    def __init__(
        self,
        bundle: "Bundle | None" = None,
        threads: int = 1,
        options: EngineOptions = EngineOptions(),  # noqa: B008
    ) -> None:
        del bundle, options
        self._threads = threads

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Optimise a network for this processor; see `Backend.build`."""
        from wenet_runtime.engines.ort_build import optimised  # imports onnx

        try:
            return optimised(graph, self._options(threads=1))
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime cannot build mode '{name}': {error}") from error

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> OrtEngine:
        """Open a session on what `build` made; its numbers are read where they lie."""
        made = artifact()
        options = self._options(threads)
        # It was optimised when it was built.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Packing weights copies them. In float it gains nothing; int8 kernels would pack them in every run.
        if mode.precision != "int8":
            options.add_session_config_entry("session.disable_prepacking", "1")
        # All modes' activations in one place, since one mode runs at a time.
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        expect_numbers_outside(options)
        numbers: List[onnxruntime.OrtValue] = []
        for name, value in made.numbers.items():
            numbers.append(onnxruntime.OrtValue.ortvalue_from_numpy(value))  # no copy: it keeps the array
            options.add_initializer(name, numbers[-1])
        return self._open(made.model, options, mode.id, numbers)

    def load_bytes(self, model: bytes, *, name: str) -> OrtEngine:
        """Open a session on any ONNX model; `name` stands in the error if it does not load."""
        return self._open(model, self._options(), name, [])

    def _options(self, threads: Optional[int] = None) -> "onnxruntime.SessionOptions":
        return plain_options(threads or self._threads)

    def _open(
        self, model: bytes, options: "onnxruntime.SessionOptions", name: str, numbers: "List[onnxruntime.OrtValue]"
    ) -> OrtEngine:
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime cannot load mode '{name}': {error}") from error
        return OrtEngine(session, numbers)

    def close(self) -> None:
        """Nothing is held but the arena, which belongs to the process."""


@lru_cache(maxsize=1)
def _share_arena() -> None:
    """Let this process have one arena that sessions may share. Registering another one is an error in some versions."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    sizes = {"max_mem": 0, "arena_extend_strategy": 0, "initial_chunk_size_bytes": ARENA_BYTES}
    config = onnxruntime.OrtArenaCfg({**sizes, "max_dead_bytes_per_chunk": -1})
    onnxruntime.create_and_register_allocator(info, config)
