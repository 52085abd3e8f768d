"""The demo's tables."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from wenet_trainer.demo.budgets import Outcome
from wenet_trainer.demo.contention import PROCESSES, Slice
from wenet_trainer.demo.goals import Goal


def print_modes(console: Console, modes: Sequence[dict[str, Any]]) -> None:
    """The table of modes, most accurate first, from GET /modes."""
    table = Table(title="modes, as measured on this machine")
    for column in ("mode", "groups per layer", "accuracy", "MMACs", "of full", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column in ("mode", "groups per layer") else "right")
    for mode in modes:
        table.add_row(
            mode["id"],
            _short(list(mode["groups"].values())),
            f"{100 * mode['accuracy']:.1f} %",
            f"{mode['macs'] / 1e6:.1f}",
            f"{mode['macs'] / modes[0]['macs']:.2f}",
            f"{mode['latency_ms']['p50']:.3f}",
            f"{mode['latency_ms']['p99']:.3f}",
        )
    console.print(table)


def _short(groups: Sequence[int]) -> str:
    """Runs of equal group counts: 1×4 16×8."""
    runs: list[list[int]] = []
    for count in groups:
        if runs and runs[-1][0] == count:
            runs[-1][1] += 1
        else:
            runs.append([count, 1])
    return " ".join(f"{count}×{length}" for count, length in runs)


def _modes_text(modes: dict[str, int]) -> str:
    total = sum(modes.values())
    return " ".join(f"{mode} {100 * count / total:.0f}%" for mode, count in list(modes.items())[:4])


def print_outcomes(console: Console, outcomes: Sequence[Outcome], count: int) -> None:
    """What each budget brought over the same images."""
    table = Table(title=f"{count} held-out test images over HTTP, by budget (end-to-end ms)")
    for column in ("budget", "ms", "modes that answered", "p50 ms", "p99 ms", "budget met", "test accuracy"):
        table.add_column(column, justify="left" if column in ("budget", "modes that answered") else "right")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            "–" if outcome.budget_ms is None else f"{outcome.budget_ms:.2f}",
            _modes_text(outcome.modes),
            f"{outcome.latency_ms:.2f}",
            f"{outcome.p99_ms:.2f}",
            "–" if outcome.met_share is None else f"{100 * outcome.met_share:.1f} %",
            f"{100 * outcome.accuracy:.1f} %",
        )
    console.print(table)


def print_goals(console: Console, goals: Sequence[Goal]) -> None:
    """What the demo must show, and whether it did."""
    table = Table(title="goals")
    for column in ("goal", "found", "wanted", "met"):
        table.add_column(column)
    for goal in goals:
        table.add_row(goal.name, goal.found, goal.wanted, "yes" if goal.met else "[bold]MISSED[/bold]")
    console.print(table)


def print_timeline(console: Console, slices: Sequence[Slice], budget_ms: float) -> None:
    """Second by second: how the choice moves under load, and returns."""
    table = Table(title=f"{PROCESSES} other processes on the engine's core, budget {budget_ms:.2f} ms")
    for column in ("second", "core", "requests", "modes that answered", "p50 ms", "slowdown", "budget met"):
        table.add_column(column, justify="left" if column in ("core", "modes that answered") else "right")
    for one in slices:
        table.add_row(
            f"{one.start_s:.0f}",
            one.state,
            str(one.requests),
            _modes_text(one.modes),
            f"{one.latency_ms:.2f}",
            f"{one.slowdown:.2f}",
            f"{100 * one.met_share:.1f} %",
        )
    console.print(table)
