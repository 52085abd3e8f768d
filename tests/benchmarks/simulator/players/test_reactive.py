from benchmarks.simulator.players.reactive import COOL_DOWN_S, Reactive
from tests.benchmarks.simulator.worlds import setup


def run(player, index, start_s, took_ms, budget_ms):
    player.arrive(index, start_s, budget_ms, 1)
    given = player.next(start_s)
    assert given is not None
    _, mode = given
    player.finished((index,), mode, start_s, start_s + took_ms / 1e3, None)
    return mode


def test_it_begins_with_the_largest_and_steps_down_when_over_the_budget():
    player = Reactive(setup())
    assert run(player, 0, 0.0, 60, 50) == 1
    assert run(player, 1, 0.1, 10, 50) == 0


def test_it_steps_up_only_after_the_cool_down():
    player = Reactive(setup())
    run(player, 0, 0.0, 60, 50)
    assert run(player, 1, 0.1, 10, 50) == 0
    assert run(player, 2, 0.06 + COOL_DOWN_S, 10, 50) == 0
    assert run(player, 3, 0.2 + COOL_DOWN_S, 10, 50) == 1


def test_between_the_thresholds_it_stays():
    player = Reactive(setup())
    modes = [run(player, index, 2.0 * index, 40, 50) for index in range(20)]
    assert set(modes) == {1}


def test_expired_requests_count_as_too_slow():
    player = Reactive(setup())
    player.arrive(0, 0.0, 10, 1)
    player.arrive(1, 0.0, 500, 1)
    assert player.next(0.1) == ((1,), 0)
