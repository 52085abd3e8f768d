"""ONNX Runtime on the CPU: the engine every device has."""

from typing import Any, Callable, Dict, List

import onnxruntime
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import EngineError

# ONNX Runtime raises exceptions of its own C++ module, which share no base but Exception's children.
_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    *(
        getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
        for name in (
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "NoSuchFile",
            "NotImplemented",
            "RuntimeException",
            "EngineError",
            "ModelLoaded",
            "EPFail",
        )
        if hasattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
    ),
)


class OrtEngine:
    """One mode as an ONNX Runtime session."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        self._session = session
        self._outputs: List[str] = [output.name for output in session.get_outputs()]

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run one batch; see `Engine.infer`."""
        if self._session is None:
            raise EngineError("this engine is closed")
        try:
            values = self._session.run(self._outputs, inputs)
        except _FAILURES as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._outputs, values))

    def close(self) -> None:
        """Drop the session."""
        self._session = None


class OrtBackend:
    """Loads modes into ONNX Runtime's CPU provider.

    Args:
        bundle: unused; every backend is made the same way.
        threads: intra-op threads of each session. One engine runs at a time, so inter-op is 1.
    """

    name = "ort"
    version = onnxruntime.__version__

    def __init__(self, bundle: "Bundle | None" = None, threads: int = 1) -> None:
        del bundle
        self._threads = threads

    def load(self, mode: Mode, model: Callable[[], bytes]) -> OrtEngine:
        """Open a session on the mode's plain ONNX model."""
        return self.load_bytes(model(), name=mode.id)

    def load_bytes(self, model: bytes, *, name: str) -> OrtEngine:
        """Open a session on any ONNX model; `name` stands in the error if it does not load."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning worker steals the time that a small device has for the rest of the request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _FAILURES as error:
            raise EngineError(f"ONNX Runtime cannot load mode '{name}': {error}") from error
        return OrtEngine(session)

    def close(self) -> None:
        """Nothing is shared among sessions."""
