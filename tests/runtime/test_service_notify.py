"""What systemd is told: ready, signs of life while work goes on and none when it does not, stopping."""

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import httpx
import pytest

from tests.runtime.fakes import PATIENCE_S, SettableBackend, make_service, ones
from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision import Decision
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.runtime import Runtime
from wenet_runtime.service import notify
from wenet_runtime.service.inference import Service
from wenet_runtime.service.notify import Liveness, Notifier, status_of

START_S = 60.0  # until a process serves
QUICK = "80000"  # µs that a watchdog waits: looks are a few hundredths of a second apart


class Listener:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)

    def next(self, patience_s: float = PATIENCE_S) -> List[str]:
        """The lines of the next message."""
        self.socket.settimeout(patience_s)
        return self.socket.recv(4096).decode().split("\n")

    def until(self, line: str, patience_s: float = PATIENCE_S) -> List[str]:
        """Every line up to the message that has this one."""
        found: List[str] = []
        end = time.monotonic() + patience_s
        while line not in found:
            assert time.monotonic() < end, f"{line} never came: {found}"
            found += self.next(patience_s)
        return found

    def waiting(self) -> List[str]:
        """Every line that has come by now."""
        found: List[str] = []
        self.socket.setblocking(False)
        while True:
            try:
                found += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "n")


@pytest.fixture
def listener(address: str) -> Iterator[Listener]:
    one = Listener(address)
    yield one
    one.socket.close()


class Looks:
    """Liveness as a test wants it, and how often it was looked at."""

    def __init__(self, told: Optional[str] = None) -> None:
        self.told = told
        self.count = 0

    def trouble(self) -> Optional[str]:
        self.count += 1
        return self.told

    def wait_for_more(self, many: int) -> None:
        """Until it was looked at so many times again."""
        end, target = time.monotonic() + PATIENCE_S, self.count + many
        while self.count < target:
            assert time.monotonic() < end, "nobody looks any more"
            time.sleep(0.001)


class Counted(Looks):
    """The same in front of a real one."""

    def __init__(self, real: Liveness) -> None:
        super().__init__()
        self._real = real

    def trouble(self) -> Optional[str]:
        super().trouble()
        return self._real.trouble()


def state() -> str:
    return "mode m1"


def make(address: str, **environment: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": address, **environment}, state)


@pytest.fixture
def started() -> Iterator[Callable[..., Notifier]]:
    """Starts a notifier that ends with the test."""
    all_of_them: List[Notifier] = []

    def start(notifier: Notifier, liveness: Any) -> Notifier:
        all_of_them.append(notifier)
        notifier.start(liveness)
        return notifier

    yield start
    for one in all_of_them:
        one.close()
        assert one._thread is None or not one._thread.is_alive()


def test_ready_then_signs_of_life_then_stopping(
    listener: Listener, address: str, started: Callable[..., Notifier]
) -> None:
    notifier = started(make(address, WATCHDOG_USEC=QUICK), Looks())
    assert listener.next() == ["READY=1", "STATUS=mode m1"]
    assert listener.next() == ["WATCHDOG=1"]
    assert listener.next() == ["WATCHDOG=1"]  # what is no news is not told again
    notifier.stopping()
    rest = listener.until("STOPPING=1")
    assert rest[-2:] == ["STOPPING=1", "STATUS=draining"]
    assert set(rest[:-2]) <= {"WATCHDOG=1"}
    assert listener.next() == ["WATCHDOG=1"]  # a drain may be long
    notifier.close()
    assert set(listener.waiting()) <= {"WATCHDOG=1"}


def test_a_service_that_ends_without_a_drain_is_stopping_all_the_same(
    listener: Listener, address: str, started: Callable[..., Notifier]
) -> None:
    notifier = started(make(address, WATCHDOG_USEC="3600000000"), Looks())
    notifier.close()
    assert listener.waiting()[0] == "READY=1"
    notifier.close()  # closing twice is harmless
    assert listener.waiting() == []


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": QUICK}])
def test_without_a_socket_there_is_no_thread(
    started: Callable[..., Notifier], caplog: pytest.LogCaptureFixture, environment: Dict[str, str]
) -> None:
    before = threading.enumerate()
    notifier = started(Notifier(environment, state), Looks())
    assert not notifier.wanted
    assert threading.enumerate() == before
    notifier.stopping()
    notifier.beat(Looks())  # type: ignore[arg-type]
    assert caplog.text == ""


@pytest.mark.parametrize("given", ["vsock:2:1234", "relative/path", "unix:/run/x"])
def test_an_address_of_another_kind_is_left_alone_and_said(given: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not make(given).wanted
    assert "neither a path nor an abstract name" in caplog.text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
def test_an_abstract_name_is_reached() -> None:
    name = f"wenet-test-{os.getpid()}"
    listener = Listener("\0" + name)
    make("@" + name, WATCHDOG_USEC=QUICK).beat(Looks())  # type: ignore[arg-type]
    assert "WATCHDOG=1" in listener.waiting()
    listener.socket.close()


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": ""}, False),
        ({"WATCHDOG_USEC": "30000000"}, True),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, False),
        ({"WATCHDOG_PID": str(os.getpid())}, False),
    ],
)
def test_signs_of_life_are_given_where_they_are_asked_of_this_process(
    listener: Listener, address: str, caplog: pytest.LogCaptureFixture, environment: Dict[str, str], watched: bool
) -> None:
    make(address, **environment).beat(Looks())  # type: ignore[arg-type]
    assert listener.waiting() == (["WATCHDOG=1"] if watched else []) + ["STATUS=mode m1"]
    assert caplog.text == ""


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "١٢", "9" * 5000, " 1"])
def test_a_time_that_is_none_asks_for_no_sign_and_is_said(
    listener: Listener, address: str, caplog: pytest.LogCaptureFixture, given: str
) -> None:
    make(address, WATCHDOG_USEC=given).beat(Looks())  # type: ignore[arg-type]
    assert listener.waiting() == ["STATUS=mode m1"]
    assert "no number of microseconds" in caplog.text


