import random

import numpy as np

from wenet_trainer.explore.draws import start

SHAPE = (5,) * 16
UNIFORMS = np.array([[level] * 16 for level in range(5)], dtype=np.intp)
COSTS = (203.4, 132.2, 127.4, 85.6, 43.4)


def test_draws_are_distinct_not_uniform_and_follow_the_seed():
    one, other = (start(SHAPE, UNIFORMS, COSTS, 60, random.Random(3)) for _ in range(2))
    assert np.array_equal(one, other)
    rows = {tuple(row) for row in one.tolist()}
    assert len(rows) == 60
    assert not rows & {tuple(row) for row in UNIFORMS.tolist()}
    assert not np.array_equal(one, start(SHAPE, UNIFORMS, COSTS, 60, random.Random(4)))


def test_draws_reach_costs_that_independent_ones_do_not():
    means = start(SHAPE, UNIFORMS, COSTS, 200, random.Random(0)).mean(axis=1)
    independent = np.random.default_rng(0).integers(0, 5, (200, 16)).mean(axis=1)
    assert means.max() - means.min() > 1.5 * (independent.max() - independent.min())


def test_every_level_of_every_knob_is_drawn_and_none_beyond():
    shape = (2, 5, 1, 3)
    uniforms = np.array([[min(level, top - 1) for top in shape] for level in range(5)], dtype=np.intp)
    drawn = start(shape, uniforms, COSTS, 20, random.Random(0))
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [list(range(top)) for top in shape]


def test_few_first_halves_serve_many_draws():
    drawn = start(SHAPE, UNIFORMS, COSTS, 60, random.Random(1))
    assert len({tuple(row[:8]) for row in drawn.tolist()}) <= 60 / 4


def test_a_space_smaller_than_the_start_gives_what_there_is():
    uniforms = np.array([[0, 0], [1, 1]], dtype=np.intp)
    drawn = start((2, 2), uniforms, (2.0, 1.0), 50, random.Random(0))
    assert sorted(drawn.tolist()) == [[0, 1], [1, 0]]
    assert start((2, 2), uniforms, (1.0, 1.0), -3, random.Random(0)).shape == (0, 2)
