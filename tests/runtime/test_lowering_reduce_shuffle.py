"""Between two grouped layers a shuffle is reduced to moving blocks, and the answer stays the same."""

from typing import Tuple

import numpy as np
import pytest

from tests.runtime.nets import Net, answers, kinds, same
from wenet_runtime.lowering.fold_shuffle import block_orders, fold_shuffle, pieces, reduce_shuffle, reduce_shuffles
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import shuffle_order


def grouped(channels: int, producers: int, consumers: int, shuffle_groups: int, *, between: bool = False) -> Graph:
    """conv → shuffle → conv, with a depthwise convolution and an activation on either side if `between`."""
    net = Net(channels)
    x = net.conv("input", "a", channels, channels, groups=producers)
    if between:
        x = net.op("Relu", [net.depthwise(x, "before", channels)], "relu")
    x = net.shuffle(x, "shuffle", channels, shuffle_groups)
    if between:
        x = net.op("Clip", [net.depthwise(x, "after", channels)], "clip")
    return net.graph([net.conv(x, "b", channels, channels, groups=consumers)])


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("pair", [(2, 2), (2, 4), (4, 2), (4, 4), (8, 2), (16, 16)])
@pytest.mark.parametrize("channels", [48, 64, 144])
def test_a_reduced_shuffle_answers_the_same_and_moves_fewer_pieces(
    channels: int, pair: Tuple[int, int], between: bool
) -> None:
    producers, consumers = pair
    graph = grouped(channels, producers, consumers, 16, between=between)
    before, order = answers(graph), graph.numbers["shuffle.order"]
    assert not fold_shuffle(graph, graph.node("shuffle"))
    reduced = reduce_shuffle(graph, graph.node("shuffle"))
    assert same(answers(graph), before)
    assert "Gather" in kinds(graph)
    left = graph.numbers[graph.node("shuffle").input[1]]
    if reduced:
        assert pieces(left) < pieces(order)
        assert pieces(left) <= producers * consumers
    else:
        assert np.array_equal(left, order)


def test_only_pairs_that_move_single_channels_are_left_as_they_are() -> None:
    moved = {
        pair: reduce_shuffle(graph, graph.node("shuffle"))
        for pair in ((2, 2), (4, 4), (16, 16))
        for graph in [grouped(256, *pair, 16)]
    }
    assert moved == {(2, 2): True, (4, 4): True, (16, 16): False}


def test_dropping_what_is_left_of_the_shuffle_changes_the_answer() -> None:
    graph = grouped(64, 4, 4, 16)
    before = answers(graph)
    reduce_shuffle(graph, graph.node("shuffle"))
    graph.bypass(graph.node("shuffle"))
    assert not same(answers(graph), before)


def test_block_sizes_are_counted_from_the_permutation() -> None:
    _, _, blocks = block_orders(shuffle_order(144, 16), 2, 2)
    ends = np.flatnonzero(np.diff(blocks) != 1) + 1
    sizes = np.diff(np.concatenate([[0], ends, [144]]))
    assert sorted(sizes) == [32, 32, 40, 40]
    _, _, blocks = block_orders(shuffle_order(64, 16), 16, 16)
    assert pieces(blocks) < 16 * 16  # most of the 256 blocks are empty: each producer reaches four consumers


@pytest.mark.parametrize("seed", range(20))
def test_the_orders_of_both_sides_and_the_blocks_make_up_the_permutation(seed: int) -> None:
    random = np.random.default_rng(seed)
    order = random.permutation(48)
    producers, consumers = random.choice([1, 2, 3, 4, 6, 8, 12, 16, 24, 48], 2)
    places, targets, blocks = block_orders(order, int(producers), int(consumers))
    x = random.normal(size=48)
    sorted_x = np.empty(48)
    sorted_x[places] = x
    moved = sorted_x[blocks]
    assert np.array_equal(moved[targets], x[order])
    assert pieces(blocks) <= producers * consumers
    size = 48 // producers
    assert np.array_equal(places // size, np.arange(48) // size)
    size = 48 // consumers
    assert np.array_equal(targets // size, np.arange(48) // size)


def test_blocks_that_do_not_fill_whole_multiples_are_left_to_the_engine() -> None:
    graph = grouped(64, 2, 2, 16)
    data = graph.to_bytes()
    assert not reduce_shuffle(graph, graph.node("shuffle"), 32)
    assert graph.to_bytes() == data
    assert reduce_shuffle(graph, graph.node("shuffle"), 16)


def test_a_shuffle_whose_side_is_fixed_stays() -> None:
    net = Net(32)
    x = net.shuffle("input", "shuffle", 32, 16)  # a model's input keeps its order
    graph = net.graph([net.conv(x, "b", 32, 32, groups=2)])
    data = graph.to_bytes()
    assert not reduce_shuffle(graph, graph.node("shuffle"))
    assert graph.to_bytes() == data


def test_a_shuffle_that_is_the_models_answer_stays() -> None:
    net = Net(32)
    graph = net.graph([net.shuffle(net.conv("input", "a", 32, 32, groups=2), "shuffle", 32, 16)])
    assert not reduce_shuffle(graph, graph.node("shuffle"))


def test_a_sum_of_two_grouped_layers_keeps_within_the_finer_groups() -> None:
    net = Net(64)
    x = net.op("Add", [net.conv("input", "a", 64, 64, groups=2), net.conv("input", "c", 64, 64, groups=4)], "add")
    x = net.shuffle(x, "shuffle", 64, 16)
    graph = net.graph([net.conv(x, "b", 64, 64, groups=2)])
    before = answers(graph)
    assert reduce_shuffle(graph, graph.node("shuffle"))
    assert same(answers(graph), before)


def test_only_gathers_that_permute_channels_are_reduced() -> None:
    graph = grouped(64, 4, 4, 16)
    assert reduce_shuffles(graph) == 1
    for order, axis in ((np.arange(32), 0), (np.zeros(64, np.int64), 1)):
        net = Net(64)
        x = net.op("Gather", [net.conv("input", "a", 64, 64, groups=4), net.number("o", order)], "shuffle", axis=axis)
        graph = net.graph([net.op("Relu", [x], "r")])
        data = graph.to_bytes()
        assert reduce_shuffles(graph) == 0
        assert graph.to_bytes() == data
