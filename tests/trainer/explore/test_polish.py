import numpy as np

from tests.trainer.explore.toys import Toy
from wenet_trainer.explore.knowledge import Learner
from wenet_trainer.explore.ledger import Ledger
from wenet_trainer.explore.polish import next_steps, single_changes
from wenet_trainer.explore.problem import Limits


def begun(toy):
    learner = Learner(toy.problem(), Ledger(toy.problem()))
    return learner, learner.learn()


def test_single_changes_are_all_that_differ_in_one_knob():
    parents = np.array([[0, 1, 0], [2, 0, 1]])
    changed, origins = single_changes(parents, (3, 2, 2))
    assert len(changed) == 2 * (2 + 1 + 1)
    assert all((row != parents[origin]).sum() == 1 for row, origin in zip(changed, origins, strict=True))
    assert len({(tuple(row), origin) for row, origin in zip(changed.tolist(), origins.tolist(), strict=True)}) == 8


def test_the_next_steps_are_new_distinct_and_as_many_as_asked_for():
    toy = Toy()
    learner, known = begun(toy)
    steps = next_steps(known, learner.wants, learner.shape, np.ones(1), 10)
    assert len(steps) == 10
    assert len({tuple(row) for row in steps.tolist()}) == 10
    assert known.unknown(steps).all()


def test_steps_beyond_the_limits_are_not_taken():
    toy = Toy(limits=Limits(max_ms=16.0))
    learner, known = begun(toy)
    steps = next_steps(known, learner.wants, learner.shape, np.ones(1), 10)
    assert len(steps) == 10
    assert all(toy.cost(toy.space.config(row)).latency_ms <= 16.0 for row in steps.tolist())


def test_where_nothing_is_new_there_is_no_step():
    toy = Toy(shape=(2, 2))
    learner, _ = begun(toy)
    learner.ask(np.array([[0, 1], [1, 0]]), "random")
    assert len(next_steps(learner.learn(), learner.wants, learner.shape, np.ones(1), 10)) == 0


def test_where_the_predictor_was_far_too_hopeful_steps_are_single_changes_of_what_is_known():
    learner, known = begun(Toy())
    steps = next_steps(known, learner.wants, learner.shape, np.ones(1), 10, optimism=10.0)
    assert len(steps)
    for step in steps:
        assert ((known.vectors != step).sum(axis=1) == 1).any()
    hopeful = next_steps(known, learner.wants, learner.shape, np.ones(1), 10)
    assert any((known.vectors != step).sum(axis=1).min() > 1 for step in hopeful)
