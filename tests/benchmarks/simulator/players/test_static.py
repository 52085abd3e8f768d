from benchmarks.simulator.players.static import Static


def test_it_runs_its_mode_one_by_one_and_drops_what_has_expired():
    player = Static(3)
    assert player.arrive(0, 0.0, 10, 1)
    assert player.arrive(1, 0.0, 100, 1)
    assert player.next(0.05) == ((1,), 3)
    assert player.next(0.05) is None
