import importlib.metadata
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import environments, mlserver, triton, wenet
from benchmarks.peers.base import Command, Place, Request, Served, served_in, v2_answer
from benchmarks.peers.environments import PEERS, make, wanted, why_not
from benchmarks.peers.process import Server, free_port

SERVED = Served(models=("a.onnx",), input="input", shape=(1, 3, 2, 2), outputs=4)
CONTENT = np.arange(12, dtype=np.float32).tobytes()


def _environment(root: Path, versions: dict[str, str]) -> None:
    packages = root / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python").touch()
    for name, version in versions.items():
        (packages / f"{name.replace('-', '_')}-{version}.dist-info").mkdir()


def test_a_peer_that_is_not_installed_is_skipped_with_what_to_do(tmp_path):
    assert "not installed" in why_not(triton.PEER, tmp_path)
    assert "make bench-peers" in why_not(triton.PEER, tmp_path)
    assert why_not(wenet.PEER, tmp_path) == ""


def test_a_peer_of_another_version_is_skipped_and_says_which(tmp_path):
    versions = dict(one.split("==") for one in wanted(triton.PEER))
    _environment(tmp_path / "nvidia-pytriton", versions)
    assert why_not(triton.PEER, tmp_path) == ""
    _environment(tmp_path / "other" / "nvidia-pytriton", {**versions, "nvidia-pytriton": "0.6.0"})
    assert "nvidia-pytriton is 0.6.0, not 0.7.0" in why_not(triton.PEER, tmp_path / "other")


def test_every_peer_has_our_onnx_runtime_and_every_package_is_pinned():
    for peer in PEERS:
        assert all("==" in one for one in wanted(peer))
        assert f"onnxruntime=={importlib.metadata.version('onnxruntime')}" in wanted(peer)


def test_environments_that_are_ready_are_left_alone_and_the_others_are_made(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(environments.subprocess, "run", lambda words, check: commands.append(words))
    monkeypatch.setattr(environments, "PYTHON", sys.version_info[:2])
    monkeypatch.setattr(environments, "PEERS", (wenet.PEER, triton.PEER, mlserver.DEFAULT))
    _environment(tmp_path / "nvidia-pytriton", dict(one.split("==") for one in wanted(triton.PEER)))
    make(tmp_path)
    assert len(commands) == 2  # venv and pip, of MLServer
    assert not any("nvidia-pytriton" in word for words in commands for word in words)
    assert commands[1][-len(wanted(mlserver.DEFAULT)) :] == wanted(mlserver.DEFAULT)


def test_another_python_is_refused_before_anything_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "PYTHON", (2, 7))
    with pytest.raises(RuntimeError, match=r"Python 2\.7"):
        make(tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_served_is_read_back_as_it_was_written(tmp_path):
    SERVED.write(tmp_path / "served.json")
    assert served_in(str(tmp_path / "served.json")) == SERVED


def test_a_request_says_its_length_and_where_it_goes():
    sent = Request("/infer", {"Content-Type": "x"}, b"abc").to_bytes()
    assert sent.startswith(b"POST /infer HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert b"Content-Length: 3\r\n" in sent
    assert sent.endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_format_carries_the_whole_tensor(peer):
    for form in peer.formats:
        request = form.encode(CONTENT, "tensor", SERVED)
        assert len(request.body) >= len(CONTENT)
        assert request.path.startswith("/")


def test_v2_answers_are_read_in_binary_and_in_json():
    expected = np.arange(4, dtype=np.float32)
    assert v2_answer({"inference-header-content-length": "2"}, b"{}" + expected.tobytes()).tolist() == expected.tolist()
    assert v2_answer({}, json.dumps({"outputs": [{"data": [0, 1, 2, 3]}]}).encode()).tolist() == expected.tolist()


def test_triton_has_a_queue_with_a_limit_only_where_one_is_asked_for():
    plain = triton.config("m", SERVED)
    assert "max_batch_size: 0" in plain
    assert "dims: [1, 3, 2, 2]" in plain
    assert "dynamic_batching" not in plain
    limited = triton.config("m", Served(**{**SERVED.__dict__, "limit_ms": 100.0}))
    assert "default_timeout_microseconds: 100000" in limited
    assert "dims: [3, 2, 2]" in limited


@pytest.mark.parametrize(("peer", "workers"), [(mlserver.DEFAULT, None), (mlserver.IN_PROCESS, 0)])
def test_mlserver_has_its_default_workers_or_none(peer, workers, tmp_path):
    place = Place(SERVED, tmp_path / "served.json", tmp_path, Path(sys.executable), 1)
    peer.command(place)
    assert json.loads((tmp_path / "settings.json").read_text()).get("parallel_workers") == workers


def _server(tmp_path: Path, shell: str) -> Server:
    port = free_port()
    serve = f"{sys.executable} -m http.server {port} --bind 127.0.0.1"
    return Server(
        Command(("sh", "-c", shell.format(serve=serve))),
        served=tmp_path / "served.json",
        port=port,
        ready="/",
        log=tmp_path / "log",
    )


def test_a_server_is_waited_for_measured_and_stopped(tmp_path):
    with _server(tmp_path, "exec {serve}") as server:
        server.wait()
        assert server.processes()
        assert server.resident_mb() > 1
        assert 0 < server.cpu_ms() < 60_000  # Python has started
    assert server.processes() == []
    assert server.orphans == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), 5)


def test_what_outlives_a_server_is_counted_and_killed(tmp_path):
    with _server(tmp_path, "sleep 600 & exec {serve}") as server:
        server.wait()
        (child,) = [pid for pid in server.processes() if Path("/proc", str(pid), "comm").read_text() == "sleep\n"]
    assert server.orphans == 1
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True, check=False).stdout
    assert found.strip()[:1] in ("", "Z")


def test_a_server_that_does_not_come_up_says_why(tmp_path):
    with _server(tmp_path, "echo broken; exit 3") as server, pytest.raises(RuntimeError, match="broken"):
        server.wait()
