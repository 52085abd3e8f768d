import numpy as np
import pytest

from benchmarks.simulator import families
from benchmarks.simulator.device import paper
from benchmarks.simulator.families import ARRIVALS, DISTURBANCES, arrival_cases, cases


def test_every_family_of_the_study_is_there_and_every_case_has_its_own_name():
    found = cases(paper())
    expected = {*ARRIVALS, *DISTURBANCES, "mixed budgets", "shared core", "batches"}
    assert {case.family for case in found} == expected
    assert len({case.name for case in found}) == len(found)


def test_loads_are_shares_of_the_smallest_modes_capacity():
    for case in arrival_cases(paper(), (0.5,)):
        world = case.world(0, 20_000)
        rate = len(world.trace) / world.trace.arrivals_s[-1]
        assert rate * world.device.fastest_ms / 1e3 == pytest.approx(0.5, rel=0.12), case.family


def test_only_one_budget_without_batches_is_bounded_by_the_clairvoyant():
    unbounded = {case.family for case in cases(paper()) if not case.bounded}
    assert unbounded == {"mixed budgets", "batches"}


def test_a_seed_is_a_world_and_another_seed_another():
    case = cases(paper())[0]
    one, same, other = case.world(1, 50), case.world(1, 50), case.world(2, 50)
    assert (one.trace.arrivals_s == same.trace.arrivals_s).all()
    assert (one.jitter == same.jitter).all()
    assert (one.trace.arrivals_s != other.trace.arrivals_s).any()


def test_budgets_are_multiples_of_the_full_modes_time():
    plain, mixed = (next(c for c in cases(paper()) if c.family == name) for name in ("Poisson", "mixed budgets"))
    assert set(plain.world(0, 20).trace.budgets_ms) == {1.5 * 203.38}
    assert set(np.unique(mixed.world(0, 500).trace.budgets_ms)) == {one * 203.38 for one in families.MIXED[0]}


def test_steps_are_many_within_a_trace():
    steps = next(case for case in cases(paper()) if case.family == "steps")
    world = steps.world(0, 5000)
    assert sum(at < world.trace.arrivals_s[-1] for at in world.disturbance.worse_s) >= 4
