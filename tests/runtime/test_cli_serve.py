"""Serving: what it does not start with, and whatever ends it, the daemon is closed."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from wenet_runtime.cli.serve import serve_until_drained
from wenet_runtime.service.daemon import Daemon
from wenet_runtime.settings import Settings


class Defect(Exception):
    """What goes wrong at a place where nothing was foreseen."""


@pytest.mark.parametrize("where", ["_listen", "gc.freeze", "Server"])
def test_a_daemon_that_cannot_serve_is_closed_and_says_why(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*parts: Any, **how: Any) -> None:
        raise Defect(where)

    closed = []
    close = Daemon.close

    def noted(daemon: Daemon, timeout_s: float) -> bool:
        closed.append(timeout_s)
        return close(daemon, timeout_s)

    before = set(threading.enumerate())
    monkeypatch.setattr(f"wenet_runtime.cli.serve.{where}", fail)
    monkeypatch.setattr(Daemon, "close", noted)
    given = Settings(bundle=bundle_path, cache_dir=tmp_path / "cache", profile_rounds=10, engine="sim", port=0)
    with pytest.raises(Defect, match=where):
        serve_until_drained(given)
    assert closed == [given.drain_timeout_s]
    assert [one.name for one in threading.enumerate() if one not in before] == []


def test_a_bad_token_file_exits_2_and_shows_no_token(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("sesame street\n")
    path.chmod(0o600)
    found = command("--bundle", bundle_path, "--token-file", path, "--host", "0.0.0.0", "--port", 0, "--engine", "sim")
    assert found.exit_code == 2
    assert "line 1 of --token-file" in found.stderr
    assert "sesame" not in found.stderr + found.stdout


def test_a_server_that_fails_ends_what_tells_systemd(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        """Serves for a moment."""

        def __init__(self, *parts: Any, **how: Any) -> None:
            self._on_ready = how["on_ready"]

        def run(self, sockets: Any) -> None:
            async def serve() -> None:
                self._on_ready()

            asyncio.run(serve())
            raise Defect("run")

    monkeypatch.setattr("wenet_runtime.cli.serve.Server", Failing)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    given = Settings(bundle=bundle_path, cache_dir=tmp_path / "cache", profile_rounds=10, engine="sim", port=0)
    before = set(threading.enumerate())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "n"))
        with pytest.raises(Defect, match="run"):
            serve_until_drained(given)
        told = [systemd.recv(4096).split(b"\n")[0] for _ in range(2)]
    assert told == [b"READY=1", b"STOPPING=1"]
    assert [one.name for one in threading.enumerate() if one not in before] == []


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("8.8.8.8", "choose another --host, one of this machine's addresses"),
        ("999.1.1.1", "cannot listen on 999.1.1.1:0: --host is no address, and no name that resolves here"),
    ],
)
def test_a_host_that_is_not_this_machines_is_told_as_such(
    command: Any, bundle_path: Path, host: str, told: str
) -> None:
    found = command("--bundle", bundle_path, "--host", host, "--insecure-no-auth", "--port", 0, "--engine", "sim")
    assert found.exit_code == 6
    assert told in found.stderr
    assert "--port" not in found.stderr
