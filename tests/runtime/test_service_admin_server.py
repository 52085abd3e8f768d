"""/admin on an address of its own, TLS, and the end asked for over HTTP: on a real daemon."""

import contextlib
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence

import httpx
import pytest
from onnx import TensorProto, helper

from tests.runtime.fakes import check_problem, ones, v2_body
from tests.supernets import write_test_bundle
from wenet_runtime.errors import SettingsError
from wenet_runtime.service.admin_server import bind_admin, let_go, parts_of
from wenet_runtime.service.tls import tls_of
from wenet_runtime.settings import Settings

TOKEN = "a" * 32
BEARER = {"authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 60.0  # until a process is up, on a crowded machine


class Daemon:
    """`wenet-runtime` on a free port and the simulated engine."""

    def __init__(self, place: Path, *flags: str, program: Sequence[str] = ("-m", "wenet_runtime.cli")) -> None:
        self.log = place / "log"
        command = [sys.executable, *program, "--port", "0", "--engine", "sim", "--meter", "none"]
        command += ["--bundle", str(place / "bundle"), "--token-file", str(place / "token"), "--profile-rounds", "10"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, "--cache-dir", str(place / "cache"), *flags], stderr=log)
        end_s = time.monotonic() + PATIENCE_S
        while (found := re.search(r"serving .* on (https?://\S+)", self.log.read_text())) is None:
            assert time.monotonic() < end_s, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        self.url = found.group(1)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)


def client_errors(daemon: Daemon) -> int:
    text = httpx.get(f"{daemon.url}/metrics", headers=BEARER).text
    found = re.search(r'^wenet_requests_total\{outcome="client_error"\} (\d+)', text, re.MULTILINE)
    assert found is not None
    return int(found.group(1))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_test_bundle(tmp_path / "bundle")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    return tmp_path


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Daemon]]:
    started: List[Daemon] = []

    def begin(*flags: str, **how: Any) -> Daemon:
        started.append(Daemon(place, *flags, **how))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


