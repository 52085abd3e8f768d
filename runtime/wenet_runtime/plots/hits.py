"""Budgets over time: which share of the requests was answered in time, and what became of the others."""

from typing import Any, List

from wenet_runtime.plots.figure import OUTCOME_COLOURS, NothingToDraw, Picture, blank, legend, percents
from wenet_runtime.plots.story import LATE, OUTCOMES, WITHIN, Story, binned


def draw(story: Story) -> Picture:
    """Above, the share of those with a budget that met it; below, all requests by what became of them."""
    if not story.events:
        raise NothingToDraw("there are no requests")
    width_s, slots = binned(story.events)
    figure, (above, below) = blank(2, stacked=True, size=(7.2, 4.6))
    numbers = sorted(slots)
    starts_s = [number * width_s for number in numbers]
    hits = [_hits(slots[number]) for number in numbers]
    middles = [(start_s + width_s / 2, share) for start_s, share in zip(starts_s, hits) if share is not None]
    if middles:
        above.plot(*zip(*middles), color=OUTCOME_COLOURS[WITHIN], marker="o", markersize=3, linewidth=1.2)
    else:
        above.text(0.5, 0.5, "no request had a budget", transform=above.transAxes, ha="center")
    above.set_ylim(-0.03, 1.03)
    percents(above.yaxis)
    above.set_ylabel("in time, of those\nwith a budget")
    above.set_title("Budgets met over time")
    rows: List[List[Any]] = []
    counts = {outcome: [sum(one.outcome == outcome for one in slots[number]) for number in numbers]
              for outcome in OUTCOMES}  # fmt: skip
    floor = [0.0] * len(numbers)
    for outcome in OUTCOMES:
        if not any(counts[outcome]):
            continue
        rates = [count / width_s for count in counts[outcome]]
        label = {WITHIN: "answered", LATE: "answered late"}.get(outcome, outcome)
        below.bar(
            starts_s, rates, width_s, floor, align="edge", color=OUTCOME_COLOURS[outcome], label=label, linewidth=0
        )
        floor = [low + rate for low, rate in zip(floor, rates)]
    below.set_ylabel("requests per second")
    below.set_xlabel(f"seconds (slots of {width_s:g} s)")
    legend(below)
    for at, start_s in enumerate(starts_s):
        rows.append([start_s, hits[at], *(counts[outcome][at] for outcome in OUTCOMES)])
    return Picture(figure, ("from_s", "in_time_share", *OUTCOMES), rows)


def _hits(events: Any) -> Any:
    asked = [one for one in events if one.budget_ms is not None]
    return sum(one.outcome == WITHIN for one in asked) / len(asked) if asked else None
