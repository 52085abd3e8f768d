"""TensorRT: the engine of Jetsons and of NVIDIA's GPUs, versions 8.2 to 10.

Modes are built on the device, which takes minutes, and belong to it and to its version of TensorRT. Everything is
computed in fp16 where the GPU is quick at it, and int8 modes in int8 where it is quick at that.
"""

import fnmatch
import hashlib
import importlib
import json
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

from wenet_runtime.board import read_board
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Artifact, EngineOptions, Numerics
from wenet_runtime.engines.cuda import open_gpu
from wenet_runtime.engines.trt_engine import FAILURES, Bench, TrtEngine
from wenet_runtime.engines.trt_files import PLAN, PLATFORM, TIMING, Header, Journal, Origin, Recipe
from wenet_runtime.engines.trt_logger import logger_of
from wenet_runtime.errors import EngineError

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph

OLDEST, NEXT = (8, 2), (11,)  # version 11 builds only networks that say the type of every tensor themselves
# A profile's memory grows with its rows, and all modes' profiles count, so larger batches run in pieces.
MOST_ROWS = 8
# What one layer may take besides; a convolution of a small network gains nothing from more.
WORKSPACE_BYTES = 512 << 20
ALL = "*"

_ENGINE = "engine"  # the artifact's only number
_LOG = logging.getLogger(__name__)


