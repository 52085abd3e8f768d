import random

from benchmarks import searching
from benchmarks.searching import TABLE, compare, study
from benchmarks.synthetic_spaces import REFERENCE, Generator, draw
from wenet_trainer.explore.paper import explore as algorithm2
from wenet_trainer.explore.table import explore as table


def few(monkeypatch):
    monkeypatch.setattr(searching, "ARMS", {"paper": (algorithm2, 0), TABLE: (table, 60), "table_500": (table, 90)})
    return draw(Generator(knobs=5, strength=0.25), random.Random(0)).problem


def test_the_best_known_is_at_least_what_any_search_found(monkeypatch):
    problem = few(monkeypatch)
    arms = compare(problem, REFERENCE, seed=0, long=0)
    assert [arm.method for arm in arms] == ["paper", TABLE, "table_500", "table_cheap"]
    assert all(0.5 < arm.share <= 1 for arm in arms)
    assert arms[1].evaluations <= 60
    beside_long = compare(problem, REFERENCE, seed=0, long=400)
    assert all(one.share >= other.share for one, other in zip(arms, beside_long, strict=True))


def test_figures_of_a_study_begin_with_its_name(monkeypatch):
    figures, samples = study(few(monkeypatch), "real_tiny", REFERENCE, goal_of=TABLE, long=200)
    assert all(name.startswith("real_tiny_") for name in figures)
    assert figures["real_tiny_table_250_share"].goal == ">= 0.98"
    assert figures["real_tiny_paper_share"].goal is None
    assert len(samples["real_tiny"]) == 4
