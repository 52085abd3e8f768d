"""What an engine must answer before it serves: the bundle's golden inputs, as the exporter answered them."""

from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Engine
from wenet_runtime.errors import EngineError
from wenet_runtime.manifest import PRECISIONS

WARMUP_RUNS = 3


class Canary:
    """Warms engines and checks their answers.

    Args:
        bundle: whose golden inputs and outputs; read once.
        simulated: answers are made up and prove nothing, so only their form is checked.
        computed: in which of `PRECISIONS` engines compute a mode; in its own if not given.
    """

    def __init__(
        self, bundle: Bundle, *, simulated: bool, computed: Callable[[Mode], str] = lambda mode: mode.precision
    ) -> None:
        self._outputs = bundle.manifest.outputs
        self._golden = bundle.golden()
        self._inputs = golden_inputs(bundle, self._golden)
        self._simulated = simulated
        self._computed = computed

    def check(self, mode: Mode, engine: Engine, *, rows: Optional[int] = None) -> None:
        """Run an engine until it is warm, or on the first `rows` golden rows alone, if given.

        One row at a time: a batch would take memory that no request of one row needs, and keep it.

        Raises:
            EngineError: it does not answer as the exporter did.
        """
        runs = rows or WARMUP_RUNS
        there = next(iter(self._inputs.values())).shape[0]
        rows = there if rows is None else min(rows, there)
        answers: List[Dict[str, NDArray[Any]]] = [{}] * rows
        for number in range(max(rows, runs)):
            row = number % rows
            answers[row] = engine.infer({name: value[row : row + 1] for name, value in self._inputs.items()})
        outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        for spec in self._outputs:
            found = outputs.get(spec.name)
            if found is None or found.shape[1:] != spec.shape[1:] or found.dtype != spec.dtype:
                shape = "nothing" if found is None else f"{found.dtype} {found.shape}"
                raise EngineError(f"mode '{mode.id}' answers {shape} as '{spec.name}', the bundle says {spec.shape}")
            if self._simulated and found.dtype.kind == "f" and not np.isfinite(found).all():
                raise EngineError(f"mode '{mode.id}' answers its golden input with a '{spec.name}' that is no number")
        if not self._simulated:
            self._compare(mode, outputs, rows)

    def _compare(self, mode: Mode, outputs: Mapping[str, NDArray[Any]], rows: int) -> None:
        # Kernels differ between processors, so a device may differ from the exporter's by more than rounding. The
        # golden answers are rounded like the mode, this engine's like what it computes in.
        tolerance = max(PRECISIONS[mode.precision], PRECISIONS[self._computed(mode)])
        for name, value in outputs.items():
            expected = self._golden.get(f"{mode.id}.{name}")
            if expected is None:
                raise EngineError(f"the bundle's golden file lacks '{mode.id}.{name}': export it again")
            expected = expected[:rows]
            if value.shape != expected.shape:
                raise EngineError(f"mode '{mode.id}' answers '{name}' of shape {value.shape}, not {expected.shape}")
            scale = float(np.abs(expected).max()) or 1.0
            error = float(np.abs(value - expected).max()) / scale
            if not error <= tolerance:
                raise EngineError(
                    f"mode '{mode.id}' deviates from its golden output by {error:.2g} of the largest value "
                    f"(allowed {tolerance:g}): this engine does not compute it right; choose another --engine"
                )


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