class TrtBackend:
    """Builds and loads modes for TensorRT on the first GPU.

    Args:
        bundle: whose largest batch engines are built for.
        threads: unused; nothing is computed on the CPU.
        options: the cache that what was built is kept in, and layers that stay in fp32.

    Raises:
        EngineError: there is no GPU, no TensorRT, or none of the versions that this runs on.
    """

    name = "trt"
    builds_quickly = False

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 1,
        options: EngineOptions = EngineOptions(),  # noqa: B008
    ) -> None:
        del threads
        gpu = open_gpu()  # first: without a GPU TensorRT fails in ways that tell nothing
        try:
            self._trt: Any = _import_tensorrt()
            self._logger, self._messages = logger_of(self._trt)
            self._journal = Journal(None if options.cache is None else options.cache / "trt")
        except BaseException:
            gpu.close()
            raise
        major, minor = gpu.compute_capability
        self._gpu = gpu
        self._origin = Origin(self._trt.__version__, gpu.name, f"{major}.{minor}", read_board().l4t or "")
        self._fp32_layers = options.fp32_layers
        # Names of nodes already, beside those that users know from the bundle.
        self._fp32_nodes = self._fp32_layers + tuple(
            layer.node
            for layer in bundle.manifest.layers
            if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in self._fp32_layers)
        )
        self._most_rows = max(1, min(MOST_ROWS, bundle.manifest.max_batch))
        self._aliases = {layer.node: layer.name for layer in bundle.manifest.layers}
        self._bench = Bench(gpu, self._trt, self._messages)
        self._making = threading.Lock()  # builder and runtime: neither is used by two threads at a time
        self._runtime: Any = None
        self._fast: Optional[Tuple[bool, bool]] = None
        self.version = " ".join(
            (
                self._origin.tensorrt,
                gpu.name,
                f"sm_{major}{minor}",
                *((f"L4T {self._origin.l4t}",) if self._origin.l4t else ()),
                *((f"fp32 in {','.join(self._fp32_layers)}",) if self._fp32_layers else ()),
            )
        )

    def numerics(self, mode: Mode) -> Numerics:
        """Float modes in fp16, int8 modes in int8, both only where the GPU is quick at it; see `numerics_of`."""
        fp16, int8 = self._precisions()
        if mode.precision == "int8" and int8:
            return Numerics("int8", "int8", symmetric=True, fp32_layers=self._fp32_nodes)
        return Numerics("fp32", "fp16" if fp16 else "fp32")

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Build an engine, or take it from the journal if it was built before; see `Backend.build`."""
        fp16, int8 = self._precisions()
        quantized = any(node.op_type == "QuantizeLinear" for node in graph.nodes)
        recipe = Recipe(fp16, int8 and quantized, self._fp32_layers, WORKSPACE_BYTES, self._most_rows)
        onnx = graph.to_bytes()
        header = Header(hashlib.sha256(onnx).hexdigest(), self._origin, recipe)
        plan = self._journal.read(header.key + PLAN)
        if plan is None:
            start_s = time.monotonic()
            plan = self._built(onnx, recipe, name)
            self._journal.write(header.key + PLAN, plan)
            _LOG.info("TensorRT built '%s' in %.1f s", name, time.monotonic() - start_s)
        return Artifact(header.to_bytes(), {_ENGINE: plan})

    def _built(self, onnx: bytes, recipe: Recipe, name: str) -> Any:
        from wenet_runtime.engines.trt_build import Timings, build_plan

        timing = self._origin.key + TIMING
        timings = Timings(lambda: self._journal.read(timing), lambda data: self._journal.write(timing, data))
        moment = self._messages.now()
        try:
            with self._making, self._gpu.current():
                return build_plan(
                    self._trt,
                    self._trt.Builder(self._logger),
                    self._logger,
                    onnx,
                    recipe,
                    timings=timings,
                    aliases=self._aliases,
                )
        except (EngineError, *FAILURES) as error:
            said = self._messages.since(moment)
            raise EngineError(f"TensorRT cannot build mode '{name}': {error}{said}") from error

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> TrtEngine:
        """Open what `build` made on this very device; see `Backend.load`."""
        del threads
        made = artifact()
        header = self._own(mode, made)
        moment = self._messages.now()
        try:
            with self._making, self._gpu.current():
                if self._runtime is None:
                    self._runtime = self._trt.Runtime(self._logger)
                engine = self._runtime.deserialize_cuda_engine(made.numbers[_ENGINE])
                if engine is None:
                    raise EngineError("it does not take the engine; delete its cache to build it again")
                return TrtEngine(self._bench, engine, most_rows=header.recipe.most_rows)
        except (EngineError, *FAILURES) as error:
            said = self._messages.since(moment)
            raise EngineError(f"TensorRT cannot load mode '{mode.id}': {error}{said}") from error

    def _own(self, mode: Mode, made: Artifact) -> Header:
        """What an engine says of itself, if it was built here. Another device's may do anything, so it is not run."""
        try:
            header = Header.from_bytes(made.model)
            if _ENGINE not in made.numbers:
                raise ValueError("it holds no engine")
        except ValueError as error:
            raise EngineError(f"mode '{mode.id}' was not built by TensorRT ({error}): delete its cache") from None
        if header.origin != self._origin:
            raise EngineError(
                f"mode '{mode.id}' was built by TensorRT for {header.origin}, this is {self._origin}: delete its cache"
            )
        return header

    def _precisions(self) -> Tuple[bool, bool]:
        """Whether fp16 and int8 are used: where the GPU is quick at them, unless all layers stay in fp32."""
        if self._fast is None:
            self._fast = self._ask_platform()
        return (False, False) if ALL in self._fp32_layers else self._fast

    def _ask_platform(self) -> Tuple[bool, bool]:
        """What the builder says. It is kept, because a builder costs a small board memory that serving needs not."""
        name = self._origin.key + PLATFORM
        kept = self._journal.read(name)
        if kept is not None:
            known: Dict[str, bool] = json.loads(kept.tobytes())
            return known["fp16"], known["int8"]
        moment = self._messages.now()
        try:
            with self._making, self._gpu.current():
                builder = self._trt.Builder(self._logger)
                fast = bool(builder.platform_has_fast_fp16), bool(builder.platform_has_fast_int8)
                del builder
        except FAILURES as error:
            raise EngineError(f"TensorRT has no builder here: {error}{self._messages.since(moment)}") from error
        self._journal.write(name, json.dumps(dict(zip(("fp16", "int8"), fast))).encode())
        return fast

    def close(self) -> None:
        """Free engines that are still open, the runtime, what modes shared, and the stream, in this order."""
        self._bench.close_engines()
        with self._making, self._gpu.current():
            self._runtime = None
        self._bench.close()
        self._gpu.close()


def _import_tensorrt() -> Any:
    """TensorRT, if it is here and of a version that this runs on. Raises `EngineError`."""
    try:
        trt: Any = importlib.import_module("tensorrt")
    except ImportError as error:
        raise EngineError(
            f"TensorRT's Python module is missing ({error}): it comes with JetPack, see deploy/README.md; "
            "or choose another --engine"
        ) from None
    version = tuple(int(part) for part in re.findall(r"\d+", str(trt.__version__))[:2])
    if not OLDEST <= version < NEXT:
        raise EngineError(
            f"TensorRT {trt.__version__} is installed, and this engine runs on 8.2 to 10.x: "
            "install one of these, or choose another --engine"
        )
    return trt
