"""What the demo must show, held against what it measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wenet_trainer.demo.budgets import Outcome

FULL_ACCURACY = 0.93
CLEAN_ACCURACY = 0.97
APART = 0.05
# Four to seven, as the machine measures: where int8 is quick, little is left between it and the full network.
MODES = 4
SMALLEST_MACS = 0.35


@dataclass(frozen=True)
class Goal:
    """One claim: what was found, what was wanted."""

    name: str
    found: str
    wanted: str
    met: bool


def goals(
    modes: Sequence[dict[str, Any]], *, full: Outcome, clean: Outcome, fastest: Outcome, budgets: Sequence[Outcome]
) -> list[Goal]:
    """Every goal of the demo.

    Args:
        modes: the modes of GET /modes, most accurate first.
        full, clean: the full network pinned, on the cluttered and on the clean test images.
        fastest: the fastest mode pinned, on the cluttered ones.
        budgets: the outcomes of the budgets.
    """
    macs = modes[-1]["macs"] / modes[0]["macs"]
    time = modes[-1]["latency_ms"]["p50"] / modes[0]["latency_ms"]["p50"]
    apart = full.accuracy - fastest.accuracy
    favourites = sorted({next(iter(outcome.modes)) for outcome in budgets})
    return [
        _at_least("test accuracy of the full network", full.accuracy, FULL_ACCURACY),
        _at_least("the same on clean digits", clean.accuracy, CLEAN_ACCURACY),
        Goal("full above the fastest mode", f"{100 * apart:.1f} points", f"≥ {100 * APART:.0f}", apart >= APART),
        Goal("modes on the frontier", str(len(modes)), f"≥ {MODES}", len(modes) >= MODES),
        Goal("MACs of the smallest, of full", f"{macs:.2f}", f"≤ {SMALLEST_MACS}", macs <= SMALLEST_MACS),
        Goal("time of the smallest, of full", f"{time:.2f}", "< 1", time < 1),
        Goal("modes that budgets prefer", " ".join(favourites), "≥ 2 of them", len(favourites) >= 2),
    ]


def _at_least(name: str, share: float, wanted: float) -> Goal:
    return Goal(name, f"{100 * share:.1f} %", f"≥ {100 * wanted:.0f} %", share >= wanted)
