"""A Jetson Nano on a bench without a Nano: the daemon on doubles of TensorRT 8.2.1 and pycuda, fed with recorded watts.

Nothing here is a measurement: the double's times say nothing, so each mode is made to take what it might.
"""

import os
import re
import shutil
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Set

import pytest

from tests.doubles.board import NANO
from tests.doubles.install import install
from tests.recorded import recorded_lines
from tests.runtime.fake_tegrastats import installed
from tests.runtime.fakes import Client
from wenet_runtime.bundle import Mode
from wenet_runtime.engines.base import Artifact, Engine, Tensors
from wenet_runtime.engines.trt import TrtBackend
from wenet_runtime.meters.tegrastats import parse_line
from wenet_runtime.service.daemon import Daemon, open_daemon
from wenet_runtime.settings import Settings

TAKES_S = {"m0": 0.002, "m1": 0.006, "m2": 0.012}  # the most accurate takes longest
IDLE_W, POWER_W = 0.92, 1.92
PATIENCE_S = 60.0


class Slow:
    """An engine that takes its mode's time."""

    def __init__(self, inner: Engine, takes_s: float) -> None:
        self._inner = inner
        self._takes_s = takes_s

    def infer(self, inputs: Tensors) -> Dict[str, Any]:
        time.sleep(self._takes_s)
        return self._inner.infer(inputs)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, bundle_path: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on a Nano that draws what a recorded one drew while its GPU was busy."""
    double = install(monkeypatch, "8.2.1", board=NANO)
    busy = [line for line in recorded_lines("nano-1") if (parse_line(line).gpu_percent or 0) >= 90]
    log = tmp_path / "busy.log"
    log.write_text("\n".join(busy) + "\n")
    program = Path(installed(tmp_path / "bin", "--log", log))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("tegrastats") == str(program)
    load = TrtBackend.load

    def slowly(backend: TrtBackend, mode: Mode, artifact: Callable[[], Artifact], **more: Any) -> Slow:
        return Slow(load(backend, mode, artifact, **more), TAKES_S.get(mode.id, 0.0))

    monkeypatch.setattr(TrtBackend, "load", slowly)
    monkeypatch.setattr("wenet_runtime.profiler.READINGS", 5)  # a constant load needs no more to be known
    one = open_daemon(
        Settings(
            bundle=bundle_path,
            cache_dir=tmp_path / "cache",
            engine="trt",
            meter="tegrastats",
            idle_w=IDLE_W,
            power_w=POWER_W,
            power_window_s=1.0,
            profile_rounds=20,
        )
    )
    yield one
    one.close(5.0)
    double.assert_all_freed()


def served(client: Client, *, every_s: float, for_s: float = 1.0) -> "List[Any]":
    """Replies to requests at a steady rate."""
    replies: List[Any] = []
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < for_s:
        replies.append(client.infer())
        time.sleep(max(0.0, begun_s + len(replies) * every_s - time.monotonic()))
    assert {reply.status_code for reply in replies} == {200}
    return replies


def until(client: Client, met: "Callable[[List[Any]], bool]", *, every_s: float) -> "List[Any]":
    """Go on asking at a steady rate, until a second's replies are as they should be; those."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        replies = served(client, every_s=every_s)
        if met(replies):
            return replies
        modes = Counter(reply.headers["wenet-mode"] for reply in replies)
        assert time.monotonic() < end_s, f"the modes never became what they should be: {modes}"


def drawn_w(reply: Any) -> float:
    """What an answer's energy makes of the time that its run took."""
    (took_ms,) = re.findall(r"infer\w*;dur=([\d.]+)", reply.headers["server-timing"])
    return float(reply.headers["wenet-energy-mj"]) / float(took_ms)


def share_of(mode_id: str, replies: "List[Any]") -> float:
    return Counter(reply.headers["wenet-mode"] for reply in replies)[mode_id] / len(replies)


def reasons(replies: "List[Any]") -> "Set[str]":
    return {reply.headers["wenet-mode-reason"] for reply in replies}


@pytest.mark.slow
def test_a_power_budget_moves_the_mode_as_the_load_and_the_board_s_watts_say(daemon: Daemon) -> None:
    client = Client(daemon.app)
    quiet = until(client, lambda replies: share_of("m2", replies) >= 0.8, every_s=0.1)  # 10 × 51 mJ are within 1 W
    sources = {reply.headers["wenet-energy-source"] for reply in quiet}
    assert sources == {"rail:POM_5V_IN"}
    # As many joules as the recorded board's 5 W make of the time that a run took, whatever that was here.
    assert 4.0 < statistics.median(map(drawn_w, quiet)) < 7.0

    def held_down(replies: "List[Any]") -> bool:
        return share_of("m2", replies) <= 0.5 and "energy" in reasons(replies)

    until(client, held_down, every_s=0.02)  # 50 × 51 mJ are not
    state = daemon.runtime.power
    assert state is not None
    assert state.verdict in ("binding", "unreachable")

    until(client, lambda replies: share_of("m2", replies) == 1.0, every_s=0.1)  # what was overspent is paid back first