@pytest.mark.parametrize(
    ("microseconds", "seconds"),
    [("30000000", 15.0), ("1", notify.SHORTEST_S), (str(2**64 - 1), notify.LONGEST_S), ("", notify.STATUS_S)],
)
def test_a_sign_comes_at_half_the_time_and_sooner_after_trouble(
    listener: Listener, address: str, microseconds: str, seconds: float
) -> None:
    notifier = make(address, WATCHDOG_USEC=microseconds)
    assert notifier.beat(Looks()) == seconds  # type: ignore[arg-type]
    assert notifier.beat(Looks("it hangs")) == seconds / 4  # type: ignore[arg-type]
    assert threading.TIMEOUT_MAX > notify.LONGEST_S


def test_trouble_is_told_and_logged_once_and_gives_no_sign_of_life(
    listener: Listener, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier, looks = make(address, WATCHDOG_USEC=QUICK), Looks()
    for told in (None, "it hangs", "it hangs", "it died", None, None):
        looks.told = told
        notifier.beat(looks)  # type: ignore[arg-type]
    lines = ["WATCHDOG=1", "STATUS=mode m1", "STATUS=it hangs", "STATUS=it died", "WATCHDOG=1", "STATUS=mode m1"]
    assert listener.waiting() == [*lines, "WATCHDOG=1"]
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.ERROR, "no sign of life is given to systemd: it hangs"),
        (logging.ERROR, "no sign of life is given to systemd: it died"),
        (logging.WARNING, "work goes on again"),
    ]


@pytest.mark.parametrize("kind", ["nothing", "file", "stream", "deaf", "too long"])
def test_a_socket_that_does_not_listen_costs_a_line_of_log(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(notify, "SEND_S", 0.01)
    other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM)
    if kind == "file":
        Path(address).write_text("")
    elif kind in ("stream", "deaf"):
        other.bind(address)
    elif kind == "too long":
        address = "/" + "x" * 200
    notifier = make(address, WATCHDOG_USEC=QUICK)
    end = time.monotonic() + PATIENCE_S
    while not caplog.records:  # a deaf one takes some messages
        assert time.monotonic() < end
        notifier.beat(Looks())  # type: ignore[arg-type]
    notifier.beat(Looks())  # type: ignore[arg-type]
    other.close()
    assert len(caplog.records) == 1
    assert "NOTIFY_SOCKET cannot be told anything" in caplog.text
    assert caplog.text.strip().endswith("serving goes on")


def test_a_socket_that_comes_back_is_told_again(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = make(address, WATCHDOG_USEC=QUICK)
    notifier.beat(Looks())  # type: ignore[arg-type]
    listener = Listener(address)
    notifier.beat(Looks())  # type: ignore[arg-type]
    assert listener.waiting() == ["WATCHDOG=1"]
    listener.socket.close()
    Path(address).unlink()
    notifier.beat(Looks())  # type: ignore[arg-type]
    assert [one.getMessage() for one in caplog.records] == [caplog.records[0].getMessage()] * 2  # it worked between


class Turning:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._gate = threading.Event()

    def hold(self) -> None:
        """Block it, as a callback does that never returns."""
        entered = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (entered.set(), self._gate.wait(PATIENCE_S)))
        assert entered.wait(PATIENCE_S)

    def release(self) -> None:
        self._gate.set()

    def turn(self) -> None:
        """Wait until everything that was called before has run."""
        ran = threading.Event()
        self.loop.call_soon_threadsafe(ran.set)
        assert ran.wait(PATIENCE_S)

    def close(self) -> None:
        self.release()
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE_S)
            self.loop.close()


