"""Does a daemon answer every request while its bundle is changed again and again, and does it stay as small as it was?

Clients ask one after another on connections that they keep, as fast as they are answered, while /admin/bundle goes to
and fro between two bundles. Nothing here says how quick the daemon is: clients and daemon share the machine.
"""

import argparse
import dataclasses
import http.client
import itertools
import json
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.common import Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.load_bench import Daemon, five_modes
from wenet_runtime.bundle import MANIFEST, Bundle
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.canary import golden_inputs

QUESTION = "Are all requests answered while the bundle is changed 1,000 times, and do memory and descriptors stay flat?"
SWAPS, QUICK_SWAPS = 1000, 20
CLIENTS = 4
WARM_SWAPS = 10  # before anything is compared: caches fill, threads start, the C library keeps what it was given once
RSS_MB = 32
TOKEN = "0123456789abcdef0123456789abcdef"  # of a daemon that lives as long as this benchmark
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RAW = {**BEARER, "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
PATIENCE_S = 60.0


class Client(threading.Thread):
    """Asks until it is told to stop.

    Attributes:
        statuses: how often each came; 0 for a connection that broke.
        latencies_ms: of the answers, with when they came (monotonic).
    """

    def __init__(self, port: int, body: bytes, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._body = body
        self._ended = stop
        self.statuses: dict[int, int] = {}
        self.latencies_ms: list[tuple[float, float]] = []

    def run(self) -> None:
        """Ask."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        while not self._ended.is_set():
            start_s = time.monotonic()
            try:
                connection.request("POST", "/infer", self._body, RAW)
                reply = connection.getresponse()
                reply.read()
                status = reply.status
            except (OSError, http.client.HTTPException):
                status = 0
                connection.close()
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.latencies_ms.append((start_s, (time.monotonic() - start_s) * 1e3))
        connection.close()


@dataclasses.dataclass(frozen=True)
class Size:
    """What a process takes."""

    rss_mb: float
    descriptors: int
    threads: int

    @staticmethod
    def of(pid: int) -> "Size":
        """As the system says now. Linux only."""
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        said = dict(line.split(":", 1) for line in lines if ":" in line)
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return Size(int(said["VmRSS"].split()[0]) / 1024, descriptors, int(said["Threads"]))


def measure(arguments: Arguments) -> Measured:
    """Two bundles that differ in their manifests alone, a daemon, clients, and the changes."""
    count = arguments.own["swaps"] or (QUICK_SWAPS if arguments.quick else SWAPS)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wenet-swaps-")))
        first = Bundle(arguments.bundle) if arguments.quick else five_modes(folder / "made", arguments.seed)
        for name in ("a", "b"):
            _copy(first, folder / "bundles" / name, name)
        token = folder / "token"
        token.touch(0o600)
        token.write_text(TOKEN, encoding="ascii")
        log = opened.enter_context((folder / "log").open("ab"))
        bundles = ["--bundle", str(folder / "bundles" / "a"), "--cache-dir", str(folder / "cache")]
        daemon = opened.enter_context(
            Daemon([*bundles, "--token-file", str(token), "--profile-rounds", "20", "--meter", "none"], log)
        )
        ((_, image),) = golden_inputs(first, rows=1).items()
        stop = threading.Event()
        clients = [Client(daemon.port, np.ascontiguousarray(image).tobytes(), stop) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            swaps, sizes = _change(daemon, count)
        finally:
            stop.set()
            for client in clients:
                client.join(PATIENCE_S)
    return _figures(clients, swaps, sizes), {
        "swaps_ms": [round((end_s - start_s) * 1e3, 3) for start_s, end_s, _ in swaps],
        "sizes": [dataclasses.asdict(one) for one in sizes],
        "statuses": [client.statuses for client in clients],
        "model": f"{first.manifest.model}, {len(first.modes)} modes; the bundles differ in their manifests alone",
    }


def _copy(bundle: Bundle, path: Path, name: str) -> None:
    files = {one: (bundle.path / one).read_bytes() for one in bundle.manifest.files if one != MANIFEST}
    write_bundle(path, dataclasses.replace(bundle.manifest, created_by={"benchmarks.swaps": name}), files)


def _change(daemon: Daemon, count: int) -> tuple[list[tuple[float, float, int]], list[Size]]:
    """Change to and fro: when each began and ended with which status, and the daemon's size after each."""
    swaps, sizes = [], []
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE_S)
    names = itertools.cycle(("b", "a"))
    for _ in range(WARM_SWAPS + count):
        start_s = time.monotonic()
        body = json.dumps({"path": next(names)})
        connection.request("POST", "/admin/bundle", body, {**BEARER, "Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        swaps.append((start_s, time.monotonic(), reply.status))
        sizes.append(Size.of(daemon.pid))
    connection.close()
    return swaps, sizes


def _figures(clients: list[Client], swaps: list[tuple[float, float, int]], sizes: list[Size]) -> dict[str, Figure]:
    statuses: dict[int, int] = {}
    for client in clients:
        for status, times in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + times
    asked, before, after = sum(statuses.values()), sizes[: 2 * WARM_SWAPS], sizes[-WARM_SWAPS:]
    counted = swaps[WARM_SWAPS:]
    taken = np.array([end_s - start_s for start_s, end_s, status in counted if status == 200]) * 1e3
    latencies = np.array([ms for client in clients for _, ms in client.latencies_ms])

    def grown(what: str) -> float:
        return float(max(getattr(one, what) for one in after) - max(getattr(one, what) for one in before))

    load = f"of {asked} requests of {CLIENTS} clients"
    over = f"largest of the last {len(after)} swaps over largest of the first {len(before)}"
    return {
        "swaps": at_least(len(taken), len(counted), "changes", f"that were done, of {len(counted)}"),
        "failed": at_most(asked - statuses.get(200, 0), 0, "requests", f"not answered with 200, {load}"),
        "rss_growth_mb": at_most(grown("rss_mb"), RSS_MB, "MB", over),
        "descriptor_growth": at_most(grown("descriptors"), 0, "descriptors", over),
        "thread_growth": at_most(grown("threads"), 0, "threads", over),
        "rss_mb": reported(max(one.rss_mb for one in after), "MB", "two bundles resident"),
        "swap_p50_ms": reported(float(np.median(taken)), "ms", "verify, load, check, warm up and exchange, under load"),
        "latency_p50_ms": reported(float(np.median(latencies)), "ms", f"{load}, while the bundle is always changing"),
        "latency_p99_ms": reported(float(np.percentile(latencies, 99)), "ms", "the same"),
    }


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swaps", type=int, help=f"how many; {SWAPS}, or {QUICK_SWAPS} with --quick")


if __name__ == "__main__":
    run("swaps", QUESTION, measure, needs_bundle=False, flags=_flags)
