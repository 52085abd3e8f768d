"""ONNX Runtime's CUDA provider: modes on an NVIDIA GPU.

Written from ONNX Runtime's documentation, threads and sources, and tested on its CPU provider and on doubles: it
has not run on a GPU yet.

A mode is kept as its plain graph and optimised when it is opened, because what a provider fuses depends on the
provider and its version; that takes a fraction of a second a mode. Every mode holds its own weights and
activations on the device. Activations are not shared, though ONNX Runtime could share an arena among sessions:
what a captured CUDA graph writes to goes back to the arena after the capture, and another session would be given
memory that the next replay overwrites. The first batch of a size takes longer, while cuDNN tries its algorithms.
"""

import functools
import logging
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Artifact, EngineOptions, Numerics
from wenet_runtime.engines.ort_binding import BoundEngine, CaptureGate
from wenet_runtime.engines.ort_session import FAILURES, expect_numbers_outside, onnxruntime, plain_options
from wenet_runtime.errors import EngineError

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph

CUDA = "CUDAExecutionProvider"
OLDEST = (1, 18)  # the first with a graph for each batch size, and with fp32 that is not rounded to TF32

Provider = Tuple[str, Dict[str, str]]

_LOG = logging.getLogger(__name__)


class OrtCudaBackend:
    """Loads modes for the CUDA provider, with CUDA graphs where they can be captured. Never uses the CPU instead.

    The device is the first that CUDA shows: CUDA_VISIBLE_DEVICES chooses another.

    Args:
        bundle, options: unused here; every backend is made the same way.
        threads: of what little the host computes.

    Raises:
        EngineError: this ONNX Runtime has no such provider, or is too old.
    """

    name = "ort-cuda"
    version = onnxruntime.__version__
    provider = CUDA
    device = "cuda"
    graphs = True

    def __init__(
        self,
        bundle: Optional[Bundle] = None,
        threads: int = 1,
        options: EngineOptions = EngineOptions(),  # noqa: B008
    ) -> None:
        del bundle, options
        require_provider(self.provider)
        _preload()
        self._threads = threads
        self._gate = CaptureGate()

    def numerics(self, mode: Mode) -> Numerics:
        """How modes are computed: fp16 as fp16; int8 in fp16, and bf16 in fp32, for want of kernels.

        The provider would compute quantised layers in float, between a node for each rounding. fp16 is nearer to
        the numbers an int8 mode stands for than int8 is, so its answers differ from an int8 engine's by what int8
        may differ: they are held to that.
        """
        return Numerics("fp16" if mode.precision == "int8" else mode.precision, mode.precision)

    def build(self, graph: "Graph", name: str) -> Artifact:
        """Keep the network as it is, its large numbers outside; see `Backend.build`.

        Shuffles that could not be folded stay one Gather each, which a GPU does at the speed of its memory.
        """
        del name
        from wenet_runtime.engines.ort_build import plain  # imports onnx

        return plain(graph)

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> BoundEngine:
        """Open a session on the GPU. The host's numbers are copied to it."""
        open_session = functools.partial(self._open, artifact(), mode, threads or self._threads)
        try:
            return self._bound(open_session, mode, self.graphs)
        except EngineError as error:
            if not self.graphs:
                raise
            engine = self._bound(open_session, mode, False)  # where the graphs were not the reason it says so itself
            _LOG.warning("mode '%s' runs without CUDA graphs: %s", mode.id, error)
            return engine

    def _bound(self, open_session: Callable[[bool], Any], mode: Mode, graphs: bool) -> BoundEngine:
        return BoundEngine(open_session, mode.id, self.device, graphs=graphs, gate=self._gate)

    def _open(self, made: Artifact, mode: Mode, threads: int, graphs: bool) -> "onnxruntime.InferenceSession":
        options = self._session_options(threads)
        numbers = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in made.numbers.values()]
        # Not `add_initializer`: that takes over what lies on the device already and leaves out what does not.
        options.add_external_initializers(list(made.numbers), numbers)
        providers = self._providers(made, mode, graphs)
        try:
            # Asked for nothing else, some versions still try again on the CPU, which the entry above refuses.
            session = onnxruntime.InferenceSession(made.model, options, providers=providers, enable_fallback=0)
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime cannot load mode '{mode.id}' on the GPU: {_reason(error)}") from error
        used = session.get_providers()
        if used[:1] != [self.provider]:
            raise EngineError(
                f"ONNX Runtime opened mode '{mode.id}' with {', '.join(used)} and not with {self.provider}: its CUDA "
                "libraries do not load here; its own messages on standard error name them"
            )
        return session

    def _session_options(self, threads: int) -> "onnxruntime.SessionOptions":
        options = plain_options(threads)
        # A node without a kernel for the GPU is refused: each run would wait for copies there and back. Since 1.16.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        expect_numbers_outside(options)
        return options

    def _providers(self, made: Artifact, mode: Mode, graphs: bool) -> List[Provider]:
        """Providers and their options, the most wanted first."""
        del made, mode
        return [(CUDA, cuda_options(graphs=graphs))]

    def close(self) -> None:
        """Nothing is held."""


def require_provider(wanted: str) -> None:
    """Raise `EngineError` unless this ONNX Runtime has a provider and is new enough to use it."""
    there = onnxruntime.get_available_providers()
    if wanted not in there:
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} here has no {wanted}, only {', '.join(there)}: "
            "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`; the two packages hold the same files "
            "and must not be installed side by side"
        )
    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < OLDEST:
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} is too old to run modes on a GPU: "
            f"install onnxruntime-gpu {'.'.join(map(str, OLDEST))} or newer"
        )


def cuda_options(*, graphs: bool) -> Dict[str, str]:
    """Options of the CUDA provider."""
    return {
        "device_id": "0",
        # Every mode has an arena of its own: what it never asked for, the others may have.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "0",  # an fp32 mode is exact; who wants speed exports fp16
        "enable_cuda_graph": str(int(graphs)),
    }


def _preload() -> None:
    """Load the CUDA libraries that were installed as Python packages, which the system does not look for."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if preload is not None:
        preload()


def _reason(error: BaseException) -> str:
    """What went wrong first, in a line: a second try on the CPU fails too, and says less."""
    first = error.__cause__ or error
    return " ".join(str(first).split())