@pytest.fixture
def turning() -> Iterator[Turning]:
    one = Turning()
    yield one
    one.close()


@pytest.fixture
def service(bundle: Bundle, backend: SettableBackend) -> Iterator[Service]:
    one = make_service(bundle, backend)
    yield one
    backend.release()
    one.runtime.close(timeout_s=PATIENCE_S)


def looking_at(turning: Turning, *runtimes: Any, **how: Any) -> Liveness:
    """What looks at these, the one that serves first."""
    return Liveness(turning.loop, lambda: runtimes, **how)


def test_a_loop_that_turns_and_an_engine_that_is_idle_are_no_trouble(turning: Turning, service: Service) -> None:
    liveness = looking_at(turning, service.runtime)
    for _ in range(3):
        assert liveness.trouble() is None
        turning.turn()


def test_a_loop_that_did_not_turn_since_the_last_look_is_trouble_until_it_does(
    turning: Turning, service: Service
) -> None:
    liveness = looking_at(turning, service.runtime)
    turning.hold()
    assert liveness.trouble() is None  # nothing was asked of it before
    assert liveness.trouble() == "the event loop stands still"
    assert liveness.trouble() == "the event loop stands still"
    turning.release()
    turning.turn()
    assert liveness.trouble() is None


def test_a_loop_that_ended_is_trouble(turning: Turning, service: Service) -> None:
    liveness = looking_at(turning, service.runtime)
    turning.close()
    assert liveness.trouble() == "the event loop has ended"


def test_an_engine_s_thread_that_ended_is_trouble(turning: Turning, service: Service) -> None:
    liveness = looking_at(turning, service.runtime)
    service.runtime.close(timeout_s=PATIENCE_S)
    assert liveness.trouble() == "the engine's thread has ended"


