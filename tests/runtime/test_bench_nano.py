"""A Jetson Nano on a bench without a Nano: the daemon on doubles of TensorRT 8.2.1 and pycuda, fed with recorded watts.

Nothing here is a measurement: the double's times say nothing, so each mode is made to take what it might.
"""

import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.doubles.board import NANO
from tests.doubles.install import install
from tests.runtime.fake_tegrastats import installed
from tests.runtime.fakes import Client
from tests.recorded import recorded_lines
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


def served(client: Client, *, every_s: float, for_s: float) -> "List[Any]":
    """Replies to requests at a steady rate."""
    replies: List[Any] = []
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < for_s:
        replies.append(client.infer())
        time.sleep(max(0.0, begun_s + len(replies) * every_s - time.monotonic()))
    assert {reply.status_code for reply in replies} == {200}
    return replies


def share_of(mode_id: str, replies: "List[Any]") -> float:
    return Counter(reply.headers["wenet-mode"] for reply in replies)[mode_id] / len(replies)


@pytest.mark.slow
def test_a_power_budget_moves_the_mode_as_the_load_and_the_board_s_watts_say(daemon: Daemon) -> None:
    client = Client(daemon.app)
    quiet = served(client, every_s=0.1, for_s=3.0)
    assert share_of("m2", quiet[-10:]) >= 0.8  # 10 × 51 mJ a second above idle are within 1 W
    first = quiet[-1].headers
    assert first["wenet-energy-source"] == "rail:POM_5V_IN"
    assert 0.6 * 5.2e3 * TAKES_S["m2"] < float(first["wenet-energy-mj"]) < 4 * 5.2e3 * TAKES_S["m2"]

    busy = served(client, every_s=0.02, for_s=4.0)
    assert share_of("m2", busy[-60:]) <= 0.5  # 50 × 51 mJ are not
    assert "energy" in {reply.headers["wenet-mode-reason"] for reply in busy[-60:]}
    state = daemon.runtime.power
    assert state is not None
    assert state.verdict in ("binding", "unreachable")

    end_s = time.monotonic() + PATIENCE_S  # what was overspent is paid back first
    while share_of("m2", served(client, every_s=0.1, for_s=1.0)) < 1.0:
        assert time.monotonic() < end_s, "it never came back to the most accurate mode"
