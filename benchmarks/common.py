"""The shape that every benchmark prints: machine, versions, commit, seed, samples, figures against goals."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wenet_runtime.device import this_device
from wenet_runtime.files import write_atomic

PACKAGES = (
    "wenet-runtime",
    "wenet-trainer",
    "numpy",
    "torch",
    "onnxruntime",
    "pymoo",
    "fastapi",
    "starlette",
    "uvicorn",
    "httptools",
    "uvloop",
)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One measured number against its goal, if it has one. `how` says in a line how it was taken."""

    value: float
    unit: str
    goal: str | None
    met: bool | None
    how: str


@dataclass(frozen=True)
class Arguments:
    """What every benchmark takes, and in `own` what only this one does, by name."""

    quick: bool
    out: Path | None
    bundle: Path
    seed: int
    own: Mapping[str, Any] = field(default_factory=dict)


def reported(value: float, unit: str, how: str) -> Figure:
    """A figure without a goal, beside which the others are read."""
    return Figure(value, unit, None, None, how)


def at_most(value: float, limit: float, unit: str, how: str) -> Figure:
    """A figure that is good when it does not exceed `limit`."""
    return Figure(value, unit, f"<= {limit:g}", value <= limit, how)


def at_least(value: float, limit: float, unit: str, how: str) -> Figure:
    """A figure that is good when it reaches `limit`."""
    return Figure(value, unit, f">= {limit:g}", value >= limit, how)


Measured = tuple[Mapping[str, Figure], Mapping[str, Any]]


def run(
    name: str,
    question: str,
    measure: Callable[[Arguments], Measured],
    *,
    needs_bundle: bool = True,
    flags: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Parse the arguments, measure, print the JSON object.

    Args:
        name: the benchmark's module name.
        question: what it answers, in a line.
        measure: returns figures by name and raw samples by name.
        needs_bundle: whether `--bundle` must be there.
        flags: adds those of its own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=question)
    parser.add_argument("--quick", action="store_true", help="few samples: shows that it works, not how fast it is")
    parser.add_argument("--out", type=Path, help="also write the JSON object to this file")
    parser.add_argument("--bundle", type=Path, default=ROOT / "out/demo/bundle", help="bundle to measure")
    parser.add_argument("--seed", type=int, default=0)
    flags(parser)
    given = vars(parser.parse_args())
    arguments = Arguments(**{one: given.pop(one) for one in ("quick", "out", "bundle", "seed")}, own=given)
    if needs_bundle and not arguments.bundle.is_dir():
        parser.error(f"no bundle at {arguments.bundle}: run `make demo` first, or give --bundle")
    figures, samples = measure(arguments)
    result = {
        "benchmark": name,
        "question": question,
        "quick": arguments.quick,
        "seed": arguments.seed,
        "measured_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "figures": {key: asdict(figure) for key, figure in figures.items()},
        "samples": samples,
    }
    text = json.dumps(result, indent=1)
    if arguments.out is not None:
        write_atomic(arguments.out, (text + "\n").encode())
    print(text)
    for key, figure in figures.items():
        verdict = "" if figure.goal is None else f" (goal {figure.goal}): {'met' if figure.met else 'MISSED'}"
        print(f"{key}: {figure.value:.4g} {figure.unit}{verdict}", file=sys.stderr)


def machine() -> dict[str, Any]:
    """The machine the figures belong to."""
    device = this_device("none", "none", 1)
    return {
        "machine": device.machine,
        "processor": device.processor,
        "cores": device.cores,
        "system": f"{platform.system()} {platform.release()}",
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """The commit measured, marked when the tree differs from it."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        except FileNotFoundError:  # a bare machine with a GPU may have none
            return ""

    dirty = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + dirty
