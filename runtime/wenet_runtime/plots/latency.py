"""Latency: which share of the requests was answered within how long, and where the budgets lie."""

from collections import Counter
from typing import Any, List, Optional

import numpy as np

from wenet_runtime.plots.figure import COLOURS, GREY, NothingToDraw, Picture, blank, legend, plain_numbers
from wenet_runtime.plots.figure import percents as as_percents
from wenet_runtime.plots.story import Event, Story

MOST_BUDGETS = 5
MOST_STEPS = 2000  # of a curve: finer ones only make the file large


def draw(story: Story) -> Picture:
    """One curve for each budget, of all its requests: what is never answered keeps it from reaching 100 %."""
    events = story.events
    if not any(one.latency_ms is not None for one in events):
        raise NothingToDraw("no request was answered")
    counts = Counter(one.budget_ms for one in events)
    budgets = [budget_ms for budget_ms, _ in counts.most_common(MOST_BUDGETS)]
    figure, (axis,) = blank()
    rows: List[List[Any]] = []
    for number, budget_ms in enumerate(sorted(budgets, key=lambda one: (one is None, one))):
        colour = GREY if budget_ms is None else COLOURS[number % len(COLOURS)]
        _curve(axis, [one for one in events if one.budget_ms == budget_ms], budget_ms, colour, rows)
    axis.set_xscale("log")
    plain_numbers(axis.xaxis)
    axis.set_ylim(0, 1.02)
    as_percents(axis.yaxis)
    axis.set_xlabel("latency, ms")
    axis.set_ylabel("answered within, of all requests")
    axis.set_title("Latency of the answers; dashed: the budget")
    left_out = sum(counts.values()) - sum(counts[one] for one in budgets)
    legend(axis, title=f"{left_out} of other budgets not shown" if left_out else "")
    return Picture(figure, ("budget_ms", "latency_ms", "share"), rows)


def _curve(axis: Any, events: List[Event], budget_ms: Optional[float], colour: str, rows: List[List[Any]]) -> None:
    took_ms = np.sort([one.latency_ms for one in events if one.latency_ms is not None])
    if len(took_ms) == 0:
        return
    shares = np.arange(1, len(took_ms) + 1) / len(events)
    kept = np.unique(np.linspace(0, len(took_ms) - 1, min(MOST_STEPS, len(took_ms))).round().astype(int))
    rows += [[budget_ms, float(took_ms[one]), float(shares[one])] for one in kept]
    within = "" if budget_ms is None else f": {float((took_ms <= budget_ms).sum()) / len(events):.1%} in time"
    label = "no budget" if budget_ms is None else f"{budget_ms:g} ms{within}"
    axis.step(took_ms[kept], shares[kept], where="post", color=colour, label=label, linewidth=1.6)
    if budget_ms is not None:
        axis.axvline(budget_ms, color=colour, linestyle="--", linewidth=1.0)
