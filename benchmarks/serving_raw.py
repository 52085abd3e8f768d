"""A loop that only runs a session: `python -m benchmarks.serving_raw NETWORK INPUT SIZE… `.

For every number of seconds on a line of standard input it prints how many runs a second it managed.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT
from benchmarks.peers.base import Served
from wenet_runtime.engines.ort import OrtBackend


class Raw:
    """That loop in a process of its own, beside which servers are measured."""

    def __init__(self, served: Served) -> None:
        words = [sys.executable, "-m", "benchmarks.serving_raw", served.models[0], served.input]
        self._process = subprocess.Popen(
            [*words, *map(str, served.shape)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def per_second(self, seconds: float) -> float:
        """Runs per second, of one turn."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def runs_per_second(path: Path, name: str, shape: Sequence[int]) -> None:
    """Answer the lines of standard input."""
    engine = OrtBackend().load_bytes(path.read_bytes(), name="raw")
    inputs = {name: np.random.default_rng(0).normal(size=tuple(shape)).astype(np.float32)}
    for line in sys.stdin:
        count, start = 0, time.perf_counter()
        end = start + float(line)
        while time.perf_counter() < end:
            engine.infer(inputs)
            count += 1
        print(count / (time.perf_counter() - start), flush=True)
    engine.close()


if __name__ == "__main__":
    runs_per_second(Path(sys.argv[1]), sys.argv[2], [int(one) for one in sys.argv[3:]])
