"""Modes over time: which share of the requests each mode answered."""

from wenet_runtime.plots.figure import NothingToDraw, Picture, blank, legend, mode_colours, percents
from wenet_runtime.plots.story import Story, binned

NONE = "none"


def draw(story: Story) -> Picture:
    """Stacked shares, the most accurate mode below; grey is what no mode answered."""
    if not any(one.mode is not None for one in story.events):
        raise NothingToDraw("no mode answered")
    width_s, slots = binned(story.events)
    numbers = sorted(slots)
    starts_s = [number * width_s for number in numbers]
    met = {one.mode for one in story.events}
    modes = [mode for mode in story.mode_ids if mode in met]
    colours = mode_colours(story.mode_ids)
    accuracies = {one.id: one.accuracy for one in story.modes}
    figure, (axis,) = blank()
    floor = [0.0] * len(numbers)
    shares = {}
    for mode in [*modes, None]:
        shares[mode] = [sum(one.mode == mode for one in slots[at]) / len(slots[at]) for at in numbers]
        if mode is None and not any(shares[mode]):
            continue
        if mode is None:
            label, colour = "no answer", "#d9d9d9"
        else:
            label, colour = mode + (f" ({accuracies[mode]:.1%})" if mode in accuracies else ""), colours[mode]
        axis.bar(starts_s, shares[mode], width_s, floor, align="edge", color=colour, label=label, linewidth=0)
        floor = [low + share for low, share in zip(floor, shares[mode])]
    axis.set_ylim(0, 1)
    percents(axis.yaxis)
    axis.set_ylabel("of the requests")
    axis.set_xlabel(f"seconds (slots of {width_s:g} s)")
    axis.set_title("Which mode answered" + ("; in brackets: its accuracy" if accuracies else ""))
    legend(axis)
    rows = [[starts_s[at], *(shares[mode][at] for mode in [*modes, None])] for at in range(len(numbers))]
    return Picture(figure, ("from_s", *modes, NONE), rows)
