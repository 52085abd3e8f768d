"""Which modes are resident: all of them, loaded, warmed and checked before the first request."""

from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Backend, Engine
from wenet_runtime.errors import EngineError, UnknownMode

WARMUP_RUNS = 3
# Kernels differ between processors, so a device may differ from the exporter's by more than rounding there.
GOLDEN_TOLERANCE = 1e-3

Progress = Callable[[str, int, int], None]


class Pool:
    """All modes of a bundle as engines. Only the engine thread runs them.

    Args:
        bundle: whose modes.
        backend: what loads them.
        model: makes a mode's plain ONNX model.
        progress: told (what, done, total).

    Raises:
        EngineError: a mode does not load, or does not answer its golden input as the exporter did.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        model: Callable[[Mode], bytes],
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self._backend = backend
        self._engines: Dict[str, Engine] = {}
        golden = bundle.golden()
        inputs = golden_inputs(bundle, golden)
        try:
            for done, mode in enumerate(bundle.modes):
                progress(f"loading {mode.id}", done, len(bundle.modes))
                self._engines[mode.id] = engine = backend.load(mode, _later(model, mode))
                for _ in range(WARMUP_RUNS):
                    outputs = engine.infer(inputs)
                _check_outputs(bundle, mode, outputs)
                if backend.name != "sim":  # a simulated answer is made up and proves nothing
                    _check_golden(mode, outputs, golden)
        except BaseException:
            self.close()
            raise

    @property
    def resident(self) -> List[str]:
        """Ids of the modes that can answer at once."""
        return list(self._engines)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines by mode id."""
        return self._engines

    def get(self, mode_id: str) -> Engine:
        """The engine of a mode. Raises `UnknownMode`."""
        try:
            return self._engines[mode_id]
        except KeyError:
            raise UnknownMode(f"mode '{mode_id}' is not resident: resident are {', '.join(self._engines)}") from None

    def close(self) -> None:
        """Close every engine and what they share."""
        while self._engines:
            self._engines.popitem()[1].close()
        self._backend.close()


def golden_inputs(
    bundle: Bundle, golden: Optional[Mapping[str, NDArray[Any]]] = None, rows: Optional[int] = None
) -> Dict[str, NDArray[Any]]:
    """The bundle's golden inputs by name, their first `rows` rows if given."""
    golden = bundle.golden() if golden is None else golden
    inputs: Dict[str, NDArray[Any]] = {}
    for spec in bundle.manifest.inputs:
        if f"input.{spec.name}" not in golden:
            raise EngineError(f"the bundle's golden file lacks 'input.{spec.name}': export it again")
        inputs[spec.name] = np.ascontiguousarray(golden[f"input.{spec.name}"][:rows])
    return inputs


def _later(model: Callable[[Mode], bytes], mode: Mode) -> Callable[[], bytes]:
    return lambda: model(mode)


def _check_outputs(bundle: Bundle, mode: Mode, outputs: Mapping[str, NDArray[Any]]) -> None:
    for spec in bundle.manifest.outputs:
        found = outputs.get(spec.name)
        if found is None or found.shape[1:] != spec.shape[1:] or found.dtype != spec.dtype:
            shape = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise EngineError(f"mode '{mode.id}' answers {shape} as '{spec.name}', the bundle says {spec.shape}")


def _check_golden(mode: Mode, outputs: Mapping[str, NDArray[Any]], golden: Mapping[str, NDArray[Any]]) -> None:
    for name, value in outputs.items():
        expected = golden.get(f"{mode.id}.{name}")
        if expected is None:
            raise EngineError(f"the bundle's golden file lacks '{mode.id}.{name}': export it again")
        if value.shape != expected.shape:
            raise EngineError(f"mode '{mode.id}' answers '{name}' of shape {value.shape}, not {expected.shape}")
        scale = float(np.abs(expected).max()) or 1.0
        error = float(np.abs(value - expected).max()) / scale
        if not error <= GOLDEN_TOLERANCE:
            raise EngineError(
                f"mode '{mode.id}' deviates from its golden output by {error:.2g} of the largest value "
                f"(allowed {GOLDEN_TOLERANCE:g}): this engine does not compute it right; choose another --engine"
            )