def on_file(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://admin", headers=BEARER)


def test_admin_has_a_file_of_its_own_and_the_port_knows_nothing_of_it(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    file = tmp_path / "admin.sock"
    daemon = start("--admin-bind", f"unix:{file}")
    assert f"/admin is on unix:{file} alone" in daemon.log.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert httpx.get(f"{daemon.url}/admin/policy", headers=BEARER).status_code == 404
    with on_file(file) as admin:
        assert admin.get("/admin/policy").json()["on_miss"] == "degrade"
        assert admin.get("/admin/policy", headers={"authorization": "Bearer " + "x" * 32}).status_code == 401
        assert admin.post("/infer", json=v2_body(ones())).status_code == 404
        policy = {"budget_ms": None, "budget_mj": None, "min_accuracy": None, "mode": "m1", "on_miss": "degrade"}
        assert admin.put("/admin/policy", json=policy).status_code == 200
        assert httpx.post(f"{daemon.url}/infer", json=v2_body(ones()), headers=BEARER).headers["wenet-mode"] == "m1"
        assert admin.post("/admin/drain").status_code == 202
    assert daemon.ended() == 0
    assert "drained" in daemon.log.read_text()
    assert not file.exists()


def test_admin_has_a_port_of_its_own(start: Callable[..., Daemon]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = start("--admin-bind", f"127.0.0.1:{port}")
    assert httpx.get(f"http://127.0.0.1:{port}/admin/policy", headers=BEARER).status_code == 200
    assert httpx.get(f"http://127.0.0.1:{port}/admin/policy", headers={**BEARER, "host": "x.y"}).status_code == 400
    assert httpx.get(f"{daemon.url}/admin/policy", headers=BEARER).status_code == 404
    before = client_errors(daemon)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"no request at all\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    assert client_errors(daemon) == before + 1
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.ended() == 0


def test_a_signal_after_the_end_was_asked_for_does_not_cut_it_short(start: Callable[..., Daemon]) -> None:
    daemon = start("--drain-delay-s", "2")
    assert httpx.post(f"{daemon.url}/admin/drain", headers=BEARER).status_code == 202
    assert httpx.get(f"{daemon.url}/v2/health/ready").status_code == 503
    daemon.process.send_signal(signal.SIGTERM)
    assert httpx.post(f"{daemon.url}/infer", json=v2_body(ones()), headers=BEARER).status_code == 200
    assert daemon.ended() == 0


# The second bundle's opening is in an engine's code for a minute, and looks at nothing meanwhile.
OPENS_SLOWLY = """
import time

import numpy as np
import onnxruntime

from wenet_runtime.cli import main
from wenet_runtime.service import daemon

usual = daemon.open_serving

def slow(settings, *more, given=None, **how):
    if given is not None:
        place = settings.cache_dir.parent
        session = onnxruntime.InferenceSession(str(place / "slow.onnx"), providers=["CPUExecutionProvider"])
        (place / "opening").touch()
        end_s = time.monotonic() + 60.0
        while time.monotonic() < end_s:
            session.run(None, {"x": np.ones((256, 256), np.float32)})
    return usual(settings, *more, given=given, **how)

daemon.open_serving = slow
main()
"""


def test_the_end_waits_for_no_bundle_that_is_being_opened(start: Callable[..., Daemon], place: Path) -> None:
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [256, 256])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [256, 256])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "slow", [shape], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (place / "slow.onnx").write_bytes(model.SerializeToString())
    daemon = start(program=("-c", OPENS_SLOWLY))
    with ThreadPoolExecutor(1) as client:
        url = f"{daemon.url}/admin/bundle"
        asked = client.submit(httpx.post, url, json={"path": "bundle"}, headers=BEARER, timeout=PATIENCE_S)
        end_s = time.monotonic() + PATIENCE_S
        while not (place / "opening").exists():
            assert time.monotonic() < end_s, daemon.log.read_text()
            time.sleep(0.02)
        daemon.process.send_signal(signal.SIGTERM)
        check_problem(asked.result(), "conflict", 409)
    assert daemon.process.wait(10.0) == 0, daemon.log.read_text()
    log = daemon.log.read_text()
    assert "drained" in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    words = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([openssl, *words, "-addext", "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
    return folder


def test_requests_come_over_tls_if_there_is_a_certificate(start: Callable[..., Daemon], certificate: Path) -> None:
    daemon = start("--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem"))
    assert daemon.url.startswith("https://")
    trust = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with httpx.Client(verify=trust, headers=BEARER) as client:
        assert client.post(f"{daemon.url}/infer", json=v2_body(ones())).status_code == 200
        assert client.get(f"{daemon.url}/admin/policy").status_code == 200
    with pytest.raises(httpx.HTTPError):
        httpx.get(daemon.url.replace("https", "http"))


@pytest.mark.parametrize("broken", ["missing", "no certificate", "another key"])
def test_a_certificate_that_cannot_be_used_is_said_at_the_start(certificate: Path, tmp_path: Path, broken: str) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(str(certificate / "key.pem"), str(key))
    if broken == "no certificate":
        cert.write_text("hello")
    elif broken == "another key":
        shutil.copy(str(certificate / "cert.pem"), str(cert))
        key.write_text("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
    with pytest.raises(SettingsError, match=r"--tls-cert .* cannot be used"):
        tls_of(Settings(tls_cert=cert, tls_key=key))
    assert tls_of(Settings()) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_cert": "cert.pem"}, "--tls-cert and --tls-key go together"),
        ({"admin_bind": "127.0.0.1:1"}, "--admin-bind opens nothing without --token-file"),
    ],
)
def test_settings_that_go_together_are_given_together(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**given)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:8001", ("::1", 8001)), ("localhost:0", ("localhost", 0))],
)
def test_an_address_has_a_host_and_a_port(address: str, parts: Any) -> None:
    assert parts_of(address) == parts


@pytest.mark.parametrize("address", ["127.0.0.1", ":80", "80", "host:", "host:99999", "unix", "http://host:80/x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="give unix:PATH or HOST:PORT"):
        bind_admin(address)


def test_a_file_left_behind_is_replaced_and_one_in_use_or_of_another_kind_is_not(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    bind_admin(address).close()  # as after a kill: the file stays
    listener: Optional[socket.socket] = bind_admin(address)
    assert listener is not None
    with pytest.raises(OSError, match="in use"):
        bind_admin(address)
    let_go(address, listener)
    assert not (tmp_path / "s").exists()
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SettingsError, match="no socket"):
        bind_admin(address)
    assert (tmp_path / "s").read_text() == "precious"


def test_an_address_that_is_taken_exits_6(command: Any, place: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--bundle", place / "bundle", "--token-file", place / "token", "--engine", "sim", "--port", 0]
        found = command(*flags, "--admin-bind", address)
    assert found.exit_code == 6
    assert f"cannot listen on --admin-bind {address}" in found.stderr
    assert found.stdout == ""
