"""Is the meter on `tegrastats` quick, exact and without leaks, and does it survive its child?

There is no board here: `tests/runtime/fake_tegrastats.py` stands in for NVIDIA's program and replays recorded lines.
What is measured is our reading of them, never what a Jetson draws.
"""

import argparse
import functools
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Arguments, Measured, at_least, at_most, reported, run
from benchmarks.metering_kills import Figures, killed, process, written
from tests.runtime.child_watch import RecordedTrace, trapezoid_mj, until
from tests.runtime.fake_tegrastats import installed
from tests.runtime.tegrastats_lines import BOARDS, composed
from wenet_runtime.meters.tegrastats import parse_line
from wenet_runtime.meters.tegrastats_child import TegrastatsMeter

QUESTION = "Is the meter on tegrastats quick, exact and without leaks, and does it survive its child?"
RECORDED = Path(os.environ.get("WENET_RECORDED_DATA", str(ROOT.parent / "shared"))) / "tegrastats"
HOLDER = (
    "import sys\n"
    "from wenet_runtime.meters.tegrastats_child import TegrastatsMeter\n"
    "meter = TegrastatsMeter(command=sys.argv[1])\n"
    "print('ready', flush=True)\n"
    "sys.stdin.read()\n"
    "state = meter.state()\n"
    "print(state.status, state.restarts, flush=True)\n"
    "meter.close()\n"
)


def measure(arguments: Arguments, replay_minutes: float) -> Measured:
    """Parsing, replays at two speeds, kills during serving, and a long replay."""
    lines, series, whence = _lines()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = _parsing(lines, whence, arguments)
        figures |= _damage(lines, 20_000 if arguments.quick else 300_000, arguments.seed)
        for speed in (10, 1):
            figures |= _replay(folder / f"{speed}x", series[: 12 if arguments.quick else None], speed, whence)
        kills, samples = killed(folder / "kills", series, 5 if arguments.quick else 100)
        figures |= kills
        long, memory = _soak(folder / "soak", series, replay_minutes)
        figures |= long
    return figures, {**samples, "soak": memory, "lines": whence}


def _lines() -> tuple[list[str], list[str], str]:
    """All lines, a series of one board, and where they are from."""
    files = sorted(RECORDED.glob("*.log"))
    if not files:
        every = [composed(board, seed)[0] for board in BOARDS for seed in range(20)]
        return every, [composed(BOARDS[1], seed)[0] for seed in range(114)], "composed from the grammar"
    every = [line for path in files for line in path.read_text().splitlines()]
    return every, (RECORDED / "nano-1.log").read_text().splitlines(), "recorded on boards"


def _parsing(lines: list[str], whence: str, arguments: Arguments) -> Figures:
    passes = 5 if arguments.quick else 60
    rates = []
    for _ in range(passes):
        begun_s = time.process_time()  # what else the machine does is not the parser's
        for line in lines:
            parse_line(line)
        rates.append(len(lines) / (time.process_time() - begun_s))
    grown = max(
        _growth(piece) for piece in ("CPU [", "RAM 1/1MB (lfb ", "A 1", "GR3D @[1,", "MTS fg 1% bg ", "A@1.1C/")
    )
    how = f"median of {passes} passes over {len(lines)} lines {whence}, a second of processor time"
    return {
        "parsed_lines_per_s": at_least(statistics.median(rates), 20_000, "1/s", how),
        "parsing_growth": at_most(
            grown,
            1.3,
            "",
            "power of the length that processor time grows with, 100 kB to 3.2 MB of the worst repeated piece",
        ),
    }


