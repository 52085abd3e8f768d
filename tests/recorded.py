"""Where data recorded on real boards lies: beside the repository, or where `WENET_RECORDED_DATA` says. Never in it."""

import os
from pathlib import Path
from typing import List

import pytest

# Read when this is imported: the tests' own environment loses every WENET_* variable.
RECORDED = Path(os.environ.get("WENET_RECORDED_DATA") or Path(__file__).resolve().parents[2] / "shared")


def recorded_lines(name: str) -> List[str]:
    """The lines of one recorded log that ended in a newline; the test is skipped where there is none."""
    path = RECORDED / "tegrastats" / f"{name}.log"
    if not path.is_file():
        pytest.skip(f"no recorded lines of {name}: set WENET_RECORDED_DATA to the folder of recorded data")
    return [line.rstrip("\n") for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
