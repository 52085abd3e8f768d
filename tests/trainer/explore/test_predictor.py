import numpy as np
import pytest

from tests.trainer.explore.toys import every
from wenet_trainer.explore.predictor import TRANSFORMS, Evidence, Freedom, choose, left_out, refit

SHAPE = (4, 4, 3, 4, 4, 2, 4, 4)
UNIFORMS = np.array([[min(level, top - 1) for top in SHAPE] for level in range(4)], dtype=np.intp)


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    others = np.stack([rng.integers(0, top, count) for top in SHAPE], axis=1)
    return np.unique(np.concatenate([UNIFORMS, others]), axis=0).astype(np.intp)


def losses(vectors, seed=0, interaction=0.0):
    rng = np.random.default_rng(seed)
    alone = [np.concatenate([[0.0], np.cumsum(rng.random(top - 1))]) * rng.lognormal(0, 0.8) for top in SHAPE]
    each = np.stack([one[vectors[:, knob]] for knob, one in enumerate(alone)], axis=1)
    pulls = rng.uniform(-1, 1, len(SHAPE) - 1)
    both = (pulls * np.sqrt(each[:, 1:] * each[:, :-1])).sum(axis=1)
    return 0.02 * (each.sum(axis=1) + interaction * both)


def held_out(values_of, count, seed=0):
    """Root mean squared error on configurations not fitted to, over their standard deviation."""
    vectors, others = drawn(count, seed), drawn(300, seed + 100)
    found = choose(Evidence(SHAPE, vectors, values_of(vectors), UNIFORMS), tuple(TRANSFORMS))
    missed = found.of(others) - values_of(others)
    return float(np.sqrt(np.mean(missed**2)) / values_of(others).std()), found


def test_a_sum_of_terms_is_learned_from_a_few_configurations():
    missed, found = held_out(lambda vectors: 0.9 - losses(vectors), 60)
    assert missed < 0.02
    assert found.transform == "plain"


def test_what_neighbours_do_to_each_other_is_learned_too():
    missed, found = held_out(lambda vectors: 0.9 - losses(vectors, interaction=0.8), 150)
    assert missed < 0.05
    assert found.terms.pairs


@pytest.mark.parametrize("name", ["log error", "logit"])
def test_the_scale_on_which_terms_add_up_is_recognised(name):
    missed, found = held_out(lambda vectors: TRANSFORMS[name].back(3.0 - 4 * losses(vectors)), 80)
    assert found.transform == name
    assert missed < 0.05


def test_the_uniform_modes_alone_give_every_knob_its_equal_part():
    uniforms = np.array([[level, level] for level in range(4)])
    found = choose(Evidence((4, 4), uniforms, np.array([0.9, 0.8, 0.6, 0.3]), uniforms), ["plain"])
    assert found.of(np.array([[1, 0], [0, 2]])) == pytest.approx([0.85, 0.75], abs=0.01)


@pytest.mark.parametrize("freedom", [Freedom(), Freedom(1.2, 0.4, 0.0, 0.0, 0.01), Freedom(0.3, 1.0, 0.4, 1.0, 0.001)])
def test_the_leave_one_out_error_is_that_of_leaving_each_out(freedom):
    """Of those outside the uniform modes, which the prior is made from."""
    vectors = drawn(25, 3)
    values = 0.9 - losses(vectors, interaction=0.5)
    like = choose(Evidence(SHAPE, vectors, values, UNIFORMS), ["plain"])
    like = type(like)(like.terms, "plain", freedom, 0.0)
    uniform = {tuple(row) for row in UNIFORMS.tolist()}
    order = [index for index, row in enumerate(vectors.tolist()) if tuple(row) in uniform]
    others = [index for index in range(len(vectors)) if index not in order]
    plain = []
    for index in others:
        rest = [one for one in range(len(vectors)) if one != index]
        without = refit(Evidence(SHAPE, vectors[rest], values[rest], UNIFORMS), like)
        plain.append(float(without.of(vectors[[index]])[0] - values[index]))
    found = left_out(Evidence(SHAPE, vectors, values, UNIFORMS), like)
    assert found[others] == pytest.approx(values[others] + np.array(plain), abs=1e-9)
    whole = refit(Evidence(SHAPE, vectors, values, UNIFORMS), like)
    assert whole.error == pytest.approx(float(np.sqrt(np.mean((found - values) ** 2))))


def test_a_cost_that_grows_with_the_groups_is_learned_too():
    vectors, others = drawn(120, 1), drawn(300, 101)
    found = choose(Evidence(SHAPE, vectors, 1.0 + losses(vectors), UNIFORMS), ["plain"])
    expected = 1.0 + losses(others)
    assert np.sqrt(np.mean((found.of(others) - expected) ** 2)) < 0.05 * expected.std()


def test_one_knob_is_enough():
    vectors = every((4,))
    values = np.array([0.9, 0.8, 0.7, 0.4])
    found = choose(Evidence((4,), vectors, values, vectors), tuple(TRANSFORMS))
    assert found.of(vectors) == pytest.approx(values, abs=0.02)
