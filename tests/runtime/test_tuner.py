"""Modes are emitted as measured here; what was measured is kept for the next bundle and the next start."""

import dataclasses
from pathlib import Path
from typing import Any, List, Mapping, Sequence

import numpy as np
import onnx
import pytest

from tests.runtime.test_materialize import with_ranges
from tests.supernets import make_supernet, uniform, write_test_bundle
from wenet_runtime import device_graph
from wenet_runtime import tuner as tuner_module
from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Accuracy, Bundle, Mode
from wenet_runtime.canary import Canary
from wenet_runtime.device import this_device
from wenet_runtime.engines.base import Numerics
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph, attribute
from wenet_runtime.materialize import Supernet
from wenet_runtime.plan import Plan
from wenet_runtime.tuner import Tuner, plan_id

DEVICE = this_device("ort", "1", 1)


def mode_of(supernet: Supernet, groups: int, precision: str = "fp32") -> Mode:
    return Mode("m", uniform(supernet, groups), precision, Accuracy(0.5, 0.4, 0.6, 10), 1, 1, "test")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """A made-up host on which fewer groups are quicker; collects how many networks it is given."""
    counts: List[int] = []

    def quickest_ms(backend: Any, graphs: Sequence[Graph], *, precision: str = "fp32") -> List[float]:
        counts.append(len(graphs))
        return [1.0 + _groups(graph) for graph in graphs]

    monkeypatch.setattr(tuner_module, "quickest_ms", quickest_ms)
    return counts


def _groups(graph: Graph) -> int:
    """Of all convolutions but the depthwise ones, which have more."""
    groups = (int(attribute(node, "group", 1)) for node in graph.nodes if node.op_type == "Conv")
    return sum(one for one in groups if one <= 16)


def test_modes_are_emitted_as_measured_and_the_figures_are_kept(measured: List[int], tmp_path: Path) -> None:
    supernet = make_supernet()
    mode = mode_of(supernet, 16)
    first = Tuner(tmp_path, DEVICE, OrtBackend()).emitted(supernet, mode, {})
    assert {first[layer.name] for layer in supernet.layers if layer.kind == "conv"} == {1}
    taken = sum(measured)
    other = make_supernet(1)  # another bundle of the same network
    assert Tuner(tmp_path, DEVICE, OrtBackend()).emitted(other, mode, {}) == first
    again = sum(measured) - taken
    assert 0 < again < taken / 2  # the whole networks only
    assert (tmp_path / "plans" / f"{DEVICE.fingerprint}.json").is_file()


def test_another_engine_version_measures_again(measured: List[int], tmp_path: Path) -> None:
    supernet = make_supernet()
    Tuner(tmp_path, DEVICE, OrtBackend()).emitted(supernet, mode_of(supernet, 16), {})
    taken = sum(measured)
    newer = dataclasses.replace(DEVICE, engine_version="2")
    Tuner(tmp_path, newer, OrtBackend()).emitted(supernet, mode_of(supernet, 16), {})
    assert sum(measured) >= 2 * taken


def test_a_damaged_plan_is_measured_again_with_a_warning(measured: List[int], tmp_path: Path) -> None:
    supernet = make_supernet()
    first = Tuner(tmp_path, DEVICE, OrtBackend()).emitted(supernet, mode_of(supernet, 16), {})
    path = tmp_path / "plans" / f"{DEVICE.fingerprint}.json"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="measuring again"):
        assert Tuner(tmp_path, DEVICE, OrtBackend()).emitted(supernet, mode_of(supernet, 16), {}) == first
    assert path.read_bytes() == data


def test_untuned_modes_follow_the_rule_and_measure_nothing(measured: List[int], tmp_path: Path) -> None:
    supernet = make_supernet()
    mode = mode_of(supernet, 16)
    untuned = Tuner(tmp_path, DEVICE, OrtBackend(), measured=False)
    assert untuned.emitted(supernet, mode, {}) == Plan(supernet).by_rule(mode.groups)
    assert measured == []
    assert plan_id(False) != plan_id(True)


def test_int8_modes_take_the_quickest_of_whole_networks(measured: List[int], tmp_path: Path) -> None:
    supernet = make_supernet()
    mode = mode_of(supernet, 16, "int8")
    statistics = with_ranges(supernet, mode.groups)
    found = Tuner(tmp_path, DEVICE, OrtBackend()).emitted(supernet, mode, statistics)
    assert set(found.values()) == {1}
    assert measured == [3]


