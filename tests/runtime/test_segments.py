"""A supernet is cut into parts that can be measured alone; together they hold every layer."""

import dataclasses

import numpy as np
import pytest

from tests.supernets import SIZE, SupernetBuilder, bottlenecks, make_supernet, random_groups
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.segments import MOST_LAYERS, Segment, segments


def of_layer(supernet: Supernet, name: str) -> Segment:
    return next(one for one in segments(supernet) if any(layer.name == name for layer in one.supernet.layers))


def test_every_layer_is_in_exactly_one_segment() -> None:
    supernet = make_supernet()
    found = [layer.name for one in segments(supernet) for layer in one.supernet.layers]
    assert sorted(found) == sorted(layer.name for layer in supernet.layers)


def test_layers_joined_by_a_shuffle_are_one_unit_and_what_is_added_up_one_segment() -> None:
    supernet = make_supernet()
    assert of_layer(supernet, "a.expand").units == (("a.expand", "a.project"),)
    both = of_layer(supernet, "b.conv1")
    assert both.units == (("b.conv1", "b.conv2"), ("b.conv3",), ("b.down",))
    assert both.shape == (32, SIZE, SIZE)
    assert both.positions == {"b.conv1": 64, "b.conv2": 16, "b.conv3": 16, "b.down": 16}


def test_a_linear_layer_is_a_segment_without_a_layout() -> None:
    hidden = of_layer(make_supernet(), "hidden")
    assert hidden.shape == (64,)
    assert hidden.positions == {"hidden": 1}


def test_equal_blocks_share_a_signature_and_others_do_not() -> None:
    first, second, third = segments(bottlenecks(32, 32, 64))
    assert first.signature == second.signature != third.signature


def test_a_signature_tells_a_block_from_the_same_block_with_another_wiring() -> None:
    block, other = segments(bottlenecks(32)), segments(make_supernet())
    assert len({one.signature for one in (*block, *other)}) == len(block) + len(other)


def test_a_long_chain_is_cut_where_no_shuffle_joins_it() -> None:
    make = SupernetBuilder(0)
    x = "input"
    for number in range(5):
        x = make.conv(x, f"c{number}", 1 if number == 0 else 32, 32)
        if number == 2:
            x = make.shuffle(x, "s", 32)
    x = make.add("Flatten", [make.add("GlobalAveragePool", [x], "pool")], "flat", axis=1)
    make.weights["head"] = np.ones((10, 32), np.float32)
    supernet = make.supernet(make.add("Gemm", [x, "head"], "fc", transB=1))
    found = [one.units for one in segments(supernet)]
    assert found == [(("c0",), ("c1",)), (("c2", "c3"), ("c4",))]
    assert all(sum(map(len, units)) <= MOST_LAYERS for units in found)


@pytest.mark.parametrize("seed", range(5))
def test_a_segment_computes_what_its_layers_compute_in_any_configuration(seed: int) -> None:
    supernet = make_supernet(seed)
    groups = random_groups(supernet, seed)
    for segment in segments(supernet):
        part = segment.supernet
        chosen = {layer.name: groups[layer.name] for layer in part.layers}
        images = np.random.default_rng(seed).normal(size=(2, *segment.shape)).astype(np.float32)
        answers = []
        for fold in (True, False):
            engine = OrtBackend().load_bytes(lower(part, chosen, fold=fold).to_bytes(), name="segment")
            answers.append(next(iter(engine.infer({part.inputs[0].name: images}).values())))
            engine.close()
        assert np.abs(answers[0] - answers[1]).max() <= 1e-5 * np.abs(answers[1]).max()


def test_layers_of_unknown_shape_are_left_out() -> None:
    supernet = make_supernet()
    spec = dataclasses.replace(supernet.inputs[0], name="other")
    unknown = dataclasses.replace(supernet, topology=supernet.topology.replace(b"batch", b"batcH"), inputs=(spec,))
    with pytest.raises(Exception, match="input"):
        segments(unknown)
