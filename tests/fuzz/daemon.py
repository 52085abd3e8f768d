"""A real daemon that is fuzzed: a process of its own, which must live, stay small, and answer right afterwards."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.supernets import SIZE, write_test_bundle

ROOT = Path(__file__).resolve().parents[2]
START_S = 90.0
PATIENCE_S = 60.0
CELLS = SIZE * SIZE
MANY_FAILURES = 20  # are kept in words
# Where the machine is busy: refused, or too late. Of all others of the 5xx kind none is a client's fault.
LOAD = frozenset((503, 504))
# uvicorn writes a reply to a client whose connection has just gone, and says so in the log: nobody is harmed.
HARMLESS = "the handler is closed"


def valid_body(value: float = 0.5) -> bytes:
    """A V2 inference object that is answered."""
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, SIZE, SIZE], "data": [value] * CELLS}
    return json.dumps({"inputs": [tensor]}).encode()


@dataclass
class Outcome:
    """What a run of cases came to.

    Attributes:
        cases: how many were tried.
        statuses: of the replies.
        kinds: of the cases.
        failures: what must not be, in words, the first of them.
        grown_mb: memory that the daemon holds and did not after the first tenth of the cases.
        took_s: all of it.
    """

    cases: int = 0
    statuses: "Counter[int]" = field(default_factory=Counter)
    kinds: "Counter[str]" = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    grown_mb: float = 0.0
    took_s: float = 0.0

    def failed(self, what: str) -> None:
        """Note what must not be."""
        if len(self.failures) < MANY_FAILURES:
            self.failures.append(what)

    def answered(self, status: int, case: str) -> None:
        """Note a reply to a client's fault, or to what is right."""
        self.statuses[status] += 1
        if status >= 500 and status not in LOAD:
            self.failed(f"{status} for {case}")


class Daemon:
    """`wenet-runtime` on a bundle of three small modes. A context manager: leaving it ends the process.

    Args:
        folder: for the bundle, the cache and what it says.
        flags: more of the command line.
        bundle: another one.
        own_session: so that what it leaves behind can be told from others' processes.
    """

    def __init__(self, folder: Path, *flags: str, bundle: "Path | None" = None, own_session: bool = False) -> None:
        bundle = bundle or folder / "bundle"
        if not bundle.is_dir():
            write_test_bundle(bundle)
        self._log = folder / "daemon.log"
        self._expected: object = None
        start = [sys.executable, "-c", "from wenet_runtime.cli import main; main()", "--bundle", str(bundle)]
        more = ["--cache-dir", str(folder / "cache"), "--port", "0", "--profile-rounds", "10", *flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WENET_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*start, *more], cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=own_session
            )
        try:
            self.port = self._port()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _port(self) -> int:
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and self.process.poll() is None:
            found = re.search(r"serving .* on http://127\.0\.0\.1:(\d+) ", self.said)
            if found:
                return int(found.group(1))
            time.sleep(0.02)
        raise AssertionError(f"it never served: {self.said}")

    @property
    def said(self) -> str:
        """What it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def defects(self) -> set[str]:
        """Where it met what it did not expect, and what: the last frames of each traceback in its log."""
        found = set()
        for part in self.said.split("Traceback (most recent call last):")[1:]:
            lines = part.strip("\n").split("\n")
            frames = [at for at, line in enumerate(lines) if line.startswith("  ")]
            at = 1 + next((before for before, after in zip(frames, [*frames[1:], -1]) if after != before + 1), -1)
            words = " | ".join(line.strip() for line in [*lines[:at][-6:], *lines[at : at + 1]])
            found.add(re.sub("0x[0-9a-f]+", "0x…", words))
        return found

    @property
    def rss_mb(self) -> float:
        """Memory that it holds, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def ask(self, method: str, path: str, body: "bytes | None" = None, **headers: str) -> "tuple[int, bytes]":
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def _answer(self) -> object:
        """What it answers to what is right, in the mode of most accuracy."""
        body = valid_body()
        status, content = self.ask("POST", "/infer", body, Content_Type="application/json", WeNet_Mode="m2")
        assert status == 200, content
        return json.loads(content)["outputs"]

    def check(self, outcome: Outcome) -> None:
        """Whether it lives, is ready, answers as at the first time and has met no defect; of its own bundle only."""
        if self.process.poll() is not None:
            outcome.failed(f"the daemon ended with {self.process.returncode}: {self.said[-500:]}")
            return
        status, content = self.ask("GET", "/v2/health/ready")
        if status != 200:
            outcome.failed(f"it is not ready afterwards: {status} {content[:200]!r}")
        try:
            answer = self._answer()
            self._expected = self._expected or answer
        except (OSError, AssertionError, ValueError, KeyError) as error:
            outcome.failed(f"it does not answer afterwards: {error}")
        else:
            if answer != self._expected:
                outcome.failed("it answers otherwise than before")
        for defect in sorted(one for one in self.defects if HARMLESS not in one):
            if f"it met a defect: {defect}" not in outcome.failures:
                outcome.failed(f"it met a defect: {defect}")

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