@pytest.mark.parametrize("flags", [set(), {"avx512_vnni"}])
def test_int8_modes_are_timed_in_the_range_they_are_served_in(
    flags: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest: List[int] = []

    def quickest_ms(backend: Any, graphs: Sequence[Graph], **how: Any) -> List[float]:
        weights = [value for graph in graphs for value in graph.numbers.values() if value.dtype == np.int8]
        largest.append(max(int(abs(one.astype(int)).max()) for one in weights))
        return [1.0] * len(graphs)

    monkeypatch.setattr(tuner_module, "quickest_ms", quickest_ms)
    monkeypatch.setattr(device_graph, "processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(device_graph.platform, "machine", lambda: "x86_64")
    supernet = make_supernet()
    mode = mode_of(supernet, 16, "int8")
    Tuner(tmp_path, DEVICE, OrtBackend()).emitted(supernet, mode, with_ranges(supernet, mode.groups))
    assert (largest[0] > 64) == bool(flags)


@pytest.mark.parametrize("tune", [True, False])
def test_tuned_and_untuned_modes_answer_the_bundles_golden_inputs(tune: bool, tmp_path: Path) -> None:
    write_test_bundle(tmp_path / "bundle")
    bundle, backend = Bundle(tmp_path / "bundle"), OrtBackend()
    tuner = Tuner(tmp_path / "cache", DEVICE, backend, measured=tune)
    cache = DeviceCache(tmp_path / "cache", bundle, DEVICE, backend, emitted=tuner.emitted, plan_id=plan_id(tune))
    canary = Canary(bundle, simulated=False)
    for mode in bundle.modes:
        engine = backend.load(mode, lambda mode=mode: cache.artifact(mode))  # type: ignore[misc]
        canary.check(mode, engine)
        engine.close()


def test_statistics_reach_the_choice(tmp_path: Path) -> None:
    write_test_bundle(tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    seen: List[Mapping[str, Any]] = []

    def emitted(supernet: Supernet, mode: Mode, statistics: Mapping[str, Any]) -> Mapping[str, int]:
        seen.append(statistics)
        return {}

    DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend(), emitted=emitted).build()
    assert len(seen) == len(bundle.modes)
    for mode, statistics in zip(bundle.modes, seen):
        expected = bundle.statistics(mode)
        assert set(statistics) == set(expected)
        assert all(np.array_equal(statistics[name], expected[name]) for name in expected)


class SlowBuilder(OrtBackend):
    """Computes float modes in fp16 and int8 modes around zero, and takes long to build one."""

    builds_quickly = False

    def numerics(self, mode: Mode) -> Numerics:
        return Numerics("int8", "int8", symmetric=True) if mode.precision == "int8" else Numerics("fp32", "fp16")


class TestWhereBuildingTakesLong:
    def test_only_whole_networks_are_measured(self, measured: List[int], tmp_path: Path) -> None:
        supernet = make_supernet()
        found = Tuner(tmp_path, DEVICE, SlowBuilder()).emitted(supernet, mode_of(supernet, 16), {})
        assert set(found.values()) == {1}
        assert measured == [3]
        assert not (tmp_path / "plans").exists()

    def test_a_mode_with_one_emission_is_not_measured(self, measured: List[int], tmp_path: Path) -> None:
        supernet = make_supernet()
        assert Tuner(tmp_path, DEVICE, SlowBuilder()).emitted(supernet, mode_of(supernet, 1), {}) == {}
        assert measured == []

    def test_untuned_modes_are_emitted_as_they_are(self, measured: List[int], tmp_path: Path) -> None:
        supernet = make_supernet()
        tuner = Tuner(tmp_path, DEVICE, SlowBuilder(), measured=False)
        assert Plan(supernet).by_rule(uniform(supernet, 16))
        assert tuner.emitted(supernet, mode_of(supernet, 16), {}) == {}
        assert measured == []

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_what_is_measured_is_what_will_be_built(
        self, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: List[bytes] = []

        def quickest_ms(backend: Any, graphs: Sequence[Graph], **how: Any) -> List[float]:
            assert how == {"precision": precision}
            given.extend(graph.to_bytes() for graph in graphs)
            return list(range(len(graphs)))

        monkeypatch.setattr(tuner_module, "quickest_ms", quickest_ms)
        supernet, backend = make_supernet(), SlowBuilder()
        mode = mode_of(supernet, 16, precision)
        statistics = with_ranges(supernet, mode.groups)
        emitted = Tuner(tmp_path, DEVICE, backend).emitted(supernet, mode, statistics)
        assert emitted == {}
        assert device_graph.lowered(backend, supernet, mode, statistics, emitted).to_bytes() == given[0]
        kinds = {node.op_type for node in onnx.load_model_from_string(given[0]).graph.node}
        assert ("QuantizeLinear" in kinds) == (precision == "int8")
        assert "Cast" not in kinds  # fp16 is how the engine computes, not how the network is written
