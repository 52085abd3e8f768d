"""Ranges are seen by running the float network, and travel among a mode's statistics."""

from typing import Dict, List

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.nets import SIDE, Net
from tests.runtime.test_lowering_quantize import residual, run
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.ranges import Tensors, as_statistics, observe, split_statistics


def scaled() -> Graph:
    """One layer that doubles its input, then another."""
    net = Net(channels=1)
    for name in ("one", "two"):
        net.number(f"{name}.w", np.array(2, np.float32).reshape(1, 1, 1, 1))
    x = net.op("Relu", [net.op("Conv", ["input", "one.w"], "one", kernel_shape=[1, 1])], "relu")
    return net.graph([net.op("Conv", [x, "two.w"], "two", kernel_shape=[1, 1])])


def batch(low: float, high: float) -> Dict[str, NDArray[np.float32]]:
    return {"input": np.linspace(low, high, 2 * SIDE * SIDE, dtype=np.float32).reshape(2, 1, SIDE, SIDE)}


def test_the_widest_range_of_all_batches_is_found() -> None:
    found = observe(scaled(), run, [batch(-1, 3), batch(-2, 1), batch(0, 1)])
    assert found == {"input": (-2.0, 3.0), "relu": (0.0, 6.0)}


def test_a_percentile_leaves_rare_values_out() -> None:
    given = batch(-1, 1)
    given["input"][0, 0, 0, 0] = -1000
    low, high = observe(scaled(), run, [given], percentile=97.0)["input"]
    assert -1 < low < -0.8
    assert 0.8 < high < 1


def test_a_range_is_known_under_every_name_of_its_values() -> None:
    net = Net()
    x = net.shuffle(net.op("Relu", [net.conv("input", "one", 16, 16)], "relu"), "shuffle", 16)
    graph = net.graph([net.conv(x, "two", 16, 16)])
    found = observe(graph, run, [{"input": np.ones((1, 16, SIDE, SIDE), np.float32)}])
    assert set(found) == {"input", "relu", "shuffle"}
    assert found["relu"] == found["shuffle"]


def test_the_model_is_one_object_and_the_graph_stays_as_it_was() -> None:
    graph, models = residual(0, 4), set()
    before = graph.to_bytes()

    def watched(model: bytes, inputs: Tensors) -> Tensors:
        models.add(id(model))
        return run(model, inputs)

    observe(graph, watched, [{"input": np.ones((1, 16, SIDE, SIDE), np.float32)}] * 3)
    assert len(models) == 1
    assert graph.to_bytes() == before


def test_no_batches_are_refused() -> None:
    none: List[Tensors] = []
    with pytest.raises(BundleError, match="no batch"):
        observe(scaled(), run, none)


def test_ranges_travel_among_the_statistics() -> None:
    ranges = {"input": (-2.0, 3.0), "a.b/c": (0.0, 6.5)}
    kept = as_statistics(ranges)
    assert {name: (value.dtype, value.shape) for name, value in kept.items()} == dict.fromkeys(
        ("range.input", "range.a.b/c"), (np.dtype(np.float32), (2,))
    )
    mean = np.zeros(4, np.float32)
    norms, found = split_statistics({"bn.mean": mean, **kept})
    assert found == ranges
    assert list(norms) == ["bn.mean"]
    assert norms["bn.mean"] is mean


def test_a_range_of_another_shape_is_named() -> None:
    with pytest.raises(BundleError, match=r"'range.x' is \(3,\) and not \(2,\)"):
        split_statistics({"range.x": np.zeros(3, np.float32)})
