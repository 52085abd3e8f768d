"""What is measured follows from the seed: distinct, allowed, the uniform configurations first."""

from itertools import islice

from tests.supernets import bottlenecks, make_supernet, uniform
from wenet_runtime.table_design import configurations
from wenet_runtime.table_terms import LayerTerm, Terms, terms_of


def test_the_uniform_configurations_come_first_but_for_the_full_network() -> None:
    supernet = make_supernet()
    first = list(islice(configurations(terms_of(supernet), 0), 4))
    assert first == [uniform(supernet, level) for level in (2, 4, 8, 16)]


def test_configurations_are_distinct_and_allowed_and_never_the_full_network() -> None:
    supernet = make_supernet()
    terms = terms_of(supernet)
    drawn = list(islice(configurations(terms, 3), 150))
    assert len({terms.key(one) for one in drawn}) == 150
    assert uniform(supernet, 1) not in drawn
    for groups in drawn:
        assert all(groups[layer.name] in layer.groups for layer in supernet.layers)


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    terms = terms_of(make_supernet())
    one, same, other = (list(islice(configurations(terms, seed), 40)) for seed in (1, 1, 2))
    assert one == same
    assert one[4:] != other[4:]


def test_blocks_of_one_level_and_layers_of_two_neighbouring_levels_are_among_them() -> None:
    terms = terms_of(bottlenecks(32, 32, 32, 32))
    drawn = list(islice(configurations(terms, 0), 4, 64))
    by_block = [all(len({one[name] for name in block}) == 1 for block in terms.blocks) for one in drawn]
    neighbours = [max(one.values()) == 2 * min(one.values()) for one in drawn]
    assert sum(by_block) >= 10
    assert sum(neighbours) >= 10


def test_a_small_space_is_exhausted_and_then_ends() -> None:
    layers = tuple(LayerTerm(name, (1, 2), "k", 1.0) for name in "ab")
    drawn = list(configurations(Terms(layers, (), (("a", "b"),)), 0))
    assert sorted(tuple(one.values()) for one in drawn) == [(1, 2), (2, 1), (2, 2)]
