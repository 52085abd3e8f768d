"""Serving: whatever ends it, the daemon is closed."""

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
