"""What does a mode cost before it answers: to materialize, to load from the cache, to keep in memory?"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import write
from benchmarks.common import ROOT, Arguments, Figure, Measured, at_most, reported, run
from benchmarks.networks import make
from wenet_runtime.bundle import Bundle
from wenet_runtime.materialize import Supernet, lower

QUESTION = "What does it cost to materialize a mode, to load it from the cache, and to keep several resident?"
MATERIALIZE_MS = 60
LOAD_MS = 15
MEMORY_RATIO = 2.0


def measure(arguments: Arguments) -> Measured:
    """ResNet-50 at 224 × 224 with eight modes; with `--quick` the bundle that is given."""
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wenet-loading-") as folder:
        if arguments.quick:
            bundles = {"as given": Bundle(arguments.bundle)}
        else:
            supernet = make("resnet50", arguments.seed)
            bundles = {
                name: write(Path(folder) / name, supernet, own_statistics=own, seed=arguments.seed)
                for name, own in (("shared statistics", False), ("own statistics", True))
            }
        for name, bundle in bundles.items():
            found, taken = _measure(bundle, Path(folder) / "cache", 3 if arguments.quick else 15)
            figures.update({f"{key} ({name})": figure for key, figure in found.items()})
            samples[name] = taken
    return figures, samples


def _measure(bundle: Bundle, cache: Path, rounds: int) -> Measured:
    full, modes = bundle.modes[0].id, [mode.id for mode in bundle.modes]
    materialize_ms = _materialize_ms(bundle, rounds)
    built = _resident(bundle, cache, 0)
    none, one, all_ = (_resident(bundle, cache, rounds, *some) for some in ([], [full], modes))
    slowest = max((one for one in modes if one != full), key=lambda mode_id: _median(materialize_ms[mode_id]))
    worst = max(modes, key=lambda mode_id: _median(all_["load_ms"][mode_id]))
    count = f"{len(modes)} modes"
    own = "a fresh process; every mode has answered"
    grown = {key: found["anonymous_mb"] - none["anonymous_mb"] for key, found in (("1", one), (count, all_))}
    figures = {
        "materialize_ms": at_most(
            _median(materialize_ms[slowest]), MATERIALIZE_MS, "ms", f"slowest but {full}, {slowest}; median of {rounds}"
        ),
        "materialize_full_ms": reported(_median(materialize_ms[full]), "ms", f"{full}, median of {rounds}"),
        "load_ms": at_most(
            _median(all_["load_ms"][worst]), LOAD_MS, "ms", f"slowest of {count}, {worst}, median of {rounds}"
        ),
        "first_answer_ms": reported(
            _median(all_["first_ms"][full]), "ms", f"first inference of {full} after it was loaded, median"
        ),
        "memory_ratio": at_most(
            all_["pss_mb"] / one["pss_mb"], MEMORY_RATIO, "of the full network's", f"PSS, {count} over {full}; {own}"
        ),
        "pss_1_mb": reported(one["pss_mb"], "MB", f"{full} alone; {own}"),
        "pss_all_mb": reported(all_["pss_mb"], "MB", f"{count}; {own}"),
        "pss_0_mb": reported(none["pss_mb"], "MB", "the same process without any mode"),
        "anonymous_1_mb": reported(grown["1"], "MB", f"growth over no mode, {full} alone"),
        "anonymous_all_mb": reported(grown[count], "MB", f"growth over no mode, {count}"),
        "open_ms": reported(none["opened_ms"], "ms", "verifying bundle and cache, once per start"),
        "build_ms": reported(
            built["opened_ms"], "ms", f"choosing emissions of {count} and building them, once per host"
        ),
        "build_peak_mb": reported(built["peak_mb"], "MB", "largest resident set while building"),
    }
    return figures, {"materialize_ms": materialize_ms, "built": built, "none": none, "one": one, "all": all_}


def _materialize_ms(bundle: Bundle, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of lowering each mode, by its id; the file of weights is mapped anew each time."""
    taken: dict[str, list[float]] = {mode.id: [] for mode in bundle.modes}
    for _ in range(rounds):
        for mode in bundle.modes:
            supernet, statistics = Supernet.of(bundle), bundle.statistics(mode)
            start = time.perf_counter()
            lower(supernet, mode.groups, statistics)
            taken[mode.id].append((time.perf_counter() - start) * 1e3)
    return taken


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _resident(bundle: Bundle, cache: Path, rounds: int, *modes: str) -> dict[str, Any]:
    """What `benchmarks.resident` says of these modes, in a process of its own while no other one runs."""
    command = [sys.executable, "-m", "benchmarks.resident", str(bundle.path), str(cache), str(rounds), *modes]
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return found


if __name__ == "__main__":
    run("loading", QUESTION, measure, needs_bundle=False)
