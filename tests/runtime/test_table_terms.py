"""A table's terms hold every layer once, and pairs of layers that run one after the other."""

import dataclasses

from tests.supernets import bottlenecks, make_supernet
from wenet_runtime.table_terms import terms_of


def test_every_layer_has_a_term_in_the_supernets_order_and_lies_in_one_block() -> None:
    supernet = make_supernet()
    terms = terms_of(supernet)
    assert [layer.name for layer in terms.layers] == [layer.name for layer in supernet.layers]
    assert sorted(name for block in terms.blocks for name in block) == sorted(layer.name for layer in supernet.layers)


def test_pairs_are_layers_that_follow_one_another_in_a_segment() -> None:
    pairs = [(pair.first, pair.second) for pair in terms_of(make_supernet()).pairs]
    assert ("a.expand", "a.project") in pairs
    assert ("b.conv1", "b.conv2") in pairs
    assert ("b.conv2", "b.conv3") in pairs
    assert ("a.project", "b.conv1") not in pairs
    assert all(sum(name in pair for pair in pairs) <= 2 for name in dict(pairs))


def test_pairs_keep_the_supernets_order_whatever_order_they_run_in() -> None:
    supernet = bottlenecks(32)
    turned = dataclasses.replace(supernet, layers=supernet.layers[::-1])
    (pair,) = terms_of(turned).pairs
    assert (pair.first, pair.second) == ("0.b", "0.a")


def test_layers_of_one_shape_are_of_one_kind_and_others_are_not() -> None:
    terms = terms_of(bottlenecks(32, 32, 64))
    kinds = {layer.name: layer.kind for layer in terms.layers}
    assert kinds["0.a"] == kinds["1.a"] != kinds["2.a"]
    assert terms.pairs[0].kind == terms.pairs[1].kind != terms.pairs[2].kind


def test_arithmetic_counts_the_places_of_the_image() -> None:
    macs = {layer.name: layer.macs for layer in terms_of(make_supernet()).layers}
    assert macs["b.conv1"] == 32 * 32 * 64
    assert macs["b.conv2"] == 32 * 32 * 9 * 16
    assert macs["hidden"] == 64 * 16
