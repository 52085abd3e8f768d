from benchmarks.simulator.players.static import Static
from benchmarks.simulator.speed import Timed, decision_us, seconds
from benchmarks.simulator.world import play
from tests.benchmarks.simulator.worlds import world


def test_every_decision_is_timed_once():
    timed = Timed(Static(0))
    played = play(world([0.0, 0.001, 0.5], 100), timed)
    assert played.runs == 3
    assert {name: len(taken) for name, taken in timed.taken_ns.items()} == {"submit": 3, "next": 3, "finished": 3}


def test_decisions_have_percentiles():
    found = decision_us(200, 0)
    assert set(found) == {"submit", "next", "finished"}
    assert all(0 < one["p50"] <= one["p99"] for one in found.values())


def test_a_simulation_is_timed_with_the_simplest_player_and_ours():
    assert set(seconds(200, 0)) == {"simplest", "ours"}
