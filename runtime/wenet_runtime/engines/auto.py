"""`--engine auto`: the engine that is quickest on this host, found by running a bundle's modes on each.

Pure selection: how engines are made, loaded and measured is passed in. A choice belongs to one host, one bundle
and the engines' versions.
"""

import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

from wenet_runtime.bundle import Mode
from wenet_runtime.engines.base import Backend, Engine
from wenet_runtime.errors import EngineError

AUTO = "auto"
CANDIDATES: Tuple[str, ...] = ("ort", "openvino")  # of `ENGINES`; of two that are equally quick, the first

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Which engine was chosen, and why.

    Attributes:
        engine: its name.
        mean_ms: geometric mean of the modes' medians, by engine; empty where there was nothing to choose from.
        left_out: why others were not measured to the end, by engine.
    """

    engine: str
    mean_ms: Mapping[str, float]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        """The choice as a sentence."""
        times = ", ".join(f"{name} {ms:.3g} ms" for name, ms in self.mean_ms.items())
        missing = "".join(f"; without {name} ({why})" for name, why in self.left_out.items())
        return f"engine {self.engine} chosen: {times or 'no other is available'}{missing}"


def choose(
    candidates: Mapping[str, Callable[[], Backend]],
    modes: Sequence[Mode],
    *,
    load: Callable[[Backend, Mode], Engine],
    check: Callable[[Mode, Engine], None],
    measure: Callable[[Mapping[str, Engine]], Mapping[str, float]],
) -> Selection:
    """Run every mode on every engine that can, and take the quickest over all modes.

    One mode after the other, so that no more is loaded than that mode once an engine. Every engine and backend
    that was opened is closed again.

    Args:
        candidates: makes each backend, by name. Raises `EngineError` where it is not installed.
        modes: what will be served.
        load: opens a mode. Raises `EngineError` where it cannot.
        check: warms an engine and compares its answers with the golden ones. Raises `EngineError` where it fails.
        measure: medians in ms, by engine, of runs that are interleaved.

    Raises:
        EngineError: no engine can run the modes; names the reason of each.
    """
    left_out: Dict[str, str] = {}
    backends: Dict[str, Backend] = {}
    medians: Dict[str, List[float]] = {}
    try:
        for name, make in candidates.items():
            try:
                backends[name] = make()
            except EngineError as error:
                left_out[name] = str(error)
                _LOG.info("engine %s is left out: %s", name, error)
        usable = dict(backends)
        for mode in modes:
            if len(usable) < 2:
                break
            with _opened(usable, mode, load, check, left_out) as engines:
                for name, median in (measure(engines) if len(engines) > 1 else {}).items():
                    medians.setdefault(name, []).append(median)
            usable = {name: backend for name, backend in usable.items() if name not in left_out}
    finally:
        for backend in backends.values():
            backend.close()
    if not usable:
        raise EngineError(f"no engine can run this bundle here: {'; '.join(left_out.values())}")
    if len(usable) < 2:
        return Selection(next(iter(usable)), {}, left_out)
    mean_ms = {name: math.exp(math.fsum(map(math.log, medians[name])) / len(medians[name])) for name in usable}
    return Selection(min(mean_ms, key=lambda name: mean_ms[name]), mean_ms, left_out)


@contextmanager
def _opened(
    backends: Mapping[str, Backend],
    mode: Mode,
    load: Callable[[Backend, Mode], Engine],
    check: Callable[[Mode, Engine], None],
    left_out: Dict[str, str],
) -> Iterator[Mapping[str, Engine]]:
    """One mode on every engine that runs it; adds the others to `left_out`."""
    engines: Dict[str, Engine] = {}
    try:
        for name, backend in backends.items():
            try:
                engines[name] = load(backend, mode)
                check(mode, engines[name])
            except EngineError as error:
                left_out[name] = str(error)
                _LOG.warning("engine %s is left out: %s", name, error)
        yield {name: engine for name, engine in engines.items() if name not in left_out}
    finally:
        for engine in engines.values():
            engine.close()
