"""Every benchmark runs, and prints the common shape. Its figures are judged by people, not here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import at_most
from benchmarks.report import table
from tests.supernets import write_test_bundle

ROOT = Path(__file__).resolve().parents[2]
# Seconds that a quick run took on two busy cores; two were ended after 120. `make test` takes those of at most
# `SHORT_S`, `make bench-quick` all.
SECONDS = {
    "switching": 3,
    "overhead": 24,
    "footprint": 91,
    "lowering": 81,
    "loading": 11,
    "grouped_gemm": 1,
    "training_step": 11,
    "training_memory": 36,
    "evaluation": 40,
    "accuracy": 120,
    "table_error": 43,
    "searching": 113,
    "searching_trained": 120,
    "energy_budget": 6,
    "decisions": 9,
    "real_load": 17,
    "cascade": 20,
    "swaps": 9,
    "switches": 2,
    "drains": 5,
    "stages": 3,
    "tricklers": 15,
    "fuzzing": 7,
}
SHORT_S = 3
PATIENCE_S = 900
ALL = bool(os.environ.get("WENET_BENCH_QUICK"))


def run_of(name: str) -> Any:
    """The parameter of one benchmark: skipped where it takes long and nobody asked for it."""
    skipped = pytest.mark.skipif(
        SECONDS[name] > SHORT_S and not ALL, reason=f"took {SECONDS[name]} s or more: `make bench-quick` runs it"
    )
    return pytest.param(name, marks=[skipped, pytest.mark.timeout(PATIENCE_S)])


@pytest.mark.parametrize("name", [run_of(name) for name in SECONDS])
def test_a_benchmark_prints_one_json_object_of_the_common_shape(name: str, tmp_path: Path) -> None:
    write_test_bundle(tmp_path / "bundle")
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--bundle", str(tmp_path / "bundle")]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S - 10, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads(out.read_text())
    assert {"benchmark", "machine", "versions", "commit", "seed", "samples", "figures", "quick"} <= set(result)
    assert result["quick"] is True
    assert result["figures"]
    for figure in result["figures"].values():
        assert set(figure) == {"value", "unit", "goal", "met", "how"}
    assert name in table([out])


def test_a_benchmark_without_a_bundle_says_how_to_get_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.switching", "--bundle", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "make demo" in done.stderr


def test_a_figure_over_its_goal_is_not_met() -> None:
    assert at_most(1.0, 2.0, "ms", "").met
    assert not at_most(2.1, 2.0, "ms", "").met


def test_every_benchmark_is_tested_here() -> None:
    helpers = {
        "__init__", "common", "report", "bare_handler", "networks", "floors", "variants", "bundles", "resident",
        "arms", "trained", "curves", "plain_ways", "synthetic_spaces", "energy_world",
        "open_loop", "sender", "stress", "load_bench", "load_report", "load_picture", "escalation_streams",
        "serving", "serving_added", "serving_client", "serving_load", "serving_models", "serving_overload",
        "serving_raw", "serving_refusal", "serving_stand", "serving_statistics",
        "serving_throughput",  # see `test_serving`
        "metering", "metering_kills",  # replays in real time: what they measure is tested in tests/runtime
        "images",  # asks a package index: see `tests/test_constraints`
        "gpu_modes", "gpu_energy", "gpu_graphs", "gpu_summary",  # need a GPU: see `test_gpu_modes`
    }  # fmt: skip
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - helpers == set(SECONDS)
    assert importlib.util.find_spec("benchmarks.common") is not None
