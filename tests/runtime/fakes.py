"""Stand-ins for what a test must control: an engine that waits for an event, a client without a socket."""

import asyncio
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional

import httpx
import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.controller import Controller
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.engines.base import Artifact, Tensors
from wenet_runtime.engines.sim import SimBackend, SimEngine
from wenet_runtime.loader import Loader
from wenet_runtime.memory import MB
from wenet_runtime.meters.base import Meter
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.pool import Pool
from wenet_runtime.profile import Profile
from wenet_runtime.runtime import Runtime
from wenet_runtime.scheduler import Scheduler
from wenet_runtime.service.decisions import Decisions
from wenet_runtime.service.envelope import App
from wenet_runtime.service.inference import Service
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.serving import Serving

KB = 1000 / MB  # in the unit of a limit of memory
PATIENCE_S = 10.0  # how long an event may take on a crowded machine before a test fails
MEDIANS_MS = {"m0": 1.0, "m1": 10.0, "m2": 100.0}
# So slow that a crowded test machine's own delays change no decision.
SLOW_MS = {"m0": 100.0, "m1": 1_000.0, "m2": 10_000.0}


def profile(p50_ms: float, energy_mj: Optional[float] = None) -> Profile:
    """A profile with a tail of a tenth."""
    source = "none" if energy_mj is None else "sim"
    return Profile(p50_ms, p50_ms * 1.05, p50_ms * 1.1, 100, energy_mj, source)


class SettableEngine:
    """Answers at once by the simulated rule, unless its backend is held or told to fail."""

    def __init__(self, mode: Mode, backend: "SettableBackend", inner: SimEngine) -> None:
        self.mode_id = mode.id
        self._backend = backend
        self._inner = inner

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        return self._backend.run(self.mode_id, lambda: self._inner.infer(inputs), inputs)

    def close(self) -> None:
        self._backend.closed.append(self.mode_id)
        self._inner.close()


class SettableBackend:
    """A simulated backend whose every run is recorded as (mode, first number of the input)."""

    name = "sim"
    version = "test"

    def __init__(self, bundle: Bundle) -> None:
        self._sim = SimBackend(bundle, sleep=lambda seconds: None)
        self._gate = threading.Event()
        self._gate.set()
        self.entered = threading.Event()
        self.runs: List[tuple[str, float]] = []
        self.closed: List[str] = []
        self.error: Optional[Exception] = None
        self.threads: Dict[str, Optional[int]] = {}

    def build(self, graph: Any, name: str) -> Artifact:
        return self._sim.build(graph, name)

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> SettableEngine:
        self.threads[mode.id] = threads
        return SettableEngine(mode, self, self._sim.load(mode, artifact, threads=threads))

    def close(self) -> None:
        self.closed.append("backend")

    def run(self, mode_id: str, answer: Callable[[], Dict[str, NDArray[Any]]], inputs: Tensors) -> Any:
        self.runs.append((mode_id, float(next(iter(inputs.values())).flat[0])))
        self.entered.set()
        assert self._gate.wait(PATIENCE_S), "the test never released the engine"
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return answer()

    def hold(self) -> None:
        """Let the next run begin and not end."""
        self.entered.clear()
        self._gate.clear()

    def release(self) -> None:
        """Let runs end."""
        self._gate.set()

    def wait_until_running(self) -> None:
        assert self.entered.wait(PATIENCE_S), "the engine got no work"

    @property
    def first_numbers(self) -> List[float]:
        return [number for _, number in self.runs]


def no_artifact(mode: Mode) -> Artifact:
    """A simulated mode is loaded without what it was built into."""
    raise AssertionError(f"{mode.id} was built")


def unbuilt() -> Artifact:
    """The same for one mode."""
    raise AssertionError("a mode was built")


