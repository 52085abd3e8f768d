"""A daemon whose meter's child is killed again and again: what `benchmarks.metering` shows of serving."""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Figure, at_least, at_most, reported
from tests.runtime.child_watch import children, descriptors, until
from tests.runtime.fake_tegrastats import installed
from tests.supernets import write_test_bundle
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs

Figures = dict[str, Figure]


def killed(folder: Path, series: list[str], count: int) -> tuple[Figures, dict[str, Any]]:
    """A daemon on the simulated engine answers two clients while its child is killed again and again."""
    installed(folder, "--log", written(folder, series))
    write_test_bundle(folder / "bundle")
    ((_, values),) = golden_inputs(Bundle(folder / "bundle"), rows=1).items()
    port = _free_port()
    words = ["--bundle", folder / "bundle", "--engine", "sim", "--meter", "tegrastats", "--profile-rounds", 10]
    words += ["--port", port, "--cache-dir", folder / "cache"]
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "wenet_runtime.cli", *map(str, words)]
    daemon = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    answers: Counter[str] = Counter()
    latest = {"source": ""}
    stop = threading.Event()

    def ask_on() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
        while not stop.is_set():
            try:
                connection.request("POST", "/infer", values.tobytes(), headers)
                reply = connection.getresponse()
                reply.read()
                latest["source"] = source = reply.headers.get("WeNet-Energy-Source", "")
                answers[f"{reply.status} {source.partition(':')[0]}"] += 1
            except OSError as error:
                answers[type(error).__name__] += 1

    askers = [threading.Thread(target=ask_on) for _ in range(2)]
    restarted_ms = []
    try:
        if not until(lambda: _listens(port), 120.0):
            raise RuntimeError("the daemon does not come up")
        for asker in askers:
            asker.start()
        before: dict[str, float] = {}
        for number in range(count):
            if not until(lambda: latest["source"].startswith("rail:")):
                raise RuntimeError(f"no fresh energy after {number} kills")
            if number == count // 10:
                before = process(daemon.pid)
            ((pid, _),) = children(daemon.pid)  # a second one would be one that nobody waited for
            begun_s = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            if not until(lambda: latest["source"] == "estimate"):
                raise RuntimeError(f"kill {number + 1} was not noticed")
            until(lambda: latest["source"].startswith("rail:"))
            restarted_ms.append((time.monotonic() - begun_s) * 1e3)
        after = process(daemon.pid)
    finally:
        stop.set()
        for asker in askers:
            if asker.is_alive():
                asker.join(30)
        daemon.terminate()
        daemon.wait(30)
    served = sum(number for name, number in answers.items() if name.startswith("200 "))
    failed = sum(answers.values()) - served
    how = f"{count} kills by SIGKILL, {served} requests by two clients to a daemon on the simulated engine"
    figures = {
        "kills_failed_requests": at_most(failed, 0, "", how),
        "kills_noticed_and_fresh_again": at_least(
            len(restarted_ms), count, "", "energy estimated, then measured again"
        ),
        "kills_fresh_again_ms": reported(
            statistics.median(restarted_ms), "ms", "median, from the kill to a measured reply"
        ),
        "kills_zombies": at_most(after["zombies"], 0, "", "children nobody waited for, at the end"),
        "kills_descriptors_more": at_most(
            after["descriptors"] - before["descriptors"], 0, "", "at the end, over those after a tenth of the kills"
        ),
        "kills_threads_more": at_most(after["threads"] - before["threads"], 0, "", "likewise"),
    }
    return figures, {"kills_answers": dict(answers), "kills_process": {"before": before, "after": after}}


def process(pid: int) -> dict[str, float]:
    """What a process holds now, from /proc."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return {
        "rss_kb": int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
        "descriptors": descriptors(str(pid)),
        "zombies": sum(state == "Z" for _, state in children(pid)),
        "cpu_s": sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
    }


def written(folder: Path, series: list[str]) -> Path:
    """A log of these lines."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "lines.log"
    log.write_text("".join(f"{line}\n" for line in series))
    return log


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
