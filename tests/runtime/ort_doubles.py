"""Doubles of ONNX Runtime with a GPU: they say they have its providers, and compute on the CPU provider."""

import contextlib
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import onnxruntime
import pytest

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


class SessionDouble:
    """A double of `InferenceSession`: notes what it is given and computes on the CPU provider.

    Of CUDA graphs it knows what ONNX Runtime documents: a run of an id that is new captures, and from then on
    that id answers with the buffers it was captured with.
    """

    def __init__(
        self, lab: "OrtDouble", model: bytes, options: Any, providers: Sequence[Any], enable_fallback: int
    ) -> None:
        self._lab = lab
        self.providers: List[Tuple[str, Dict[str, str]]] = list(providers)
        self.options = options
        self.enable_fallback = enable_fallback
        self.graphs = self.providers[0][1].get("enable_cuda_graph") == "1"
        self.runs: List[Optional[str]] = []  # the graph id of each run
        self.released: List[int] = []
        self._captured: Dict[str, Any] = {}
        lab.sessions.append(self)
        if lab.refuse_graphs and self.graphs:
            raise RuntimeError("nodes have not been partitioned to the CUDAExecutionProvider")
        if lab.refuse is not None:
            raise lab.refuse
        # What refuses the CPU provider cannot be asked for here, so the options are those of an engine on it.
        plain = lab.real_options()
        plain.log_severity_level = 3
        plain.graph_optimization_level = options.graph_optimization_level
        plain.add_session_config_entry(
            "session.model_external_initializers_file_folder_path",
            options.get_session_config_entry("session.model_external_initializers_file_folder_path"),
        )
        plain.add_external_initializers(*lab.numbers.pop(id(options)))
        self._session = lab.real_session(model, plain, providers=["CPUExecutionProvider"])

    def get_providers(self) -> List[str]:
        return self._lab.used or [*(name for name, _ in self.providers), "CPUExecutionProvider"]

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run(self, outputs: List[str], inputs: Any, options: Any = None) -> Any:
        self._note(options)
        return self._session.run(outputs, inputs)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        graph_id = self._note(options)
        if self.graphs and graph_id not in (None, "-1"):
            if graph_id not in self._captured:
                if self._lab.break_captures:
                    self._lab.broken.append(self)
                    raise RuntimeError("operation not permitted when stream is capturing")
                self._captured[graph_id] = binding
            binding = self._captured[graph_id]  # a replay looks at no other buffers
        self._session.run_with_iobinding(binding)

    def release_captured_graph(self, graph_id: int) -> None:
        self.released.append(graph_id)

    def _note(self, options: Any) -> Optional[str]:
        assert self not in self._lab.broken, "a session whose capture broke off was used again"
        graph_id = None if options is None else options.get_run_config_entry("gpu_graph_id")
        self.runs.append(graph_id)
        return graph_id


class OrtDouble:
    """What a test says about the GPU, and which sessions were asked for."""

    def __init__(self) -> None:
        self.real_session = onnxruntime.InferenceSession
        self.real_options = onnxruntime.SessionOptions
        self.sessions: List[SessionDouble] = []
        self.numbers: Dict[int, Any] = {}
        self.refuse_graphs = False  # as where a node is computed on the CPU
        self.refuse: Optional[Exception] = None
        self.break_captures = False
        self.broken: List[SessionDouble] = []
        self.used: List[str] = []  # providers that sessions say they use, if not those they were asked for


@contextlib.contextmanager
def gpu(*providers: str, version: str = "1.19.2") -> Iterator[OrtDouble]:
    """ONNX Runtime as if it had these providers, with device memory in the host's."""
    lab = OrtDouble()
    real_value = onnxruntime.OrtValue

    class Options(lab.real_options):  # type: ignore[misc, name-defined]
        def add_external_initializers(self, names: Any, values: Any) -> None:
            lab.numbers[id(self)] = (names, values)

    class Value:
        """Device memory in the host's."""

        @staticmethod
        def ortvalue_from_numpy(value: Any) -> Any:
            return real_value.ortvalue_from_numpy(value)

        @staticmethod
        def ortvalue_from_shape_and_type(shape: Any, kind: Any, device: str) -> Any:
            assert device == "cuda"
            return real_value.ortvalue_from_shape_and_type(shape, kind, "cpu")

    def session(model: bytes, options: Any, *, providers: Sequence[Any], enable_fallback: int = 1) -> Any:
        if providers == ["CPUExecutionProvider"]:  # what a test compares with
            return lab.real_session(model, options, providers=providers)
        return SessionDouble(lab, model, options, providers, enable_fallback)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
        patch.setattr(onnxruntime, "__version__", version)
        patch.setattr(onnxruntime, "InferenceSession", session)
        patch.setattr(onnxruntime, "SessionOptions", Options)
        patch.setattr(onnxruntime, "OrtValue", Value)
        yield lab