class LoadingBackend(SettableBackend):
    """Notes what is loaded; the loading of a mode can be held or made to fail."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.loads: List[str] = []
        self.failing: Dict[str, Exception] = {}
        self.on_load: Callable[[str], None] = lambda mode_id: None
        self._held: Dict[str, threading.Event] = {}
        self._reached: Dict[str, threading.Event] = {mode.id: threading.Event() for mode in bundle.modes}

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> SettableEngine:
        self.on_load(mode.id)
        self.loads.append(mode.id)
        self._reached[mode.id].set()
        if mode.id in self._held:
            assert self._held[mode.id].wait(PATIENCE_S), "the test never let it load"
        if mode.id in self.failing:
            raise self.failing.pop(mode.id)
        return super().load(mode, artifact, threads=threads)

    def hold_load(self, mode_id: str) -> None:
        """Let the loading of a mode begin and not end."""
        self._held[mode_id] = threading.Event()

    def release_loads(self) -> None:
        """Let modes be loaded."""
        for held in self._held.values():
            held.set()

    def wait_until_loading(self, mode_id: str) -> None:
        assert self._reached[mode_id].wait(PATIENCE_S), f"{mode_id} was never loaded"


class GoldenEngine:
    """Answers a mode's golden outputs, bent by the backend's `bend`."""

    def __init__(self, mode: Mode, backend: "GoldenBackend") -> None:
        self._mode, self._backend = mode, backend

    def infer(self, inputs: Tensors) -> Dict[str, Any]:
        expected = self._backend.golden[f"{self._mode.id}.logits"]
        answer = self._backend.bend(expected) if self._mode.id == "m1" else expected
        asked = [np.array_equal(row, inputs["input"][0]) for row in self._backend.golden["input.input"]].index(True)
        return {"logits": answer[asked : asked + 1]}

    def close(self) -> None:
        self._backend.closed.append(self._mode.id)


class GoldenBackend:
    """A backend that is not simulated; mode m1's answers can be bent."""

    name = "golden"
    version = "1"

    def __init__(self, bundle: Bundle, bend: Callable[[Any], Any]) -> None:
        self.golden = bundle.golden()
        self.bend = bend
        self.closed: List[str] = []

    def build(self, graph: Any, name: str) -> Artifact:
        raise AssertionError(f"{name} was built")

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> GoldenEngine:
        return GoldenEngine(mode, self)

    def close(self) -> None:
        self.closed.append("backend")


def wait_for(pool: Pool, reached: Callable[[], bool]) -> None:
    """Wait for a change of what is resident."""
    with pool._changed:
        assert pool._changed.wait_for(reached, PATIENCE_S), f"resident are {pool.residency}"


def make_service(
    bundle: Bundle,
    backend: SettableBackend,
    *,
    max_queue: int = 64,
    medians_ms: Mapping[str, float] = MEDIANS_MS,
    energies_mj: Optional[Mapping[str, float]] = None,
    meter: Optional[Meter] = None,
    defaults: Optional[Defaults] = None,
    memory_kb: Optional[float] = None,
) -> Service:
    """A service on a settable engine, with costs that are said and not measured.

    With `memory_kb` only m0 is loaded, others when they are wanted.
    """
    pool = Pool(bundle, backend, no_artifact, load=memory_kb is None)
    loader = None if memory_kb is None else Loader(pool, memory_kb * KB, "m0", (), rest_s=0.0)
    profiles = {mode.id: profile(medians_ms[mode.id], (energies_mj or {}).get(mode.id)) for mode in bundle.modes}
    scheduler = Scheduler(Controller(bundle.modes, profiles), max_queue=max_queue)
    runtime = Runtime(pool, scheduler, meter or NoMeter(), loader=loader)
    backend.runs.clear()
    decisions = Decisions(DecisionLog(), runtime.controller)
    return Service(Serving(bundle, runtime, decisions), Metrics(bundle, runtime), defaults or Defaults())


class Client:
    """Sends requests straight into an ASGI application.

    Args:
        app: the application.
        service: what it serves, for tests that look behind it.
    """

    def __init__(self, app: App, service: Optional[Service] = None) -> None:
        self.app = app
        self.service = service

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        """One request on a connection of its own."""
        return asyncio.run(self.arequest(method, path, **how))

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.request("GET", path, **how)

    def infer(self, *, path: str = "/infer", **how: Any) -> httpx.Response:
        """POST /infer; with nothing to send, one valid image of numbers."""
        if "content" not in how and "json" not in how:
            how["json"] = v2_body(ones())
        return self.request("POST", path, **how)

    async def arequest(self, method: str, path: str, **how: Any) -> httpx.Response:
        """The same inside a running loop."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **how)


def ones(rows: int = 1, value: float = 1.0) -> NDArray[Any]:
    """A valid input, (rows, 1, 8, 8), all of one value: the value is how a test knows it again."""
    return np.full((rows, 1, 8, 8), value, np.float32)


def v2_body(values: NDArray[Any], **members: Any) -> Dict[str, Any]:
    """A V2 inference object of one input."""
    tensor = {"name": "input", "datatype": "FP32", "shape": list(values.shape), "data": values.reshape(-1).tolist()}
    return {"inputs": [tensor], **members}


def check_problem(response: httpx.Response, slug: str, status: int) -> Dict[str, Any]:
    """Whether a response is this problem in full; returns its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    members: Dict[str, Any] = response.json()
    assert members["type"] == f"urn:wenet:problem:{slug}", members
    assert members["status"] == status
    assert members["title"]
    assert members["detail"] == members["error"]
    assert "\n" not in members["detail"]
    assert members["instance"] == f"urn:wenet:request:{response.headers['x-request-id']}"
    for secret in ("Traceback", "/runtime/", ".py", "0x"):
        assert secret not in members["detail"]
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1
        assert members["retry_after_ms"] >= 1
    return members
