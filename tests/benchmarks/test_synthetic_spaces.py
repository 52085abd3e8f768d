import random

import numpy as np
import pytest

from benchmarks.synthetic_spaces import ACCURACIES, TIMES_MS, Generator, draw

GENERATORS = [
    Generator(),
    Generator(strength=0.25),
    Generator(strength=0.75),
    Generator(strength=0.75, far=True),
    Generator(strength=0.25, knobs=52),
]


@pytest.mark.parametrize("generator", GENERATORS)
def test_uniform_modes_are_those_of_the_papers_table(generator):
    instance = draw(generator, random.Random(3))
    problem = instance.problem(250)
    uniforms = instance.space.uniforms()
    assert problem.accuracies(uniforms) == pytest.approx(ACCURACIES)
    assert [problem.cost(one).latency_ms for one in uniforms] == pytest.approx(TIMES_MS)


def test_knobs_act_on_each_other_as_strongly_as_asked_for():
    def together(strength):
        instance = draw(Generator(strength=strength), random.Random(0))
        full = instance.space.full()
        found = []
        for one, other in zip(instance.space.knobs, instance.space.knobs[1:], strict=False):
            moved = [{**full, **dict.fromkeys(layers, 16)} for layers in ((), one, other, one + other)]
            losses = [ACCURACIES[0] - instance.accuracy(config) for config in moved]
            found.append((losses[3] - losses[1] - losses[2]) / np.sqrt(losses[1] * losses[2]))
        return np.abs(found)

    assert together(0.0) == pytest.approx(0, abs=1e-9)
    assert 0.1 < together(0.75).mean() < together(0.75).max() <= 0.75
    assert together(0.25).max() <= 0.25


@pytest.mark.parametrize("strength", [0.0, 0.75])
def test_nothing_drawn_at_random_beats_the_true_frontier(strength):
    instance = draw(Generator(strength=strength, knobs=6), random.Random(2))
    best = [(instance.table.of(one), instance.accuracy(one)) for one in instance.best()]
    rng = random.Random(0)
    step = (best[-1][0] - best[0][0]) / 500  # a few of the programme's bins
    for config in [*instance.space.uniforms(), *(instance.space.sample(rng) for _ in range(500))]:
        ms, accuracy = instance.table.of(config), instance.accuracy(config)
        assert accuracy <= max(value for cost, value in best if cost <= ms + step) + 1e-9


def test_instances_follow_the_seed():
    one, again, other = (draw(Generator(strength=0.75), random.Random(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one.losses != other.losses
