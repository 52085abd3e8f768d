import itertools

import pytest

from tests.trainer.explore.toys import Toy
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.ledger import Ledger, refuse_unreachable
from wenet_trainer.explore.problem import Limits, Problem


def test_every_configuration_is_asked_for_once_and_kept_in_order():
    toy = Toy()
    ledger = Ledger(toy.problem())
    full, smallest = toy.space.full(), toy.space.smallest()
    first = ledger.ask([full, smallest, full], "uniform")
    assert [one.groups for one in first] == [full, smallest, full]
    again = ledger.ask([smallest, toy.space.uniform(2)], "polish")
    assert toy.calls == [[full, smallest], [toy.space.uniform(2)]]
    assert [one.found_by for one in again] == ["uniform", "polish"]
    assert [one.groups for one in ledger.found().seen] == [full, smallest, toy.space.uniform(2)]


def test_what_exceeds_the_bound_is_not_evaluated():
    toy = Toy(evaluations=2)
    ledger = Ledger(toy.problem())
    assert len(ledger.ask(toy.space.uniforms(), "uniform")) == 2
    assert ledger.left == 0
    assert ledger.ask([toy.space.smallest()], "uniform") == []
    assert len(Ledger(toy.problem(), bounded=False).ask(toy.space.uniforms(), "uniform")) == 4


def test_the_searchs_own_time_leaves_evaluations_out():
    toy = Toy()
    ticks = itertools.count()  # the clock is read at the start, before and after each call, and at the end
    ledger = Ledger(toy.problem(), clock=lambda: float(next(ticks)))
    ledger.ask([toy.space.full()], "uniform")
    ledger.ask([toy.space.smallest()], "uniform")
    assert ledger.found().search_seconds == 5 - 2


def test_answers_that_do_not_match_the_questions_are_refused():
    toy = Toy()
    ledger = Ledger(Problem(toy.space, lambda configs: [0.5], toy.cost))
    with pytest.raises(ExploreError, match="2 accuracies were asked for, 1 came"):
        ledger.ask([toy.space.full(), toy.space.smallest()], "uniform")


def test_a_threshold_that_nothing_reaches_is_refused():
    toy = Toy()
    seen = Ledger(toy.problem()).ask(toy.space.uniforms(), "uniform")
    refuse_unreachable(seen, Limits(min_accuracy=0.9))
    with pytest.raises(
        ExploreError, match=r"no network reaches the threshold 0.9500: of 4 the most accurate has 0.9000"
    ):
        refuse_unreachable(seen, Limits(min_accuracy=0.95))
