"""ONNX Runtime's TensorRT provider: modes on an NVIDIA GPU, where TensorRT's libraries are installed.

Written from ONNX Runtime's documentation, threads and sources, and tested on doubles: it has not run on a GPU yet.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional

import numpy as np

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Artifact, EngineOptions, Numerics
from wenet_runtime.engines.ort_cuda import CUDA, OrtCudaBackend, Provider, cuda_options
from wenet_runtime.engines.ort_session import onnxruntime
from wenet_runtime.errors import EngineError
from wenet_runtime.files import make_private

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph

TENSORRT = "TensorrtExecutionProvider"


class OrtTensorrtBackend(OrtCudaBackend):
    """Loads modes for the TensorRT provider; what TensorRT does not take, the CUDA provider computes.

    Without CUDA graphs: that provider has one for each session, whatever the batch, and would replay a batch of
    one for a batch of two. fp32 modes are computed in TF32 where the GPU has it, unless the environment says
    NVIDIA_TF32_OVERRIDE=0: the provider has no option for it.

    Args:
        bundle: its largest batch is what engines are built for.
        threads: of what little the host computes.
        options: `cache` keeps TensorRT's engines and timings; without, they are built at every start.

    Raises:
        EngineError: this ONNX Runtime has no such provider, or is too old.
    """

    name = "ort-tensorrt"
    provider = TENSORRT
    graphs = False
    builds_quickly = False

    def __init__(
        self,
        bundle: Optional[Bundle] = None,
        threads: int = 1,
        options: EngineOptions = EngineOptions(),  # noqa: B008
    ) -> None:
        super().__init__(bundle, threads, options)
        self._modes = {} if bundle is None else {mode.id: mode for mode in bundle.modes}
        self._inputs = () if bundle is None else bundle.manifest.inputs
        self._max_batch = 1 if bundle is None else bundle.manifest.max_batch
        self._cache = None if options.cache is None else options.cache / self.name

    def numerics(self, mode: Mode) -> Numerics:
        """fp16 and bf16 are TensorRT's to choose, layer by layer, from a float graph; int8 is written for it."""
        if mode.precision == "int8":
            return Numerics("int8", "int8", symmetric=True)
        return Numerics("fp32", mode.precision)

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Keep the network, and let TensorRT build a mode's engine into the cache: minutes, once per device."""
        made = super().build(graph, name)
        if self._cache is not None and name in self._modes:
            self._open(made, self._modes[name], self._threads, False)
        return made

    def _session_options(self, threads: int) -> "onnxruntime.SessionOptions":
        options = super()._session_options(threads)
        # TensorRT fuses by itself, and must see where an int8 graph rounds.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _providers(self, made: Artifact, mode: Mode, graphs: bool) -> List[Provider]:
        options = {
            "device_id": "0",
            "trt_fp16_enable": str(int(mode.precision in ("fp16", "int8"))),  # int8: where a layer is not quantised
            "trt_int8_enable": str(int(mode.precision == "int8")),
            **self._cache_options(made),
        }
        if mode.precision == "bf16":
            options["trt_bf16_enable"] = "1"  # a newer option than the others
        if mode.id in self._modes:
            for kind, rows in (("min", 1), ("opt", 1), ("max", self._max_batch)):
                shapes = [f"{one.name}:{'x'.join(map(str, (rows, *one.shape[1:])))}" for one in self._inputs]
                options[f"trt_profile_{kind}_shapes"] = ",".join(shapes)
        return [(TENSORRT, options), (CUDA, cuda_options(graphs=graphs))]

    def _cache_options(self, made: Artifact) -> Dict[str, str]:
        """Where this mode's engine is kept: its own folder, because the provider tells engines apart by names.

        Modes have the same names and other numbers, and would be given each other's engines.
        """
        if self._cache is None:
            return {}
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(_private(self._cache / digest(made, self.version))),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(_private(self._cache / "timings")),
        }


def digest(made: Artifact, version: str) -> str:
    """What an artifact is, and for which version of ONNX Runtime, in 32 hexadecimal digits."""
    sha256 = hashlib.sha256(version.encode() + b"\n" + made.model)
    for name, value in sorted(made.numbers.items()):
        sha256.update(name.encode() + b"\n")
        sha256.update(value.reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()[:32]


def _private(folder: Path) -> Path:
    try:
        make_private(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise EngineError(f"cannot use the cache {folder} ({error.strerror}): choose another --cache-dir") from None
    return folder
