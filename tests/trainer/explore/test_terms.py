import random

import numpy as np
import pytest

from tests.trainer.explore.toys import every, space, table, whole_terms
from wenet_runtime.additive import AdditiveCost, PairTerm
from wenet_trainer.explore.terms import of_cost, shape_of
from wenet_trainer.space import SearchSpace


def test_a_table_of_layers_as_one_of_knobs_says_the_same_of_every_configuration():
    of = space((4, 3, 2, 4))
    cost = table(of, random.Random(0), 30.0)
    vectors = every(shape_of(of))
    expected = [cost.of(of.config(vector)) for vector in vectors.tolist()]
    assert of_cost(cost, of).of(vectors) == pytest.approx(expected)


def test_pairs_inside_a_knob_backwards_and_with_layers_that_no_knob_moves_are_counted():
    of = SearchSpace({"a": (1, 2, 4), "b": (1, 2), "c": (1, 2, 4), "still": (1,)}, (("a", "b"), ("c",)))
    terms = {name: {groups: -1.0 * groups for groups in levels} for name, levels in of.allowed.items()}
    pairs = (
        PairTerm("a", "b", {"2.2": 5.0, "4.2": 7.0}),
        PairTerm("c", "a", {"2.4": 11.0, "4.1": 0.25}),
        PairTerm("b", "still", {"2.1": 0.5}),
        PairTerm("still", "still", {"1.1": 0.125}),
    )
    cost = AdditiveCost(100.0, terms, pairs)
    found = of_cost(cost, of)
    assert list(found.pairs) == [(0, 1)]
    vectors = every(shape_of(of))
    assert found.of(vectors) == pytest.approx([cost.of(of.config(vector)) for vector in vectors.tolist()])
    wrong = of_cost(AdditiveCost(100.0, terms, pairs[:1]), of)
    assert not np.allclose(wrong.of(vectors), found.of(vectors))


def test_sums_add_up_and_scale():
    rng = np.random.default_rng(0)
    one, other = (whole_terms((3, 2, 4), rng, pairs) for pairs in ([(0, 1)], [(0, 1), (1, 2)]))
    vectors = every((3, 2, 4))
    assert np.array_equal(one.times(2.0).plus(other).of(vectors), 2 * one.of(vectors) + other.of(vectors))


def test_a_chain_keeps_neighbours_and_spreads_what_depends_on_one_of_two_others():
    rng = np.random.default_rng(1)
    neighbours = whole_terms((3, 2, 4), rng, [(0, 1), (1, 2)])
    vectors = every((3, 2, 4))
    assert np.array_equal(neighbours.chain().of(vectors), neighbours.of(vectors))
    apart = whole_terms((3, 2, 4), rng, [(0, 2)])
    apart.pairs[0, 2][:] = apart.pairs[0, 2][:, :1] + apart.pairs[0, 2][:1]
    assert apart.chain().pairs == {}
    assert apart.chain().of(vectors) == pytest.approx(apart.of(vectors))
