"""`wenet-runtime`: exit codes, what it prints where, and the daemon's life as a process."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List

import httpx
import pytest
import typer

from tests.runtime.fakes import PATIENCE_S, ones, v2_body
from wenet_runtime import __version__
from wenet_runtime.bundle import Bundle
from wenet_runtime.cli.ends import SAID, fail, say
from wenet_runtime.errors import EngineError

START_S = 60


def quick(bundle_path: Path, tmp_path: Path) -> List[Any]:
    """Flags of a start that profiles shortly."""
    return ["--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--profile-rounds", 10]


def test_the_version_and_the_help_are_data(command: Any) -> None:
    assert command("--version").stdout == f"wenet-runtime {__version__}\n"
    for words in (["--help"], ["serve", "--help"], ["verify", "--help"]):
        found = command(*words)
        assert found.exit_code == 0
        assert "--budget-ms" in found.stdout


def test_help_loads_no_engine_and_no_server() -> None:
    code = (
        "import sys; from wenet_runtime.cli import main; sys.argv[1:] = ['--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('onnxruntime', 'onnx', 'fastapi', 'uvicorn', 'PIL') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=START_S)
    assert found.stdout.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", [[], ["serve"], ["build"], ["profile"], ["modes"], ["verify"]])
def test_without_a_bundle_it_exits_2_and_says_what_to_do(command: Any, verb: List[str]) -> None:
    found = command(*verb)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "no bundle at 'bundle': give --bundle DIR or set WENET_BUNDLE" in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--budget-ms", "0"],
        ["--budget-ms", "nan"],
        ["--budget-ms", "fast"],
        ["--on-miss", "ignore"],
        ["--port", "70000"],
        ["--no-such-flag"],
        ["no-such-verb"],
        ["--budget-ms", "5", "verify"],
        ["--config", "nowhere.toml"],
    ],
)
def test_a_bad_value_exits_2(
    command: Any, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, words: List[str]
) -> None:
    monkeypatch.setenv("WENET_BUNDLE", str(bundle_path))
    found = command(*words)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr


@pytest.mark.parametrize("verb", [[], ["build"], ["profile"], ["modes"], ["verify"]])
def test_a_changed_byte_exits_3_and_names_the_file(command: Any, own_bundle: Path, verb: List[str]) -> None:
    data = bytearray((own_bundle / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (own_bundle / "weights.safetensors").write_bytes(bytes(data))
    found = command(*verb, "--bundle", own_bundle, "--port", 0)
    assert found.exit_code == 3
    assert "'weights.safetensors' has SHA-256" in found.stderr
    assert "Traceback" not in found.stderr


def test_an_impossible_budget_exits_4(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command(*quick(bundle_path, tmp_path), "--engine", "sim", "--budget-ms", "0.1", "--port", 0)
    assert found.exit_code == 4
    assert "meets --budget-ms 0.1 on this device" in found.stderr


def test_an_impossible_floor_exits_4(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command(*quick(bundle_path, tmp_path), "--engine", "sim", "--min-accuracy", "0.99", "--port", 0)
    assert found.exit_code == 4


def test_an_unknown_meter_or_engine_exits_2(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    for flag in ("--meter", "--engine"):
        found = command(*quick(bundle_path, tmp_path), flag, "abacus", "--port", 0)
        assert found.exit_code == 2
        assert "unknown" in found.stderr


def test_an_energy_budget_that_needs_a_meter_and_has_none_exits_5(
    command: Any, bundle_path: Path, tmp_path: Path
) -> None:
    flags = ["--engine", "sim", "--budget-mj", "1000000", "--require-power", "--meter", "none", "--port", 0]
    found = command(*quick(bundle_path, tmp_path), *flags)
    assert found.exit_code == 5
    assert "--budget-mj with --require-power needs a meter" in found.stderr


def test_a_taken_port_exits_6(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = command(*quick(bundle_path, tmp_path), "--port", taken.getsockname()[1])
    assert found.exit_code == 6
    assert "choose another --port" in found.stderr


def test_why_it_ends_is_an_error_in_the_log_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, SAID):
        say("ready")
        with pytest.raises(typer.Exit):
            fail("no bundle", 2)
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("INFO", "ready"),
        ("ERROR", "wenet-runtime: no bundle"),
    ]


def test_an_open_address_without_consent_exits_6(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command(*quick(bundle_path, tmp_path), "--host", "0.0.0.0", "--port", 0)
    assert found.exit_code == 6
    assert "--insecure-no-auth" in found.stderr


def test_verify_prints_the_bundle_s_hash(command: Any, bundle: Bundle) -> None:
    found = command("verify", "--bundle", bundle.path)
    assert (found.exit_code, found.stdout) == (0, f"{bundle.sha256}\n")
    assert "ok: tiny, 3 modes" in found.stderr


def test_modes_are_json(command: Any, bundle: Bundle) -> None:
    found = json.loads(command("modes", "--bundle", bundle.path).stdout)
    assert json.loads(command("modes", "--json", "--bundle", bundle.path).stdout) == found
    assert (found["bundle_sha256"], found["model"]) == (bundle.sha256, "tiny")
    assert [(one["id"], "profile" in one) for one in found["modes"]] == [("m2", False), ("m1", False), ("m0", False)]
    assert found["modes"][0]["groups"] == dict(bundle.mode("m2").groups)


def test_building_and_profiling_fill_the_cache(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    built = command("build", *quick(bundle_path, tmp_path))
    assert (built.exit_code, built.stdout) == (0, "")
    assert len(list((tmp_path / "cache").glob("*/*/*.model"))) == 3
    assert re.search(r"m2: [0-9.e-]+ MB\n", built.stderr)
    assert re.search(r"built: .*, all resident take [0-9.e-]+ MB\n", built.stderr)
    profiled = command("profile", "--json", *quick(bundle_path, tmp_path))
    assert profiled.exit_code == 0
    rows: List[Dict[str, Any]] = json.loads(profiled.stdout)["modes"]
    assert all(row["profile"]["p50_ms"] > 0 and row["profile"]["runs"] == 10 for row in rows)
    assert len(list((tmp_path / "cache").glob("*/*/profile.json"))) == 1
    assert "profiling 10/10" in profiled.stderr


def test_an_engine_s_failure_exits_1_in_one_line(
    command: Any, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise EngineError("this engine does not compute it right; choose another --engine")

    monkeypatch.setattr("wenet_runtime.service.opening.Pool", fail)
    found = command("profile", *quick(bundle_path, tmp_path))
    assert found.exit_code == 1
    assert found.stderr.endswith("\nwenet-runtime: this engine does not compute it right; choose another --engine\n")
    assert "Traceback" not in found.stderr


class Process:
    """The bare command as a process."""

    def __init__(self, *words: Any, env: Dict[str, str]) -> None:
        start = [sys.executable, "-W", "error", "-c", "from wenet_runtime.cli import main; main()"]
        arguments = [*start, *(str(word) for word in words)]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self.said = ""
        self.url = ""

    def wait_until_serving(self) -> str:
        """Read its messages to the one that announces its address."""
        assert self.process.stderr is not None
        guard = threading.Timer(START_S, self.process.kill)
        guard.start()
        for line in iter(self.process.stderr.readline, b""):
            self.said += line.decode()
            found = re.search(r"on (http://\S+) with budget", line.decode())
            if found:
                guard.cancel()
                return found.group(1)
        guard.cancel()
        raise AssertionError(f"it never served: {self.said}")

    def end(self) -> int:
        self.said += self.process.communicate(timeout=START_S)[1].decode()
        return self.process.returncode


@pytest.fixture
def processes() -> Iterator[List[Process]]:
    started: List[Process] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.fixture
def environment(bundle_path: Path, tmp_path: Path) -> Dict[str, str]:
    settings = {"BUNDLE": bundle_path, "CACHE_DIR": tmp_path / "cache", "PROFILE_ROUNDS": 10, "PORT": 0}
    return {**os.environ, **{f"WENET_{name}": str(value) for name, value in settings.items()}}


def test_the_daemon_serves_and_drains(processes: List[Process], environment: Dict[str, str]) -> None:
    daemon = Process("--budget-ms", "5000", env=environment)
    processes.append(daemon)
    url = daemon.wait_until_serving()
    with httpx.Client(base_url=url) as client:
        assert client.get("/v2/health/ready").status_code == 200
        response = client.post("/infer", json=v2_body(ones()))
        assert (response.status_code, response.headers["wenet-budget-met"]) == (200, "true")
        assert client.post("/infer", content=b"nonsense").status_code == 400
        assert client.post("/infer", json=v2_body(ones())).status_code == 200
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.end() == 0, daemon.said
    assert daemon.said.endswith('"message":"drained"}\n')
    assert "with budget 5000 ms" in daemon.said
    assert "Traceback" not in daemon.said


def test_during_a_drain_it_is_not_ready_and_a_second_signal_ends_it(
    processes: List[Process], environment: Dict[str, str]
) -> None:
    daemon = Process("--engine", "sim", "--drain-delay-s", "60", env=environment)
    processes.append(daemon)
    url = daemon.wait_until_serving()
    assert "SIMULATED" in daemon.said
    with httpx.Client(base_url=url) as client:
        assert client.get("/v2/health/ready").status_code == 200
        daemon.process.send_signal(signal.SIGTERM)
        for _ in range(1000):  # each a round trip: until the signal has arrived
            ready = client.get("/v2/health/ready")
            if ready.status_code == 503:
                break
        assert ready.json()["type"] == "urn:wenet:problem:draining"
        assert client.get("/v2/health/live").status_code == 200
        assert client.post("/infer", json=v2_body(ones())).status_code == 200
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.end() == 143


def test_one_connection_too_many_is_refused_and_counted(processes: List[Process], environment: Dict[str, str]) -> None:
    daemon = Process("--engine", "sim", "--max-connections", "1", env=environment)
    processes.append(daemon)
    url = daemon.wait_until_serving()
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=PATIENCE_S) as busy:
        busy.sendall(b"G")
        refused = httpx.get(f"{url}/v2/health/live")
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:wenet:problem:queue-full"
        busy.sendall(b"ET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = b"".join(iter(lambda: busy.recv(65_536), b""))
    assert b'wenet_requests_total{outcome="rejected_queue"} 1.0' in found


def ended_by_itself(monkeypatch: pytest.MonkeyPatch, abandoned: int) -> None:
    """Replace the server by one that ends at once."""

    class Ended:
        def __init__(self, *parts: Any, **how: Any) -> None:
            self.abandoned = abandoned
            self._on_ready = how["on_ready"]

        def run(self, sockets: Any) -> None:
            assert len(sockets) == 1
            self._on_ready()

    monkeypatch.setattr("wenet_runtime.cli.serve.Server", Ended)


def test_abandoned_work_exits_1(
    command: Any, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_by_itself(monkeypatch, abandoned=2)
    found = command(*quick(bundle_path, tmp_path), "--engine", "sim", "--port", 0)
    assert found.exit_code == 1
    assert "2 accepted requests were abandoned" in found.stderr


def test_an_address_of_the_newer_protocol_is_announced_in_brackets(
    command: Any, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    ended_by_itself(monkeypatch, abandoned=0)
    found = command(*quick(bundle_path, tmp_path), "--engine", "sim", "--host", "::1", "--port", 0)
    assert found.exit_code == 0
    assert re.search(r"serving tiny on http://\[::1\]:\d+ with budget none", found.stderr)


@pytest.mark.timeout(60)
def test_serving_in_this_process_ends_with_its_signal(
    command: Any, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Dict[str, Any] = {}

    def announced(daemon: Any, settings: Any, port: int) -> None:
        def use() -> None:
            seen["status"] = httpx.post(f"http://127.0.0.1:{port}/infer", json=v2_body(ones())).status_code
            os.kill(os.getpid(), signal.SIGTERM)

        seen["client"] = threading.Thread(target=use)
        seen["client"].start()

    monkeypatch.setattr("wenet_runtime.cli.serve._announce", announced)
    found = command(*quick(bundle_path, tmp_path), "--port", 0)
    seen["client"].join(PATIENCE_S)
    assert (found.exit_code, seen["status"]) == (0, 200)
    assert found.stderr.endswith("drained\n")


def test_the_list_of_modes_says_what_each_takes_once_they_are_built(
    command: Any, bundle_path: Path, tmp_path: Path
) -> None:
    before = json.loads(command("modes", *quick(bundle_path, tmp_path)).stdout)["modes"]
    assert not [row for row in before if "memory_mb" in row]
    command("build", *quick(bundle_path, tmp_path))
    after = json.loads(command("modes", *quick(bundle_path, tmp_path)).stdout)["modes"]
    assert all(row["memory_mb"] > 0 for row in after)
    assert [row["id"] for row in after] == ["m2", "m1", "m0"]


def test_a_limit_of_memory_that_holds_no_mode_exits_2(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command(*quick(bundle_path, tmp_path), "--engine", "sim", "--memory-mb", "0.001", "--port", 0)
    assert found.exit_code == 2
    assert "--memory-mb 0.001 does not hold" in found.stderr


def test_a_list_of_modes_chooses_no_engine(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command("modes", *quick(bundle_path, tmp_path), "--engine", "auto")
    assert (found.exit_code, len(json.loads(found.stdout)["modes"])) == (0, 3)
    assert not (tmp_path / "cache").exists()
