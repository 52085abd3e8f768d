"""Where does a small request's time go? The application in this process, without sockets, stamped as it passes.

Each stage ends where the named step begins or ends; medians from the request's arrival. Beside it the least that any
handler with a thread for its engine can do: the same session through an executor, awaited.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import uvloop

from benchmarks.common import Arguments, Figure, Measured, reported, run
from benchmarks.serving_models import Subject, transport
from wenet_runtime import engine_loop
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.dispatch import Dispatch
from wenet_runtime.engine_loop import EngineLoop
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.runtime import Runtime
from wenet_runtime.scheduler import Scheduler
from wenet_runtime.service import inference, waiting
from wenet_runtime.service.app import create_app
from wenet_runtime.service.assembly import open_serving
from wenet_runtime.service.inference import Service
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.service.options import Defaults
from wenet_runtime.settings import Settings

QUESTION = "Where does a small request's time go, beside the least that a handler with an engine's thread can do?"
ROUNDS, QUICK, WARM = 3000, 50, 100
APART_S = 0.001  # between two requests: what follows a reply is over by then
# Step by step: what it is called here, whose method it is, and whether its end (or its beginning) is stamped.
STEPS: tuple[tuple[str, Any, str, bool], ...] = (
    ("head read, body there", inference, "decode", False),
    ("decoded", inference, "decode", True),
    ("options known", Runtime, "submit", False),
    ("admitted", Scheduler, "submit", True),
    ("taken by the engine's thread", EngineLoop, "_begin", True),
    ("computed", Dispatch, "run", True),
    ("answer handed over", engine_loop, "hand_out", True),
    ("event loop awake", waiting.Waiting, "wake", False),
    ("encoding begins", inference, "encode", False),
    ("encoded", inference, "encode", True),
)
LAST = "reply sent"
FIELDS = [
    (b"host", b"127.0.0.1"),
    (b"content-type", b"application/octet-stream"),
    (b"inference-header-content-length", b"0"),
]


def measure(arguments: Arguments) -> Measured:
    """Requests one after another, each followed by one to the plain handler."""
    rounds = QUICK if arguments.quick else ROUNDS
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wenet-stages-")))
        subject = transport(folder / "small", 2)
        settings = Settings(bundle=subject.bundle.path, cache_dir=subject.cache, meter="none")
        serving, device = open_serving(settings, opened.enter_context(DecisionLog()), Defaults())
        opened.callback(device.meter.close)
        opened.callback(serving.close, 10.0)
        app = create_app(Service(serving, Metrics(serving.bundle, serving.runtime), Defaults()))
        stamps: dict[str, float] = {}
        for name, owner, method, end in STEPS:
            opened.enter_context(_stamped(stamps, name, owner, method, end=end))
        taken, plain = uvloop.run(_asked(app, subject, stamps, rounds))
    names = [*(name for name, *_ in STEPS), LAST]
    whole = [one for one in taken if all(name in one for name in names)]
    figures: dict[str, Figure] = {}
    for name in names:
        at_us = float(np.median([one[name] for one in whole])) * 1e6
        figures[name] = reported(at_us, "µs", f"after the request came, median of {len(whole)}")
    figures["plain"] = reported(
        float(np.median(plain)) * 1e6, "µs", "the same session through an executor, awaited: nothing checked or counted"
    )
    return figures, {"plain_us": [round(one * 1e6, 1) for one in plain]}


def _stamped(stamps: dict[str, float], name: str, owner: Any, method: str, *, end: bool) -> Any:
    """Has a method note when it was called, or when it returned."""
    inner: Callable[..., Any] = getattr(owner, method)

    def outer(*arguments: Any, **more: Any) -> Any:
        if not end:
            stamps[name] = time.perf_counter()
        found = inner(*arguments, **more)
        if end:
            stamps[name] = time.perf_counter()
        return found

    return mock.patch.object(owner, method, outer)


async def _asked(
    app: Any, subject: Subject, stamps: dict[str, float], rounds: int
) -> tuple[list[dict[str, float]], list[float]]:
    (file,) = subject.files.values()
    engine = OrtBackend().load_bytes(file.read_bytes(), name="only")
    (spec,) = subject.bundle.manifest.inputs
    values = np.frombuffer(subject.content, np.float32).reshape(1, *spec.shape[1:])
    pool = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()
    taken, plain = [], []
    gc.collect()
    gc.freeze()
    for number in range(WARM + rounds):
        stamps.clear()
        start_s = time.perf_counter()
        status = await _ask(app, subject.content)
        end_s = time.perf_counter()
        if status != 200:
            raise RuntimeError(f"answered {status}")
        found = {name: at_s - start_s for name, at_s in stamps.items()}
        await asyncio.sleep(APART_S)
        begun_s = time.perf_counter()
        await loop.run_in_executor(pool, engine.infer, {spec.name: values})
        spent_s = time.perf_counter() - begun_s
        await asyncio.sleep(APART_S)
        if number >= WARM:
            taken.append({**found, LAST: end_s - start_s})
            plain.append(spent_s)
    pool.shutdown()
    engine.close()
    return taken, plain


async def _ask(app: Any, body: bytes) -> int:
    fields = [*FIELDS, (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/infer", "query_string": b"", "headers": fields}
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({**scope, "http_version": "1.1", "client": ("127.0.0.1", 1)}, receive, send)
    return int(sent[0]["status"])


if __name__ == "__main__":
    run("stages", QUESTION, measure, needs_bundle=False)
