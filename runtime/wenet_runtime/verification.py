"""Compares what an engine made of a mode with ONNX Runtime on the CPU, the plain reference.

Inputs are the bundle's golden ones and random ones of their kind, one row at a time and in the largest batches.
"""

import os
import platform
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import golden_inputs
from wenet_runtime.device import processor_flags
from wenet_runtime.engines.base import Artifact, Backend, Engine, Tensors, numerics_of
from wenet_runtime.errors import EngineError
from wenet_runtime.manifest import PRECISIONS

if TYPE_CHECKING:
    from wenet_runtime.materialize import Supernet

SAMPLES = 16


@dataclass(frozen=True)
class Verdict:
    """How one mode compares with its reference.

    Attributes:
        rows: inputs compared, each alone and in a batch.
        tolerance: the largest deviation allowed.
        deviation: the largest difference as a share of the reference's largest value; None where there is no number.
        top1: share of rows whose largest value stands where the reference's does; None without answers.
        failure: why there is nothing to compare; empty if there is.
    """

    mode_id: str
    rows: int
    tolerance: float
    deviation: Optional[float] = None
    top1: Optional[float] = None
    failure: str = ""

    @property
    def refusal(self) -> str:
        """Why the mode must not serve; empty if it may."""
        if self.failure:
            return self.failure
        if self.deviation is None or not self.deviation <= self.tolerance:
            found = "no number" if self.deviation is None else f"{self.deviation:.2g} of the largest value"
            return f"it deviates from ONNX Runtime by {found} (allowed {self.tolerance:g})"
        return ""


def sample_inputs(golden: Tensors, samples: int, random: np.random.Generator) -> Dict[str, NDArray[Any]]:
    """Golden inputs and, after them, random ones with the same mean and deviation in every channel.

    Args:
        golden: every input by name, (rows, channels, …).
        samples: how many random rows.
        random: draws them.

    Returns:
        (rows + samples, channels, …) each. Whole numbers stay within the golden ones' range.
    """
    return {name: np.concatenate([value, _alike(value, samples, random)]) for name, value in golden.items()}


def _alike(golden: NDArray[Any], samples: int, random: np.random.Generator) -> NDArray[Any]:
    others = tuple(axis for axis in range(golden.ndim) if axis != 1)
    values = golden.astype(np.float64)
    mean, deviation = values.mean(axis=others, keepdims=True), values.std(axis=others, keepdims=True)
    drawn = random.normal(mean, deviation, (samples, *golden.shape[1:]))
    if golden.dtype.kind != "f":
        drawn = np.clip(np.rint(drawn), golden.min(), golden.max())
    result: NDArray[Any] = drawn.astype(golden.dtype)
    return result


def verify_modes(
    bundle: Bundle,
    backend: Backend,
    artifact: Callable[[Mode], Artifact],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> List[Verdict]:
    """Compare every mode, most accurate first; one is in memory at a time.

    Args:
        bundle: whose modes.
        backend: loads what it built.
        artifact: gives a mode as the backend built it.
        samples: random rows beside the golden ones.
        seed: of the random rows.
        progress: told (what, done, total).

    Raises:
        EngineError: ONNX Runtime does not run the reference itself.
    """
    from wenet_runtime.materialize import Supernet  # imports onnx

    supernet = Supernet.of(bundle)
    inputs = sample_inputs(golden_inputs(bundle), samples, np.random.default_rng(seed))
    found = []
    for done, mode in enumerate(bundle.modes):
        progress(f"verifying {mode.id}", done, len(bundle.modes))
        reference = _reference(supernet, bundle, mode)
        found.append(_verdict(bundle, mode, backend, partial(artifact, mode), inputs, reference))
    progress("verifying", len(found), len(found))
    return found


def _reference(supernet: "Supernet", bundle: Bundle, mode: Mode) -> Engine:
    """The mode as it is, in its own precision: nothing planned, tuned or built for this device."""
    from wenet_runtime.engines.ort import OrtBackend
    from wenet_runtime.lowering.precision import wants_reduced_range
    from wenet_runtime.materialize import lower

    graph = lower(
        supernet,
        mode.groups,
        bundle.statistics(mode),
        precision=mode.precision,
        reduce_range=wants_reduced_range(platform.machine(), processor_flags()),
    )
    return OrtBackend(None, os.cpu_count() or 1).load_bytes(graph.to_bytes(), name=mode.id)


def _verdict(
    bundle: Bundle,
    mode: Mode,
    backend: Backend,
    artifact: Callable[[], Artifact],
    inputs: Tensors,
    reference: Engine,
) -> Verdict:
    rows = next(iter(inputs.values())).shape[0]
    computed = numerics_of(backend, mode).computed
    # What is computed more finely than the mode is still as far from it as the mode's own precision is.
    tolerance = max(PRECISIONS[mode.precision], PRECISIONS[computed])
    with closing(reference):  # before the engine is loaded: a small board may not hold both
        expected = answers(reference, inputs, 1)
    try:
        with closing(backend.load(mode, artifact)) as engine:
            found = [answers(engine, inputs, batch) for batch in sorted({1, bundle.manifest.max_batch})]
        compared = [compare(one, expected) for one in found]
    except EngineError as error:
        return Verdict(mode.id, rows, tolerance, failure=str(error))
    deviation = max((one.deviation for one in compared), key=lambda value: np.inf if np.isnan(value) else value)
    return Verdict(
        mode.id,
        rows,
        tolerance,
        deviation=float(deviation) if np.isfinite(deviation) else None,
        top1=min(one.top1 for one in compared),
    )


def answers(engine: Engine, inputs: Tensors, batch: int) -> Dict[str, NDArray[Any]]:
    """What an engine answers to every row, `batch` rows at a time; the last batch is filled up with the first rows."""
    rows = next(iter(inputs.values())).shape[0]
    parts: List[Mapping[str, NDArray[Any]]] = []
    for start in range(0, rows, batch):
        wanted = np.arange(start, start + batch) % rows
        # A copy: an engine may answer in memory that its next run overwrites.
        parts.append({name: value.copy() for name, value in engine.infer(_rows(inputs, wanted)).items()})
    return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}


def _rows(inputs: Tensors, wanted: NDArray[Any]) -> Dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(value[wanted]) for name, value in inputs.items()}


@dataclass(frozen=True)
class Compared:
    """Figures of one comparison; see `Verdict`. The deviation is NaN or infinite where an answer is."""

    deviation: float
    top1: float


def compare(found: Tensors, expected: Tensors) -> Compared:
    """The worst of all outputs, each (rows, …).

    Raises:
        EngineError: an output is missing or of another shape or type.
    """
    deviations, agreed = [], []
    for name, reference in expected.items():
        answer = found.get(name)
        if answer is None or (answer.shape, answer.dtype) != (reference.shape, reference.dtype):
            told = "nothing" if answer is None else f"{answer.dtype} {answer.shape}"
            raise EngineError(f"it answers {told} as '{name}', ONNX Runtime {reference.dtype} {reference.shape}")
        exact, wanted = answer.astype(np.float64), reference.astype(np.float64)
        if not (np.isfinite(exact).all() and np.isfinite(wanted).all()):
            deviations.append(np.nan)
        else:
            scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
            deviations.append(float(np.abs(exact - wanted).max(initial=0.0)) / scale)
        rows = len(wanted)
        places = exact.reshape(rows, -1).argmax(axis=1) == wanted.reshape(rows, -1).argmax(axis=1)
        agreed.append(float(places.mean()))
    return Compared(float(np.max(deviations)), min(agreed))
