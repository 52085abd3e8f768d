"""Another precision of a configuration is the same network to the precision's step, as it will be served."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.trainer.few_digits import FewDigits
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.ranges import split_statistics
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import lower
from wenet_runtime.plan import Plan
from wenet_trainer.data.base import Images, normalise
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.explore import precision
from wenet_trainer.explore.precision import Variant, open_variant, precisions_of, prepare, right, variant_graph
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe

SOURCE = FewDigits()
# Of the largest answer. Networks of random numbers magnify roundings: trained ones stay below 0.02 in int8.
AWAY = {**PRECISIONS, "int8": 0.2}


@pytest.fixture
def calibration():
    return normalise(SOURCE.train(1).first(40).pixels, SOURCE.preprocess)


@pytest.fixture
def opened():
    """Opens variants on ONNX Runtime as they are, and closes them."""
    engines = []

    def load(described, variant):
        model = variant_graph(described, variant).to_bytes()
        engines.append(OrtBackend().load_bytes(model, name="test"))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def configurations(space):
    rng = random.Random(0)
    return [space.full(), space.smallest(), space.sample(rng), space.sample(rng)]


def torch_answers(net, config, calibration, images):
    with recalibrated(net, config, calibration):
        return logits(net, images).numpy()


def distance(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(
    ("supernet", "kind"),
    [("tiny", "int8"), ("tiny", "fp16"), ("tiny", "bf16"), ("digits_resnet", "int8")],
    indirect=["supernet"],
)
def test_random_configurations_answer_as_in_fp32_to_what_the_precision_allows(supernet, calibration, opened, kind):
    described, images = describe(supernet, (1, 32, 32)), calibration[:8]
    for config in configurations(SearchSpace.of(supernet)):
        wanted = torch_answers(supernet, config, calibration, images)
        variant = prepare(supernet, described, config, kind, calibration)
        found = opened(described, variant).infer({"image": images.numpy()})["logits"]
        assert distance(found, wanted) <= AWAY[kind], config
        assert (distance(found, wanted) > 1e-4) == (kind != "bf16")  # which ONNX Runtime computes in float


def test_ranges_of_other_images_and_other_statistics_are_noticed(tiny, calibration, opened):
    described, config = describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).uniform(4)
    wanted = torch_answers(tiny, config, calibration, calibration[:8])
    variant = prepare(tiny, described, config, "int8", calibration)
    dim = {name: value / 5 if name.startswith("range.") else value for name, value in variant.statistics.items()}
    stale = {name: value for name, value in variant.statistics.items() if name.startswith("range.")}
    for statistics in (dim, stale):
        found = opened(described, Variant(config, "int8", statistics)).infer({"image": calibration[:8].numpy()})
        assert distance(found["logits"], wanted) > 2 * AWAY["int8"]


def test_int8_brings_ranges_beside_the_recalibrated_statistics_and_the_others_none(tiny, calibration):
    described, config = describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).uniform(4)
    with recalibrated(tiny, config, calibration) as wanted:
        pass
    for kind in PRECISIONS:
        norms, ranges = split_statistics(prepare(tiny, described, config, kind, calibration).statistics)
        assert set(norms) == set(wanted)
        assert all(np.array_equal(norms[name], wanted[name]) for name in wanted)
        assert bool(ranges) == (kind == "int8")


def test_ranges_cover_every_calibration_image_however_many_are_shown_at_once(tiny, calibration, monkeypatch):
    described, config = describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).uniform(2)
    found = []
    for images, pixels in ((7, 1 << 18), (1000, 1 << 30), (1000, 1)):  # 7 at a time, all at once, one by one
        monkeypatch.setattr(precision, "OBSERVED_IMAGES", images)
        monkeypatch.setattr(precision, "OBSERVED_PIXELS", pixels)
        found.append(split_statistics(prepare(tiny, described, config, "int8", calibration).statistics)[1])
    assert found[0]["image"] == (float(calibration.min()), float(calibration.max()))
    for other in found[1:]:
        assert set(other) == set(found[0])
        assert all(other[name] == pytest.approx(found[0][name], rel=1e-4, abs=1e-5) for name in other)


def test_the_network_keeps_its_own_statistics(tiny, calibration):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    prepare(tiny, describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).smallest(), "int8", calibration)
    assert all((value == before[name]).all() for name, value in tiny.state_dict().items())


def test_an_unknown_precision_is_refused_with_those_there_are(tiny, calibration):
    with pytest.raises(ExploreError, match="unknown precision 'int4': known are fp32, fp16, bf16, int8"):
        prepare(tiny, describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).full(), "int4", calibration)


def test_int8_without_ranges_is_refused(tiny):
    described, config = describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).full()
    with pytest.raises(BundleError, match="needs the ranges of its activations"):
        open_variant(described, Variant(config, "int8", {}), OrtBackend())


@pytest.mark.parametrize(
    ("has", "wanted"),
    [
        ({}, ("int8",)),
        ({"computes_bf16": True}, ("int8", "bf16")),
        ({"computes_bf16": False, "computes_fp16": True}, ("int8", "fp16")),
        ({"name": "sim", "computes_bf16": True}, ()),
    ],
)
def test_fp16_and_bf16_are_offered_only_by_engines_that_say_they_compute_them(has, wanted):
    assert precisions_of(SimpleNamespace(**{"name": "ort", **has})) == wanted


def test_onnx_runtime_offers_int8_alone():
    assert precisions_of(OrtBackend()) == ("int8",)


def test_openvino_offers_and_computes_bf16_where_the_processor_has_it(tiny, calibration):
    pytest.importorskip("wenet_runtime.engines.openvino")
    from wenet_runtime.engines.openvino import OpenVinoBackend

    backend, described, config = OpenVinoBackend(), describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).uniform(4)
    assert precisions_of(backend) == (("int8", "bf16") if backend.computes_bf16 else ("int8",))
    wanted = torch_answers(tiny, config, calibration, calibration[:4])
    for kind in ("fp32", *precisions_of(backend)):
        engine = open_variant(described, prepare(tiny, described, config, kind, calibration), backend)
        found = engine.infer({"image": calibration[:4].numpy()})["logits"]
        engine.close()
        assert distance(found, wanted) <= AWAY[kind]
        assert (distance(found, wanted) > 1e-4) == (kind != "fp32")


class Watched:
    """Stands in for the measuring: times by the emitted groups, and what is opened in the end."""

    def __init__(self, monkeypatch, times):
        self.measured, self.opened, self.precisions, self.graphs = [], [], [], []
        self._times = times
        monkeypatch.setattr(precision, "quickest_ms", self._quickest)
        monkeypatch.setattr(precision, "load_graph", self._load)

    def _quickest(self, backend, graphs, *, precision):
        self.measured.append([groups_of(graph) for graph in graphs])
        self.precisions.append(precision)
        return self._times

    def _load(self, backend, graph, name, precision):
        self.opened.append(groups_of(graph))
        self.graphs.append(graph)
        self.precisions.append(precision)


def groups_of(graph):
    """The largest number of groups of any convolution that a layer of the network became."""
    groups = [one.i for node in graph.nodes if node.op_type == "Conv" for one in node.attribute if one.name == "group"]
    return max(one for one in groups if one <= 16)  # a depthwise one has 64


@pytest.mark.parametrize(("times", "chosen"), [([1.0, 2.0, 3.0], 16), ([2.0, 1.0, 3.0], 4), ([3.0, 2.0, 1.0], 1)])
def test_the_quickest_emission_of_the_whole_network_is_opened(tiny, calibration, monkeypatch, times, chosen):
    described, watched = describe(tiny, (1, 32, 32)), Watched(monkeypatch, times)
    variant = prepare(tiny, described, SearchSpace.of(tiny).smallest(), "int8", calibration)
    open_variant(described, variant, OrtBackend())
    assert watched.measured == [[16, 4, 1]]
    assert watched.opened == [chosen]
    assert watched.precisions == ["int8", "int8"]


def test_the_full_network_is_opened_without_measuring(tiny, calibration, monkeypatch):
    described, watched = describe(tiny, (1, 32, 32)), Watched(monkeypatch, [])
    open_variant(described, prepare(tiny, described, SearchSpace.of(tiny).full(), "int8", calibration), OrtBackend())
    assert (watched.measured, watched.opened) == ([], [1])


def test_fp32_is_emitted_as_the_plan_says_and_without_one_by_the_rule(tiny, calibration, monkeypatch):
    described, config, watched = describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).smallest(), Watched(monkeypatch, [])
    variant = prepare(tiny, described, config, "fp32", calibration)
    dense = Plan(described)
    monkeypatch.setattr(dense, "settled", lambda groups: dict.fromkeys(groups, 1))
    open_variant(described, variant, OrtBackend(), dense)
    open_variant(described, variant, OrtBackend())
    by_rule = Plan(described).by_rule(config)
    assert by_rule != config
    wanted = [lower(described, config, variant.statistics, emitted=one) for one in (dict.fromkeys(config, 1), by_rule)]
    assert [graph.to_bytes() for graph in watched.graphs] == [graph.to_bytes() for graph in wanted]
    assert watched.measured == []


@pytest.mark.parametrize(("flags", "largest"), [(set(), 64), ({"avx512_vnni"}, 127)])
def test_weights_have_7_bits_where_8_would_overflow(tiny, calibration, monkeypatch, flags, largest):
    monkeypatch.setattr(precision, "processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    described = describe(tiny, (1, 32, 32))
    graph = variant_graph(described, prepare(tiny, described, SearchSpace.of(tiny).full(), "int8", calibration))
    weights = [value for value in graph.numbers.values() if value.dtype == np.int8]
    assert max(np.abs(value.astype(int)).max() for value in weights) == largest


def test_right_answers_are_those_of_the_same_network_in_torch_in_order_and_by_any_batch(tiny, calibration, opened):
    described, config = describe(tiny, (1, 32, 32)), SearchSpace.of(tiny).uniform(4)
    images = SOURCE.validation().first(50)
    wanted = torch_answers(tiny, config, calibration, normalise(images.pixels, SOURCE.preprocess)).argmax(1)
    engine = opened(described, prepare(tiny, described, config, "fp32", calibration))
    answered = Images(images.pixels, np.where(np.arange(50) % 3, wanted, (wanted + 1) % 10))
    for batch in (1, 7, 50, 64):
        found = right(engine, answered, SOURCE.preprocess, batch=batch)
        assert found.dtype == np.bool_
        assert np.array_equal(found, np.arange(50) % 3 > 0)


def test_no_images_are_no_answers(tiny, calibration, opened):
    described = describe(tiny, (1, 32, 32))
    engine = opened(described, prepare(tiny, described, SearchSpace.of(tiny).full(), "fp32", calibration))
    assert right(engine, SOURCE.validation().first(0), SOURCE.preprocess).shape == (0,)
