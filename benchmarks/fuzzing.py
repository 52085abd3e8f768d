"""What do damaged requests, images and bundles do to a daemon? As many as are asked for, each counted."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Arguments, Figure, Measured, at_least, at_most, run
from tests.fuzz import bundles, images, openapi, sockets
from tests.fuzz.daemon import Daemon, Outcome
from tests.supernets import write_test_bundle

QUESTION = "Of damaged requests, images, bundles and parsers' inputs, how many crash a daemon or are answered with 5xx?"
COUNTS = {"sockets": 20_000, "images": 2_000, "bundles": 500, "openapi": 20_000, "parsers": 200_000}
QUICK = {"sockets": 26, "images": 16, "bundles": 16, "openapi": 0, "parsers": 0}
GROWTH_MB = {"sockets": 64.0, "images": 160.0, "openapi": 64.0}
PARSERS = ("tests/runtime/test_service_v2binary.py", "tests/runtime/test_service_v2request.py",
           "tests/runtime/test_service_bodies.py", "tests/runtime/test_service_options.py",
           "tests/runtime/test_service_parsers.py")  # fmt: skip


def measure(arguments: Arguments) -> Measured:
    """One kind after another, each against a daemon of its own."""
    counts = QUICK if arguments.quick else COUNTS
    asked = arguments.own.get("only") or [name for name, count in counts.items() if count]
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_test_bundle(Path(folder) / "bundle")
        for name in asked:
            if name == "parsers":
                figures.update(_parsers(counts[name]))
                continue
            outcome = _outcome(name, Path(folder), counts[name], arguments)
            how = f"{outcome.cases} cases of {len(outcome.kinds)} kinds in {outcome.took_s:.0f} s"
            figures[f"{name}_cases"] = at_least(outcome.cases, counts[name], "cases", how)
            figures[f"{name}_failures"] = at_most(len(outcome.failures), 0, "failures", f"5xx, crash, wrong; {how}")
            if name in GROWTH_MB:
                grown = at_most(outcome.grown_mb, GROWTH_MB[name], "MB", f"resident, after the first cases; {how}")
                figures[f"{name}_grown_mb"] = grown
            samples[name] = {
                "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
                "kinds": dict(sorted(outcome.kinds.items())),
                "failures": outcome.failures,
            }
    return figures, samples


def _outcome(name: str, folder: Path, count: int, arguments: Arguments) -> Outcome:
    if name == "bundles":
        where = folder / "damaged"
        where.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, for numbers that are none
            return bundles.fuzz(folder / "bundle", where, count, arguments.seed)
    with Daemon(folder) as daemon:
        if name == "openapi":
            command = arguments.own["schemathesis"] or openapi.schemathesis()
            if command is None:
                raise SystemExit("no Schemathesis: `make fuzz` installs it, or name it with --schemathesis")
            return openapi.fuzz(daemon, folder, count, command=command, seed=1 + arguments.seed)
        return {"sockets": sockets.fuzz, "images": images.fuzz}[name](daemon, count, arguments.seed)


def _parsers(count: int) -> dict[str, Figure]:
    """Hypothesis' cases, as many for each of its tests as make up the count together."""
    tests = sum((ROOT / path).read_text(encoding="utf-8").count("@examples(") for path in PARSERS)
    each = -(-count * 5 // (4 * max(1, tests)))  # some ask for fewer, and what Hypothesis calls invalid is not counted
    start_s = time.monotonic()
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "0",
        "--hypothesis-show-statistics",
    ]
    environment = {**os.environ, "WENET_FUZZ_EXAMPLES": str(each)}
    done = subprocess.run([*words, *PARSERS], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    cases = sum(int(found) for found in re.findall(r"- (\d+) passing\b", done.stdout))
    failed = sum(int(found) for found in re.findall(r"(\d+) failed", done.stdout))
    how = f"{tests} tests of {each} examples in {time.monotonic() - start_s:.0f} s"
    if done.returncode and not failed:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return {
        "parsers_cases": at_least(cases, count, "cases", how),
        "parsers_failures": at_most(failed, 0, "tests", how),
    }


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=sorted(COUNTS), action="append", help="this kind; all if not given")
    parser.add_argument("--schemathesis", help="its command, if it is not beside this Python")


if __name__ == "__main__":
    run("fuzzing", QUESTION, measure, needs_bundle=False, flags=_flags)
