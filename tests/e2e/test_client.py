"""A daemon, and the verbs that ask it: infer, bench, and the pictures of what came of it."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator, List

import numpy as np
import pytest

from tests.supernets import write_test_bundle

START_S = 120
WENET = [sys.executable, "-c", "from wenet_runtime.cli import main; main()"]


def wenet(*words: Any, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*WENET, *map(str, words)], capture_output=True, text=True, timeout=START_S, cwd=str(cwd), check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a bundle and an input of it."""
    path = tmp_path_factory.mktemp("client")
    write_test_bundle(path / "bundle")
    np.save(str(path / "x.npy"), np.ones((1, 1, 8, 8), np.float32))
    return path


@pytest.fixture(scope="module")
def url(place: Path) -> Iterator[str]:
    """Where a daemon serves it, with a made-up meter and a decision log."""
    flags = ["--bundle", "bundle", "--cache-dir", "cache", "--profile-rounds", "10", "--engine", "sim"]
    flags += ["--meter", "sim", "--port", "0", "--budget-ms", "5000", "--decision-log", "decisions.jsonl"]
    daemon = subprocess.Popen([*WENET, *flags], stderr=subprocess.PIPE, cwd=str(place), env=dict(os.environ))
    assert daemon.stderr is not None
    guard = threading.Timer(START_S, daemon.kill)
    guard.start()
    try:
        found, said = None, ""
        while found is None:
            line = daemon.stderr.readline().decode()
            assert line, said
            said += line
            found = re.search(r"on (http://\S+) with budget", line)
        yield found.group(1)
    finally:
        guard.cancel()
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=START_S)


def test_a_file_is_answered_within_its_budget(place: Path, url: str) -> None:
    found = wenet("infer", "x.npy", "--url", url, "--budget-ms", 3000, "--top-k", 2, "--json", cwd=place)
    assert found.returncode == 0, found.stderr
    reply = json.loads(found.stdout)
    assert (reply["status"], len(reply["top_k"][0])) == (200, 2)
    assert reply["headers"]["wenet-budget-met"] == "true"
    assert reply["headers"]["wenet-mode"] == reply["model_version"]
    told = wenet("infer", "x.npy", "--url", url, "--budget-ms", 3000, cwd=place).stdout
    assert re.search(r"  mode m\d \(fits: ", told)
    assert "budget of 3000 ms met" in told


def test_the_server_s_refusals_become_exit_codes(place: Path, url: str) -> None:
    found = wenet("infer", "x.npy", "--url", url, "--budget-ms", "0.001", cwd=place)
    assert (found.returncode, found.stdout) == (4, "")
    assert re.match(r"wenet-runtime: x\.npy: budget-impossible: .+\n$", found.stderr)
    found = wenet("infer", "x.npy", "--url", url, "--mode", "m9", cwd=place)
    assert (found.returncode, found.stdout) == (2, "")
    assert "unknown-mode" in found.stderr


def test_a_load_is_sent_reported_and_drawn(place: Path, url: str) -> None:
    load: List[Any] = ["--rate", 20, "--seconds", 3, "--warm-up-s", 1, "--budget-ms", "2000,4000"]
    found = wenet("bench", "x.npy", "--url", url, *load, "--out", "report.json", "--json", cwd=place)
    assert found.returncode == 0, found.stderr
    summary = json.loads(found.stdout)["summary"]
    assert summary["arrivals"] > 20
    assert set(summary["statuses"]) == {"200"}
    assert summary["energy_sources"] == ["sim"]
    random = wenet("bench", "--url", url, "--rate", 20, "--seconds", 1, "--warm-up-s", 0, "--uniform", cwd=place)
    assert "20 requests, 20 answered" in random.stdout, random.stderr
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("pictures need matplotlib, which `[plot]` brings")
    files = ["--report", "report.json", "--decisions", "decisions.jsonl"]
    drawn = wenet("plot", *files, "--out", "plots", "--json", cwd=place)
    assert drawn.returncode == 0, drawn.stderr
    written = json.loads(drawn.stdout)["written"]
    assert {"latency", "budgets", "modes", "frontier", "prediction"} <= set(written)
    assert "SIMULATED" in (place / "plots" / "frontier.svg").read_text()
