"""Where a page's commands run: a folder that looks like a clone after `make demo`, and the daemons started in it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.doc_blocks import Block, missing_line

WAIT_S = 120
# Where a page does not show what a server refuses, nothing is refused.
FAILING = 'curl() { command curl --fail "$@"; }\n'


@contextmanager
def folder(clone: Path, page: Path) -> Iterator["Folder"]:
    """A copy of the clone, and an end to every daemon that was started in it."""
    place = clone.parent / f"{clone.name}-{page.parent.name}-{page.stem}"
    shutil.copytree(clone, place, symlinks=True)
    with ExitStack() as daemons:
        yield Folder(place, clone.parent / "docs-cache", daemons)


class Folder:
    """Where a page's commands run."""

    def __init__(self, place: Path, cache: Path, daemons: ExitStack) -> None:
        self.place = place
        self._daemons = daemons
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("WENET_")}
        self._environment |= {
            "PATH": f"{place / '.venv/bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(cache),
            "XDG_CONFIG_HOME": str(place / "config"),
            "XDG_RUNTIME_DIR": str(place),
            "WENET_PORT": str(self._port),  # of a daemon, and below of who asks one
            "WENET_URL": f"http://127.0.0.1:{self._port}",
            "WENET_PROFILE_ROUNDS": "10",
            "WENET_TUNE": "false",
            "NO_COLOR": "1",
        }

    def mapped(self, text: str) -> str:
        """The port is a free one; the small bundle calls its model and input otherwise."""
        text = text.replace(":8000", f":{self._port}").replace("digits_resnet", "tiny")
        return text.replace('"image"', '"input"')

    def run(self, block: Block, before: str = "") -> tuple[int, str]:
        """Its exit code, and everything that the block prints; `before` stands before its commands."""
        command = [sys.executable, "-"] if block.language == "python" else ["bash", "-e", "-s"]
        done = subprocess.run(
            command,
            input=self.mapped(block.text if block.language == "python" else before + block.text),
            cwd=self.place,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def complaint(self, block: Block, expected: str) -> str | None:
        """Run it; what is not as the page has it, or None."""
        code, printed = self.run(block, "" if expected else FAILING)
        wanted = int(block.why.removeprefix("exits ") or 0)
        if code != wanted:
            return f"{block.place} ends with {code}\n{printed}"
        absent = missing_line(self.mapped(expected), printed)
        return None if absent is None else f"{block.place} does not print\n{absent}\nbut\n{printed}"

    def serve(self, block: Block) -> str:
        """Start the daemon of the block's last command, in place of the page's one before; what it said so far."""
        self._daemons.close()
        *before, last = re.sub(r"\\\n *", " ", block.text).strip().splitlines()
        if before:
            complaint = self.complaint(Block(block.page, block.line, "sh", "\n".join(before), "run", ""), "")
            assert complaint is None, complaint
        daemon = subprocess.Popen(
            ["bash", "-c", f"exec {self.mapped(last)}"],
            cwd=self.place,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert daemon.stderr is not None
        guard = threading.Timer(WAIT_S, daemon.kill)
        guard.start()
        said = ""
        for line in daemon.stderr:
            said += line
            if "serving " in line:
                break
        else:
            pytest.fail(f"{block.place}: the daemon ended\n{said}")
        self._daemons.callback(_stop, daemon, guard, block)
        return said


def _stop(daemon: "subprocess.Popen[str]", guard: threading.Timer, block: Block) -> None:
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    _, said = daemon.communicate(timeout=WAIT_S)
    guard.cancel()
    assert daemon.returncode == 0, f"{block.place}\n{said}"
