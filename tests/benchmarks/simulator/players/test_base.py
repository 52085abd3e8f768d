from benchmarks.simulator.players.base import Waiting


def waiting(*budgets_ms, rows=1):
    found = Waiting()
    for index, budget_ms in enumerate(budgets_ms):
        found.add(index, 0.0, budget_ms, rows)
    return found


def test_the_earliest_deadline_comes_first_and_equal_ones_in_order():
    queue = waiting(50, 30, 30)
    assert [queue.take() for _ in range(3)] == [1, 2, 0]


def test_what_has_expired_is_dropped():
    queue = waiting(50, 30)
    assert queue.first(0.030) == (0.05, 0, 50, 1)
    assert len(queue) == 1
    assert queue.first(0.060) is None


def test_a_batch_takes_no_more_rows_than_it_may():
    assert waiting(10, 20, 30, rows=2).take_rows(5) == (0, 1)
    assert waiting(10, rows=4).take_rows(1) == (0,)
