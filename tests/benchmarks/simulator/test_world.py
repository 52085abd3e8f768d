import math

import numpy as np
import pytest

from benchmarks.simulator import disturbances
from benchmarks.simulator.device import Device
from benchmarks.simulator.noise import QUIET
from benchmarks.simulator.players.static import Static
from benchmarks.simulator.world import EXPIRED, IN_TIME, LATE, REFUSED, make_world, play
from tests.benchmarks.simulator.worlds import TWO, Scripted, world


def test_requests_wait_for_the_engine_and_are_judged_by_their_budget():
    player = Scripted([1, 0, 0])
    played = play(world([0.0, 0.001, 0.002], 45), player)
    assert played.latency_ms.tolist() == pytest.approx([30, 39, 48])
    assert played.outcome.tolist() == [IN_TIME, IN_TIME, LATE]
    assert played.mode.tolist() == [1, 0, 0]
    assert (played.switches, played.runs) == (1, 3)
    assert played.busy_s == pytest.approx(0.05)
    assert played.energy_mj == pytest.approx(50 * TWO.above_idle_w)


def test_arrivals_during_a_run_are_told_at_their_own_time_before_it_finishes():
    player = Scripted([0, 0])
    play(world([0.5, 0.505], 100), player)
    assert [one[:3] for one in player.seen] == [
        ("arrive", 0, 0.5), ("arrive", 1, 0.505), ("finished", 0, 0.5), ("finished", 1, 0.51),
    ]  # fmt: skip


def test_refused_and_never_run_requests_are_told_apart():
    player = Scripted([None, 0, 0])
    player.next = lambda now_s: None
    assert play(world([0.0, 0.1, 0.2], 50), player).outcome.tolist() == [REFUSED, EXPIRED, EXPIRED]


def test_the_slowdown_at_the_start_holds_for_the_whole_run():
    step = disturbances.steps(10, 1.0, (2.0,))  # slow from 0.5 s on
    player = Scripted([1, 0])
    played = play(world([0.49, 0.60], 100, disturbance=step), player)
    assert played.latency_ms.tolist() == pytest.approx([30, 20])


def test_a_player_may_ask_to_be_woken_and_is_woken_earlier_by_an_arrival():
    asked = []

    class Waits(Scripted):
        def next(self, now_s):
            asked.append(now_s)
            if len(self.queue) == 1 and now_s < 0.5:
                return 0.5
            return super().next(now_s)

    played = play(world([0.1, 0.3, 1.0], 1000), Waits([0, 0, 0]))
    assert asked[:3] == [0.0, 0.1, 0.3]
    assert played.latency_ms.tolist() == pytest.approx([210, 210, 10])


def test_a_meter_that_is_lost_tells_nothing():
    player = Scripted([0, 0])
    play(world([0.1, 0.6], 100, disturbance=disturbances.meter_loss(2, 1)), player)
    told = [one[4] for one in player.seen if one[0] == "finished"]
    assert told == [pytest.approx(10 * TWO.above_idle_w), None]


def test_notices_of_the_clock_reach_the_player_between_runs():
    player = Scripted([0, 0])
    play(world([0.1, 0.6], 100, disturbance=disturbances.clock(1, 1, noticed=True, factor=2.0)), player)
    assert ("clock", 0.5, 0.6) in player.seen


def test_a_batch_takes_its_rows_time_and_ends_for_all_at_once():
    device = Device("batches", "", TWO.modes, fixed_share=0.5)

    class Together(Scripted):
        def next(self, now_s):
            if len(self.queue) < 2:
                return None
            taken, self.queue = tuple(self.queue), []
            return taken, 0

    played = play(world([0.0, 0.0], 100, device=device, rows=[1, 2]), Together([0, 0]))
    assert played.latency_ms.tolist() == pytest.approx([20, 20])
    assert played.runs == 1


def test_all_players_meet_the_same_noise():
    one, other = (make_world(TWO, world([0.1, 0.2], 50).trace, disturbances.none(), QUIET, 7) for _ in range(2))
    assert (one.jitter == other.jitter).all()
    assert (one.stalls_ms == other.stalls_ms).all()
    assert one.jitter[0].tolist() != one.jitter[1].tolist()


def test_a_player_that_breaks_the_rules_is_named():
    class Twice(Scripted):
        def next(self, now_s):
            return (0,), 0

    with pytest.raises(ValueError, match="request 0, which does not wait"):
        play(world([0.0], 50), Twice([0]))

    class Past(Scripted):
        def next(self, now_s):
            return now_s - 1

    with pytest.raises(ValueError, match="give a later instant"):
        play(world([0.5], 50), Past([0]))


def test_an_empty_trace_is_played_without_anything_happening():
    played = play(world([], 50), Static(0))
    assert (played.runs, played.switches, played.span_s) == (0, 0, 0)


@pytest.mark.parametrize("mode", [0, 1])
def test_a_static_server_follows_lindleys_recursion(mode):
    random = np.random.default_rng(mode)
    arrivals = np.cumsum(random.exponential(0.05, 300))
    w = make_world(TWO, world(arrivals, 1e6).trace, disturbances.none(), QUIET, 3)
    service = w.service_ms(mode) + w.stalls_ms
    wait, waits = 0.0, []
    for gap, taken in zip(np.diff(arrivals, append=math.inf) * 1e3, service, strict=True):
        waits.append(wait)
        wait = max(0.0, wait + taken - gap)
    assert play(w, Static(mode)).latency_ms == pytest.approx(np.array(waits) + service)
