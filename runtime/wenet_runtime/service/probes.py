"""Questions to libraries and meters, each in a process of its own: what crashes or hangs there harms nobody here.

A child answers with one JSON object: {"members": …} or {"failure": "…"}.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

TIMEOUT_S = 10.0  # a small board reads a large library from a slow card
READING_S = 1.0  # of an answer that is there
STARTING_S = 2.0  # within which a meter has its first reading

# A file in the present directory is no library, whatever its name.
_START = "import sys\nif not sys.path[0]: del sys.path[0]\nfrom wenet_runtime.service.probes import main\nmain()"
COMMAND = (sys.executable, "-c", _START)


class Answer(NamedTuple):
    """What a child told, or why it told nothing."""

    members: Mapping[str, Any] = {}
    failure: str = ""


def ask(
    questions: Mapping[str, Sequence[str]], *, timeout_s: float = TIMEOUT_S, command: Sequence[str] = COMMAND
) -> Dict[str, Answer]:
    """Ask several questions at once.

    Args:
        questions: one of `QUESTIONS` and its arguments, by a name of the caller's.
        timeout_s: for all of them together.
        command: what begins every child's command line.
    """
    deadline_s = time.monotonic() + timeout_s
    started: Dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, words in questions.items():
            started[name] = subprocess.Popen(
                [*command, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that its own children end with it
            )
        return {name: _answer(one, deadline_s, timeout_s) for name, one in started.items()}
    finally:
        for one in started.values():
            _end(one)


def _answer(process: "subprocess.Popen[bytes]", deadline_s: float, timeout_s: float) -> Answer:
    left_s = max(0.0, deadline_s - time.monotonic())
    try:
        # What ended while another one was waited for has answered in time.
        out, _ = process.communicate(timeout=left_s if process.poll() is None else READING_S)
    except subprocess.TimeoutExpired:
        return Answer(failure=f"it did not answer within {timeout_s:g} s")
    if process.returncode < 0:
        return Answer(failure=f"it crashed ({signal.Signals(-process.returncode).name})")
    try:
        told = json.loads(out)
        return Answer(dict(told.get("members", {})), str(told.get("failure", "")))
    except (ValueError, AttributeError, TypeError):
        return Answer(failure=f"it ended with exit code {process.returncode} and without an answer")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def main() -> None:
    """Answer the question of the command line; ends this process."""
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    told: Dict[str, Any]
    try:
        told = {"members": QUESTIONS[sys.argv[1]](*sys.argv[2:])}
    except Exception as error:  # noqa: BLE001 - whatever a library raises is what the question is about
        told = {"failure": str(error) or type(error).__name__}
    with os.fdopen(out, "w") as answer:
        json.dump(told, answer)
    os._exit(0)  # what has answered need not survive its own clean-up


def _onnxruntime() -> Dict[str, Any]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}


def _cuda() -> Dict[str, Any]:
    from wenet_runtime.engines.cuda import open_gpu

    gpu = open_gpu()
    return {
        "binding": {"PycudaGpu": "pycuda", "RuntimeGpu": "cuda-python"}.get(type(gpu).__name__, type(gpu).__name__),
        "gpu": gpu.name,
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        "integrated": gpu.integrated,
    }


def _tensorrt() -> Dict[str, Any]:
    import importlib

    from wenet_runtime.engines.trt import NEXT, OLDEST

    version = str(importlib.import_module("tensorrt").__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return {"version": version, "supported": OLDEST <= numbers < NEXT}


def _engine(name: str) -> Dict[str, Any]:
    from wenet_runtime.engines import ENGINES
    from wenet_runtime.engines.auto import AUTO
    from wenet_runtime.engines.base import Backend
    from wenet_runtime.errors import EngineError
    from wenet_runtime.registry import load

    found = load(ENGINES, name, kind="engine", error=EngineError, interface=Backend, also=(AUTO,))
    return {"class": found.__name__}


def _meter(name: str, on_gpu: str, rail: str, sysfs: str) -> Dict[str, Any]:
    from wenet_runtime.meters.auto import choose_meter
    from wenet_runtime.meters.base import STARTING

    chosen = choose_meter(name, on_gpu=bool(on_gpu), rail=rail or None, sysfs=Path(sysfs))
    try:
        until_s = time.monotonic() + STARTING_S
        while chosen.meter.state().status == STARTING and time.monotonic() < until_s:
            time.sleep(0.02)
        power: Optional[Any] = chosen.meter.power()
        return {
            "name": chosen.name,
            "source": chosen.meter.source,
            "watts": None if power is None else power.watts,
            "state": asdict(chosen.meter.state()),
            "passed_over": dict(chosen.passed_over),
        }
    finally:
        chosen.meter.close()


QUESTIONS: Mapping[str, Callable[..., Dict[str, Any]]] = {
    "onnxruntime": _onnxruntime,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "engine": _engine,
    "meter": _meter,
}


def meter_question(name: str, *, on_gpu: bool, rail: Optional[str], sysfs: Path) -> List[str]:
    """The words that ask for a meter; see `meters.auto.choose_meter`."""
    return ["meter", name, "on-gpu" if on_gpu else "", rail or "", str(sysfs)]
