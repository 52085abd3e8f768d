"""OpenVINO on the CPU: for x86 boxes, where it computes bf16 modes on processors that have it.

A mode is compiled once for one row and kept as OpenVINO exports it. A batch runs row by row: compiled for any
batch, one row took 3–10 % longer, and eight rows of a grouped network up to 1.7 times as long as eight runs.
"""

import ctypes
import importlib
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Artifact, EngineOptions, Tensors
from wenet_runtime.errors import EngineError

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph

_DEVICE = "CPU"
_COMPILED = "compiled"  # the artifact's only number
_FAILURES = (RuntimeError, ValueError, TypeError, KeyError)


def _import_openvino() -> Any:
    """OpenVINO, without a message to its maker.

    On import it reports that to a web service and writes an identity under the user's home, through the
    package openvino-telemetry. Without that package it does neither, so it is not found while this imports.
    """
    reporter = "openvino_telemetry"
    if reporter in sys.modules or "openvino" in sys.modules:
        return importlib.import_module("openvino")  # whoever imported them before has decided
    # Python's own way to say that a module is not to be found.
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[reporter]


openvino = _import_openvino()


class OpenVinoEngine:
    """One mode as an OpenVINO request for one row.

    Args:
        compiled: the network, its inputs and outputs of one row.
        numbers: what its weights lie in, kept for as long as the engine is open.
    """

    def __init__(self, compiled: Any, numbers: Optional[NDArray[Any]] = None) -> None:
        self._numbers = numbers
        self._request: Any = compiled.create_infer_request()
        self._inputs: Dict[str, Any] = {port.any_name: self._request.get_tensor(port) for port in compiled.inputs}
        self._outputs: Dict[str, Any] = {port.any_name: self._request.get_tensor(port) for port in compiled.outputs}

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run one batch, row by row; see `Engine.infer`."""
        if self._request is None:
            raise EngineError("this engine is closed")
        rows = self._rows(inputs)
        results: Dict[str, NDArray[Any]] = {}
        try:
            for row in range(rows):
                for name, tensor in self._inputs.items():
                    np.copyto(tensor.data, inputs[name][row : row + 1], casting="no")
                self._request.infer(share_outputs=True)
                for name, tensor in self._outputs.items():
                    if row == 0:
                        results[name] = np.empty((rows, *tensor.data.shape[1:]), tensor.data.dtype)
                    results[name][row] = tensor.data[0]
        except _FAILURES as error:
            raise EngineError(f"OpenVINO failed: {_reason(error)}") from error
        return results

    def _rows(self, inputs: Tensors) -> int:
        """How many rows every input has. OpenVINO would stretch a wrong shape, so shapes are checked here."""
        if set(inputs) != set(self._inputs):
            raise EngineError(f"OpenVINO failed: given are {sorted(inputs)}, the mode reads {sorted(self._inputs)}")
        counts = set()
        for name, tensor in self._inputs.items():
            wanted, value = tensor.data, inputs[name]
            if value.ndim != wanted.ndim or value.shape[1:] != wanted.shape[1:] or value.dtype != wanted.dtype:
                raise EngineError(
                    f"OpenVINO failed: '{name}' is {value.dtype} {value.shape}, the mode reads {wanted.dtype} "
                    f"(rows, {', '.join(map(str, wanted.shape[1:]))})"
                )
            counts.add(int(value.shape[0]))
        if len(counts) != 1 or 0 in counts:
            raise EngineError(f"OpenVINO failed: the inputs have {sorted(counts)} rows, and all must have as many")
        return counts.pop()

    def close(self) -> None:
        """Drop the request, then its numbers."""
        self._inputs, self._outputs = {}, {}
        self._request = None
        self._numbers = None


class OpenVinoBackend:
    """Builds and loads modes for OpenVINO's CPU plug-in.

    Args:
        bundle, options: unused; every backend is made the same way.
        threads: of one inference, in the thread that asks for it and beside it.
    """

    name = "openvino"
    version: str = openvino.__version__

    def __init__(
        self,
        bundle: "Bundle | None" = None,
        threads: int = 1,
        options: EngineOptions = EngineOptions(),  # noqa: B008
    ) -> None:
        del bundle, options
        self._threads = threads
        self._core: Any = openvino.Core()

    @property
    def computes_bf16(self) -> bool:
        """Whether this processor has bf16; where it has not, bf16 modes are computed in float."""
        return "BF16" in self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Compile a network for one row; see `Backend.build`. In which precision, loading decides."""
        try:
            blob = self._compile(graph.to_bytes(), "fp32", 1).export_model()
        except _FAILURES as error:
            raise EngineError(f"OpenVINO cannot build mode '{name}': {_reason(error)}") from error
        return Artifact(self.version.encode(), {_COMPILED: np.frombuffer(blob.getbuffer(), np.uint8)})

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> OpenVinoEngine:
        """Open what `build` made, in the mode's precision; its weights are read where they lie."""
        made = artifact()
        if made.model != self.version.encode() or _COMPILED not in made.numbers:
            raise EngineError(f"mode '{mode.id}' was not built by OpenVINO {self.version}: delete its cache")
        blob = made.numbers[_COMPILED]
        properties = self._properties(mode.precision, threads or self._threads)
        try:
            tensor = openvino.Tensor(_writable(blob), shared_memory=True)
            return OpenVinoEngine(self._core.import_model(tensor, _DEVICE, properties), blob)
        except _FAILURES as error:
            raise EngineError(f"OpenVINO cannot load mode '{mode.id}': {_reason(error)}") from error

    def load_bytes(self, model: bytes, *, name: str, precision: str = "fp32") -> OpenVinoEngine:
        """Compile any ONNX model; `name` stands in the error if it does not load."""
        try:
            return OpenVinoEngine(self._compile(model, precision, self._threads))
        except _FAILURES as error:
            raise EngineError(f"OpenVINO cannot load mode '{name}': {_reason(error)}") from error

    def _compile(self, model: bytes, precision: str, threads: int) -> Any:
        network = self._core.read_model(model)
        _hide_orders(network)
        network.reshape({port.any_name: [1, *list(port.partial_shape)[1:]] for port in network.inputs})
        return self._core.compile_model(network, _DEVICE, self._properties(precision, threads))

    def _properties(self, precision: str, threads: int) -> Mapping[str, Any]:
        return {
            # Left alone, OpenVINO computes float models in bf16 wherever the processor can. Asked for bf16 where it
            # cannot, it may imitate it, slower than float.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" and self.computes_bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # which core the engine thread runs on is the daemon's setting
        }

    def close(self) -> None:
        """Nothing is shared among engines."""


def _hide_orders(network: Any) -> None:
    """Keep OpenVINO from writing a channel shuffle into the layer behind it, which it does wrongly.

    Its pass for reversed colour channels takes any permutation and applies it where the inverse belongs: right
    for a reversal, wrong for a shuffle (all versions up to 2026.4). It passes over axes counted from the end.
    """
    for node in network.get_ops():
        rank = node.input_value(0).partial_shape.rank if node.get_type_name() == "Gather" else None
        if rank is None or rank.is_dynamic or node.input_value(2).get_node().get_type_name() != "Constant":
            continue
        axis = int(node.input_value(2).get_node().get_data().reshape(-1)[0])
        if axis >= 0:
            from_the_end = openvino.opset8.constant(np.int64(axis - rank.get_length()))
            node.input(2).replace_source_output(from_the_end.output(0))


def _reason(error: Exception) -> str:
    """What OpenVINO says last: before it stand the places in its sources that passed the error on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as an array that says it may be written to: OpenVINO borrows no other, and only reads it."""
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    return np.ctypeslib.as_array(memory)