def test_a_run_is_trouble_when_it_takes_longer_than_it_may(
    turning: Turning, service: Service, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.hold()
    held = service.runtime.submit({"input": ones()}, RequestOptions(), time.monotonic())
    backend.wait_until_running()
    liveness = looking_at(turning, service.runtime)
    assert liveness.trouble() is None
    turning.turn()
    monkeypatch.setattr(Runtime, "stuck_after_s", 0.0)
    assert liveness.trouble() == "the engine's thread has not moved on for more than 0 s"
    backend.release()
    held.result(PATIENCE_S)


class Said:
    """A runtime that says of itself what a test wants."""

    def __init__(self, *, alive: bool = True, stuck_s: float = 0.0, stuck_after_s: float = 30.0) -> None:
        self.alive, self.stuck_s, self.stuck_after_s = alive, stuck_s, stuck_after_s
        self.trouble: Optional[str] = None


def test_each_run_has_its_own_time(turning: Turning) -> None:
    assert looking_at(turning, Said(stuck_s=99.0, stuck_after_s=100.0)).trouble() is None
    slow = Said(stuck_s=101.0, stuck_after_s=100.0)
    assert looking_at(turning, slow).trouble() == "the engine's thread has not moved on for more than 100 s"


def test_a_bundle_that_is_left_may_have_no_thread_but_not_one_that_hangs(turning: Turning) -> None:
    assert looking_at(turning, Said(), Said(alive=False)).trouble() is None
    hangs = looking_at(turning, Said(), Said(stuck_s=31.0))
    assert hangs.trouble() == "the engine's thread has not moved on for more than 30 s"


def test_trouble_that_lasts_ends_the_signs_of_life(turning: Turning) -> None:
    runtime, now_s = Said(), [0.0]
    liveness = looking_at(turning, runtime, clock=lambda: now_s[0])

    def at(second: float, trouble: Optional[str]) -> Optional[str]:
        turning.turn()
        now_s[0], runtime.trouble = second, trouble
        return liveness.trouble()

    assert at(0.0, "mode 'm0' fails") is None
    assert at(59.0, "mode 'm1' fails") is None  # another, and still nothing can be answered
    assert at(59.5, None) is None
    assert at(60.0, "mode 'm0' fails") is None
    assert at(119.9, "mode 'm0' fails") is None
    assert at(120.0, "mode 'm0' fails") == "for 60 s or longer: mode 'm0' fails"
    assert at(121.0, None) is None


def no_sign_comes(listener: Listener, looks: Looks) -> None:
    """Whether, from a few looks on, none gives a sign of life."""
    looks.wait_for_more(3)
    listener.waiting()
    looks.wait_for_more(5)
    assert "WATCHDOG=1" not in listener.waiting()


def test_a_blocked_loop_ends_the_signs_of_life_and_they_come_again(
    listener: Listener,
    address: str,
    started: Callable[..., Notifier],
    turning: Turning,
    service: Service,
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = Counted(looking_at(turning, service.runtime))
    started(make(address, WATCHDOG_USEC=QUICK), looks)
    listener.until("WATCHDOG=1")
    turning.hold()
    no_sign_comes(listener, looks)
    assert "no sign of life is given to systemd: the event loop stands still" in caplog.text
    turning.release()
    listener.until("WATCHDOG=1")


def test_a_held_engine_ends_the_signs_of_life_and_they_come_again(
    listener: Listener,
    address: str,
    started: Callable[..., Notifier],
    turning: Turning,
    service: Service,
    backend: SettableBackend,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Runtime, "stuck_after_s", 0.05)
    looks = Counted(looking_at(turning, service.runtime))
    started(make(address, WATCHDOG_USEC=QUICK), looks)
    listener.until("WATCHDOG=1")
    backend.hold()
    held = service.runtime.submit({"input": ones()}, RequestOptions(), time.monotonic())
    told = "the engine's thread has not moved on for more than 0.05 s"
    listener.until(f"STATUS={told}")
    no_sign_comes(listener, looks)
    assert f"no sign of life is given to systemd: {told}" in caplog.text
    backend.release()
    held.result(PATIENCE_S)
    listener.until("WATCHDOG=1")


def test_the_status_names_the_mode_and_what_its_latest_answers_took(service: Service) -> None:
    log = DecisionLog()
    assert status_of(service.runtime, log, simulated=False) == "no answer yet"
    assert status_of(service.runtime, log, simulated=True) == "simulated, no answer yet"
    service.runtime.submit({"input": ones()}, RequestOptions(mode="m1"), time.monotonic()).result(PATIENCE_S)

    def decided(mode_id: str, measured_ms: Optional[float]) -> None:
        decision = Decision(0, 0.0, "r", 1, 1, "answered", "fits", mode_id, measured_ms=measured_ms)
        log.add(decision)

    assert status_of(service.runtime, log, simulated=False) == "no answer yet"
    decided("m1", 5000.0)  # so long ago that it does not count
    for measured_ms in range(1, 101):
        decided("m1", float(measured_ms))
    assert status_of(service.runtime, log, simulated=False) == "mode m1 p95 95.0 ms"
    decided("m2", 7000.0)
    decided("m1", None)
    decided("m1", float("nan"))
    assert status_of(service.runtime, log, simulated=True) == "simulated, mode m1 p95 96.0 ms"


def test_a_daemon_tells_that_it_is_ready_lives_and_stops(
    listener: Listener, address: str, bundle_path: Path, tmp_path: Path
) -> None:
    settings = {
        "BUNDLE": bundle_path,
        "CACHE_DIR": tmp_path / "cache",
        "PROFILE_ROUNDS": 10,
        "PORT": 0,
        "ENGINE": "sim",
        "DRAIN_DELAY_S": 60,
    }
    environment = {**os.environ, **{f"WENET_{name}": str(value) for name, value in settings.items()}}
    environment.update(NOTIFY_SOCKET=address, WATCHDOG_USEC="400000")
    words = [sys.executable, "-W", "error", "-c", "from wenet_runtime.cli import main; main()"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env=environment)
    try:
        assert listener.next(START_S) == ["READY=1", "STATUS=simulated, no answer yet"]
        assert process.stderr is not None
        said = ""
        while "on http" not in said:  # it was said before
            said = process.stderr.readline().decode()
        url = re.findall(r"http://\S+", said)[0]
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        listener.until("WATCHDOG=1", START_S)
        listener.until("WATCHDOG=1", START_S)
        process.send_signal(signal.SIGTERM)
        before = listener.until("STOPPING=1", START_S)
        assert "READY=1" not in before
        assert httpx.get(f"{url}/v2/health/live").status_code == 200  # it was said when the drain began
        listener.until("WATCHDOG=1", START_S)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=START_S)[1].decode()
        assert process.returncode == 143, said
        assert said == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
