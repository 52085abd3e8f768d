"""The study as a picture: attainment against accuracy, a panel per family."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.simulator.figures import Interval
from benchmarks.simulator.players import OURS, PLAYERS
from benchmarks.simulator.study import Outcome
from wenet_trainer.plots import canvas, save

COLUMNS = 4
MARKERS = ("*", "p", "o", "s", "D", "v", "P")


def write_picture(outcomes: Sequence[Outcome], path: Path) -> None:
    """One panel per case: attainment (%) across, accuracy of what was answered in time (%) up, with 95 % intervals."""
    rows = -(-len(outcomes) // COLUMNS)
    figure = canvas(4 * COLUMNS, 3.2 * rows + 0.6)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in panels[len(outcomes) :]:
        panel.remove()
    for panel, outcome in zip(panels, outcomes, strict=False):
        for marker, name in zip(MARKERS, PLAYERS, strict=True):
            x = Interval.of([100 * score.attainment for score in outcome.scores[name]])
            y = Interval.of([100 * score.accuracy for score in outcome.scores[name]])
            panel.errorbar(
                x.mean, y.mean, xerr=x.half, yerr=y.half, fmt=marker, label=name, ms=11 if name == OURS else 6,
                zorder=3 if name == OURS else 2,
            )  # fmt: skip
        statics = [scores for name, scores in outcome.scores.items() if name.startswith("static")]
        panel.plot(
            [100 * fmean(score.attainment for score in scores) for scores in statics],
            [100 * Interval.of([score.accuracy for score in scores]).mean for scores in statics],
            "x", color="grey", label="static modes",
        )  # fmt: skip
        panel.plot(
            100 * fmean(outcome.oracle_attainment), 100 * fmean(outcome.oracle_accuracy), "^", color="black",
            label="clairvoyant",
        )  # fmt: skip
        panel.set_title(f"{outcome.case.family}, load {outcome.case.load:g}", fontsize=10)
        panel.grid(alpha=0.3)
    for panel in panels[max(0, len(outcomes) - COLUMNS) : len(outcomes)]:
        panel.set_xlabel("answered in time, % of arrivals")
    for panel in panels[: len(outcomes) : COLUMNS]:
        panel.set_ylabel("accuracy, %")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels))
    save(figure, path)
