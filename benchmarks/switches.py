"""Do answers stay right while modes change with every request? 8 clients, pinned and unpinned, against pinned runs."""

import http.client
import json
import random
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.common import Arguments, Measured, at_least, at_most, reported, run
from tests.fuzz.daemon import Daemon
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs

QUESTION = "Over 10,000 random changes of mode by 8 clients, how many requests fail or carry another mode's answer?"
CLIENTS = 8
REQUESTS, QUICK = 18_000, 160  # about six of ten change a client's mode
SWITCHES = 10_000
INPUTS = 4
OCTETS = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}


def measure(arguments: Arguments) -> Measured:
    """Pinned answers first, one after another; then the same inputs by all clients at once, bit by bit the same."""
    bundle = Bundle(arguments.bundle)
    modes = [mode.id for mode in bundle.modes]
    bodies = _bodies(bundle, arguments.seed)
    count = QUICK if arguments.quick else REQUESTS
    with tempfile.TemporaryDirectory() as folder, Daemon(Path(folder), bundle=arguments.bundle) as daemon:
        first = _Client(daemon.port)
        pinned = {(mode, at): first.ask(body, mode)[2] for mode in modes for at, body in enumerate(bodies)}
        budgets = _budgets(daemon)
        clients = [_Client(daemon.port, arguments.seed + number) for number in range(CLIENTS)]
        threads = [
            threading.Thread(target=one.work, args=(bodies, modes, budgets, pinned, count // CLIENTS))
            for one in clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    asked = sum(one.asked for one in clients)
    by_mode: Counter[str] = sum((one.by_mode for one in clients), Counter())
    how = f"{asked} requests of {CLIENTS} clients, {len(modes)} modes, {INPUTS} inputs, half by budget"
    figures = {
        "failures": at_most(sum(one.failures for one in clients), 0, "requests", f"not answered with 200; {how}"),
        "wrong": at_most(sum(one.wrong for one in clients), 0, "answers", f"not bit by bit the mode's own; {how}"),
        "switches": at_least(
            sum(one.switches for one in clients),
            asked / 2 if arguments.quick else SWITCHES,
            "switches",
            f"seen by a client; {how}",
        ),
        "modes_seen": at_least(len(by_mode), len(modes), "modes", how),
        "distinct": at_least(
            len(set(pinned.values())), len(pinned), "answers", "by mode and input: a wrong mode's answer is seen"
        ),
        "requests": reported(asked, "requests", how),
    }
    return figures, {"by_mode": dict(sorted(by_mode.items())), "failures": [one.why for one in clients if one.why]}


def _bodies(bundle: Bundle, seed: int) -> list[bytes]:
    """The golden inputs and noise of their size, each as raw numbers."""
    ((_, golden),) = golden_inputs(bundle, rows=1).items()
    noise = np.random.default_rng((seed, INPUTS))  # golden inputs may be drawn from a seed themselves
    return [
        golden.tobytes(),
        *(noise.normal(size=golden.shape).astype(golden.dtype).tobytes() for _ in range(INPUTS - 1)),
    ]


def _budgets(daemon: Daemon) -> list[float]:
    """Budgets from what the quickest mode takes to far more than all: any may answer, none is refused."""
    modes = json.loads(daemon.ask("GET", "/modes")[1])["modes"]
    medians = [one["latency_ms"]["p50"] for one in modes]
    return [*(CLIENTS * 50 * median for median in medians), 60_000.0]


class _Client:
    """One connection that asks again and again.

    Attributes:
        asked, failures, wrong, switches: counted.
        by_mode: which modes answered.
        why: the first failure.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._random = random.Random(seed)
        self.asked = self.failures = self.wrong = self.switches = 0
        self.by_mode: Counter[str] = Counter()
        self.why = ""

    def ask(self, body: bytes, mode: "str | None", budget_ms: "float | None" = None) -> tuple[int, str, bytes]:
        """Status, mode and outputs."""
        headers = dict(OCTETS)
        if mode is not None:
            headers["WeNet-Mode"] = mode
        if budget_ms is not None:
            headers.update({"WeNet-Budget-Ms": f"{budget_ms:.3f}", "WeNet-On-Miss": "late"})
        self._connection.request("POST", "/infer", body, headers)
        reply = self._connection.getresponse()
        content = reply.read()
        outputs = content[int(reply.getheader("inference-header-content-length") or 0) :]
        return reply.status, reply.getheader("wenet-mode") or "", outputs if reply.status == 200 else content

    def work(
        self,
        bodies: list[bytes],
        modes: list[str],
        budgets: list[float],
        pinned: dict[tuple[str, int], bytes],
        count: int,
    ) -> None:
        """Ask `count` times, and compare."""
        last = ""
        for _ in range(count):
            at = self._random.randrange(len(bodies))
            mode = self._random.choice(modes) if self._random.random() < 0.5 else None
            budget_ms = None if mode else self._random.choice(budgets)
            status, answered, outputs = self.ask(bodies[at], mode, budget_ms)
            self.asked += 1
            if status != 200:
                self.failures += 1
                self.why = self.why or f"{status}: {outputs[:200]!r}"
                continue
            self.by_mode[answered] += 1
            self.switches += answered != last
            last = answered
            self.wrong += (mode is not None and answered != mode) or pinned[answered, at] != outputs


if __name__ == "__main__":
    run("switches", QUESTION, measure)