def _growth(piece: str) -> float:
    """Power of the text's length that the time grows with, from 100 kB to 3.2 MB: 1 is linear, 2 quadratic."""
    lengths = (100_000, 3_200_000)
    texts = [(piece * (length // len(piece) + 1))[:length] for length in lengths]
    least_s = [math.inf, math.inf]
    for _ in range(5):
        for place, text in enumerate(texts):
            begun_s = time.process_time()  # what else the machine does is not the parser's
            parse_line(text)
            least_s[place] = min(least_s[place], time.process_time() - begun_s)
    return math.log(least_s[1] / least_s[0]) / math.log(lengths[1] / lengths[0])


def _damage(lines: list[str], count: int, seed: int) -> Figures:
    """Lines cut, glued and written over at random; `make fuzz` does the same by Hypothesis."""
    draw = random.Random(seed)
    raised = 0
    for _ in range(count):
        line = draw.choice(lines)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(line) + 1)
            other = draw.choice(lines)
            piece = draw.choice(("", other[draw.randrange(len(other)) :][:20], chr(draw.randrange(0x110000)), "9" * 40))
            line = line[:place] + piece + line[place + draw.randrange(12) :]
        try:
            parse_line(line)
        except Exception:  # noqa: BLE001 - what is counted
            raised += 1
    return {"damaged_lines_raised": at_most(raised, 0, "", f"of {count} lines damaged at random, seed {seed}")}


def _replay(folder: Path, series: list[str], speed: int, whence: str) -> Figures:
    """The meter's energy of a replay against the exact trapezoid over the log's nominal times, and over its stamps."""
    interval_ms = 1000 // speed
    log = written(folder, series)
    trace = RecordedTrace(30.0)
    command = installed(folder, "--log", log, "--stall-after", len(series))
    meter = TegrastatsMeter(command=command, interval_ms=interval_ms, trace=trace)
    time.sleep((len(series) - 1) * interval_ms / 1e3)
    whole = until(lambda: len(trace.readings) == len(series), 5.0)
    readings = list(trace.readings)
    energy_mj = meter.energy_mj(readings[0][0], readings[-1][0])
    meter.close()
    if not whole or energy_mj is None:
        raise RuntimeError(f"of {len(series)} lines {len(readings)} arrived apart from others")
    watts = [(parse_line(line).total_mw or 0) / 1e3 for line in series]
    nominal_mj = trapezoid_mj([(number * interval_ms / 1e3, one) for number, one in enumerate(watts)])
    stamped_mj = trapezoid_mj(readings)
    how = f"{len(series)} lines {whence}, one every {interval_ms} ms from a stand-in"
    return {
        f"replay_error_{speed}x": at_most(
            abs(energy_mj / nominal_mj - 1) * 100,
            1.0,
            "%",
            f"against the log's exact trapezoid of {nominal_mj:.0f} mJ; {how}",
        ),
        f"replay_error_{speed}x_stamped": at_most(
            abs(energy_mj / stamped_mj - 1) * 100, 1e-6, "%", f"against the trapezoid over the stamps taken; {how}"
        ),
    }


def _soak(folder: Path, series: list[str], minutes: float) -> tuple[Figures, dict[str, Any]]:
    """A process that holds a meter and does nothing else, replaying round and round at the usual interval."""
    command = installed(folder, "--log", written(folder, series))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    looks = [process(holder.pid)]
    for _ in range(10):
        time.sleep(minutes * 6)
        looks.append(process(holder.pid))
    holder.stdin.close()
    ended = holder.stdout.read().strip()
    holder.stdout.close()
    holder.wait(30)
    warm, end = looks[1], looks[-1]
    how = f"at the end of {minutes:g} minutes at 100 ms a line, over a tenth of that time"
    figures = {
        "soak_memory_more": at_most((end["rss_kb"] - warm["rss_kb"]) / 1e3, 1.0, "MB", how),
        "soak_descriptors_more": at_most(end["descriptors"] - warm["descriptors"], 0, "", how),
        "soak_threads_more": at_most(end["threads"] - warm["threads"], 0, "", how),
        "soak_zombies": at_most(end["zombies"], 0, "", how),
        "soak_cpu_share": reported(
            (end["cpu_s"] - warm["cpu_s"]) / (minutes * 54) * 100, "%", "of one core, for reading ten lines a second"
        ),
    }
    return figures, {"process": looks, "meter_at_end": ended}


if __name__ == "__main__":
    own = argparse.ArgumentParser(add_help=False)  # what only this benchmark takes
    own.add_argument("--replay-minutes", type=float, default=1.0)
    found, sys.argv[1:] = own.parse_known_args()
    run("metering", QUESTION, functools.partial(measure, replay_minutes=found.replay_minutes), needs_bundle=False)
