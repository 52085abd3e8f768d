"""When requests come, how long they may take and how many rows they bring: generators, and any CSV file."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COLUMNS = ("t_s", "budget_ms", "rows")


@dataclass(frozen=True)
class Trace:
    """Requests in the order of their arrival, all arrays (count,).

    Attributes:
        arrivals_s: ascending seconds from the start.
        budgets_ms: end to end, from the arrival.
        rows: of each request's batch.
    """

    arrivals_s: Floats
    budgets_ms: Floats
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.arrivals_s)


def with_budget(arrivals_s: Floats, budget_ms: float) -> Trace:
    """Single rows that all have the same budget."""
    return Trace(arrivals_s, np.full(len(arrivals_s), budget_ms), np.ones(len(arrivals_s), dtype=np.int64))


def with_budgets(
    arrivals_s: Floats, budgets_ms: Sequence[float], shares: Sequence[float], random: np.random.Generator
) -> Trace:
    """Single rows of several classes of budget, each drawn with its share."""
    drawn = random.choice(np.asarray(budgets_ms, dtype=float), size=len(arrivals_s), p=np.asarray(shares))
    return Trace(arrivals_s, drawn, np.ones(len(arrivals_s), dtype=np.int64))


def poisson(rate: float, count: int, random: np.random.Generator) -> Floats:
    """Independent arrivals, `rate` a second on average."""
    return np.cumsum(random.exponential(1 / rate, count))


def gamma(rate: float, count: int, cv2: float, random: np.random.Generator) -> Floats:
    """Bursts: gaps follow a gamma distribution whose squared coefficient of variation is `cv2`; 1 is Poisson."""
    return np.cumsum(random.gamma(1 / cv2, cv2 / rate, count))


def ramp(first: float, last: float, count: int, random: np.random.Generator) -> Floats:
    """A rate that changes evenly over time from `first` to `last` a second.

    A Poisson process of that rate, given how many arrivals it has between both ends.
    """
    drawn = np.cumsum(random.exponential(1.0, count + 1))
    work = drawn[:-1] / drawn[-1] * count  # ∫rate dt up to each arrival
    slope = (last - first) * (first + last) / (2 * count)
    found: Floats = work / first if slope == 0 else (np.sqrt(first * first + 2 * slope * work) - first) / slope
    return found


def diurnal(rate: float, swing: float, period_s: float, count: int, random: np.random.Generator) -> Floats:
    """Day and night, scaled down: the rate swings as a sine by ±`swing` (0–1) of `rate` within `period_s`.

    Drawn by thinning a Poisson process of the highest rate, which is exact for any shape.
    """
    found: list[Floats] = []
    total, last = 0, 0.0
    while total < count:
        tried = last + poisson(rate * (1 + swing), count, random)
        last = float(tried[-1])
        share = (1 + swing * np.sin(2 * math.pi * tried / period_s)) / (1 + swing)
        found.append(tried[random.random(count) < share])
        total += len(found[-1])
    return np.concatenate(found)[:count]


def read_csv(path: Path, budget_ms: float) -> Trace:
    """A recorded trace: a heading `t_s[,budget_ms[,rows]]`, then a line per request, in any order.

    Args:
        path: the file.
        budget_ms: of requests whose line gives none.

    Raises:
        ValueError: a heading or a line that cannot be meant; says which.
    """
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(name.strip() for name in lines[0]) not in {COLUMNS[:1], COLUMNS[:2], COLUMNS}:
        found = ",".join(lines[0]) if lines else "nothing"
        raise ValueError(f"{path}: the first line is '{found[:60]}': give t_s, t_s,budget_ms or t_s,budget_ms,rows")
    read = [_line(path, number, fields, budget_ms) for number, fields in enumerate(lines[1:], 2) if fields]
    if not read:
        raise ValueError(f"{path} has no request: give at least one line below the heading")
    read.sort(key=lambda one: one[0])
    times, budgets, rows = zip(*read, strict=True)
    return Trace(np.array(times), np.array(budgets), np.array(rows, dtype=np.int64))


def _line(path: Path, number: int, fields: Sequence[str], budget_ms: float) -> tuple[float, float, int]:
    where = f"{path}, line {number}"
    if len(fields) > len(COLUMNS):
        raise ValueError(f"{where} has {len(fields)} fields: give at most {len(COLUMNS)}")
    given = [field.strip() for field in fields]
    try:
        at_s = float(given[0])
        budget = float(given[1]) if len(given) > 1 and given[1] else budget_ms
        rows = int(given[2]) if len(given) > 2 and given[2] else 1
    except ValueError:
        raise ValueError(f"{where} is '{','.join(given)[:60]}': give numbers") from None
    if not (math.isfinite(at_s) and at_s >= 0 and math.isfinite(budget) and budget > 0 and rows >= 1):
        raise ValueError(f"{where} is '{','.join(given)[:60]}': give t_s >= 0, budget_ms > 0 and rows >= 1")
    return at_s, budget, rows
