"""A precision is applied after everything else, and refused where it cannot be."""

from typing import Dict, List, Set

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.nets import kinds
from tests.runtime.test_lowering_quantize import ranges_of, residual
from wenet_runtime.bundle import Layer
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.precision import (
    Variant,
    apply,
    candidates,
    dense_emission,
    fewer_groups,
    wants_reduced_range,
)
from wenet_runtime.manifest import PRECISIONS

LAYERS = [Layer(name, "conv", name, f"{name}.w", None, 48, 48, (1, 2, 4, 8, 12, 16)) for name in "abc"]


@pytest.mark.parametrize(
    ("precision", "added"),
    [
        ("fp32", set()),
        ("bf16", set()),
        ("fp16", {"Cast"}),
        ("int8", {"Constant", "QuantizeLinear", "DequantizeLinear"}),
    ],
)
def test_fp32_and_bf16_leave_the_graph_alone_and_the_others_change_it(precision: str, added: Set[str]) -> None:
    graph = residual(0, 4)
    before, ranges = set(kinds(graph)), ranges_of(graph)
    data = graph.to_bytes()
    apply(graph, precision, ranges)
    assert set(kinds(graph)) - before == added
    assert (graph.to_bytes() == data) == (not added)


def test_7_bits_are_handed_on() -> None:
    found: List[NDArray[np.int8]] = []
    for reduce_range in (False, True):
        graph = residual(0, 4)
        apply(graph, "int8", ranges_of(graph), reduce_range=reduce_range)
        found.append(graph.numbers["stem.1.steps"])
    assert [int(np.abs(one.astype(int)).max()) for one in found] == [127, 64]


def test_an_unknown_precision_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BundleError, match=r"unknown precision 'int4': known are fp32, fp16, bf16, int8"):
        apply(residual(0, 4), "int4")


@pytest.mark.parametrize("ranges", [None, {}, {"elsewhere": (0.0, 1.0)}])
def test_int8_without_ranges_is_refused(ranges: "Dict[str, tuple[float, float]] | None") -> None:
    with pytest.raises(BundleError, match="needs the ranges of its activations"):
        apply(residual(0, 4), "int8", ranges)


@pytest.mark.parametrize(
    ("machine", "flags", "wanted"),
    [
        ("x86_64", {"avx2"}, True),
        ("AMD64", {"avx2", "avx512f"}, True),
        ("x86_64", set(), True),
        ("x86_64", {"avx512f", "avx512_vnni"}, False),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("aarch64", {"asimd"}, False),
    ],
)
def test_only_x86_before_vnni_wants_7_bits(machine: str, flags: Set[str], wanted: bool) -> None:
    assert wants_reduced_range(machine, flags) == wanted


def test_a_dense_emission_names_every_layer_that_has_groups() -> None:
    assert dense_emission(LAYERS, {"a": 1, "b": 4, "c": 16}) == {"b": 1, "c": 1}


def test_fewer_groups_are_the_largest_divisor_allowed() -> None:
    assert fewer_groups(LAYERS, {"a": 4, "b": 12, "c": 16}, 8) == {"b": 6, "c": 8}


def test_candidates_are_every_precision_as_it_is_and_with_fewer_groups_but_no_two_the_same() -> None:
    groups = {"a": 1, "b": 4, "c": 16}
    found = candidates(LAYERS, groups)
    assert {one.precision for one in found} == set(PRECISIONS)
    assert [one.emitted for one in found if one.precision == "fp32"] == [{}]
    assert [one.emitted for one in found if one.precision == "int8"] == [{}, {"c": 4}, {"b": 1, "c": 1}]
    assert candidates(LAYERS, dict.fromkeys("abc", 1)) == tuple(Variant(one, {}) for one in PRECISIONS)
    assert candidates(LAYERS, groups, ["fp32"]) == (Variant("fp32", {}),)
    assert all(a != b for at, a in enumerate(found) for b in found[:at])
