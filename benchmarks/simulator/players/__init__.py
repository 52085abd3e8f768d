"""The players by name: ours and what it is held against."""

from collections.abc import Callable, Mapping

from benchmarks.simulator.players.alert import Alert
from benchmarks.simulator.players.base import Player, Setup
from benchmarks.simulator.players.ours import Ours
from benchmarks.simulator.players.reactive import Reactive
from benchmarks.simulator.players.slackfit import SlackFit
from benchmarks.simulator.players.static import Static

ATTAINMENT, STRICT_ATTAINMENT = 0.99, 0.999
OURS, STRICT = "ours", "ours, asked for 99.9 %"
SMALLEST = "always smallest"
RIVALS = ("SlackFit", "ALERT", "reactive")

PLAYERS: Mapping[str, Callable[[Setup], Player]] = {
    OURS: lambda setup: Ours(setup, ATTAINMENT),
    STRICT: lambda setup: Ours(setup, STRICT_ATTAINMENT),
    "SlackFit": SlackFit,
    "ALERT": lambda setup: Alert(setup, ATTAINMENT),
    "ALERT, expected accuracy": lambda setup: Alert(setup, None),
    "reactive": Reactive,
    SMALLEST: lambda setup: Static(0),
}


def static_players(setup: Setup) -> dict[str, Player]:
    """A server for every single mode."""
    return {f"static {mode.id}": Static(number) for number, mode in enumerate(setup.device.modes) if number}
