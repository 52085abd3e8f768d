import dataclasses
import os
import platform
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.bundles import with_golden
from tests.trainer.few_digits import FEW, FewDigits
from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Accuracy, Bundle
from wenet_runtime.device import processor_flags, this_device
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.precision import wants_reduced_range
from wenet_runtime.lowering.ranges import split_statistics
from wenet_runtime.materialize import Supernet, lower, materialize
from wenet_runtime.pool import Pool
from wenet_runtime.tuner import Tuner, plan_id
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import ExportError
from wenet_trainer.explore.problem import Limits
from wenet_trainer.explore.result import FoundMode, Frontier, Latency, Reference
from wenet_trainer.export import (
    TOLERANCE,
    as_mode,
    check_mode,
    export_bundle,
    relative_deviation,
    rounding,
    torch_answers,
)  # fmt: skip
from wenet_trainer.golden import distance
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe
from wenet_trainer.train import train


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})


@pytest.fixture
def frontier(checkpoint):
    """The full network, a random one in fp32 and in int8, and the smallest."""
    space = SearchSpace.of(checkpoint.network())
    drawn = space.sample(random.Random(3))
    configs = [(space.full(), "fp32"), (drawn, "int8"), (drawn, "fp32"), (space.smallest(), "fp32")]
    return frontier_of(checkpoint, configs)


def frontier_of(checkpoint, configs):
    """A frontier of these (configuration, precision), with figures that nobody measured."""
    modes = tuple(
        FoundMode(
            id=f"m{at}",
            groups=dict(config),
            precision=precision,
            accuracy=Accuracy(0.9 - at / 10, 0.8 - at / 10, 0.95 - at / 10, 96),
            macs=100 - at,
            params=10,
            latency=Latency(1.0, 1.1, 1.2, 3),
            found_by="test",
        )
        for at, (config, precision) in enumerate(configs)
    )
    return Frontier(
        weights_sha256=checkpoint.weights_sha256(),
        method="table",
        granularity="layer",
        seed=0,
        device="none",
        tables=(),
        data=FEW,
        calibration_images=128,
        search_images=32,
        final_images=64,
        accuracy_evaluations=4,
        latency_measurements=4,
        search_seconds=0.0,
        limits=Limits(),
        reference=Reference(1.0, 0.1),
        hypervolume=0.5,
        points=(),
        dropped=(),
        notes=(),
        modes=modes,
    )


def test_twenty_random_configurations_answer_as_torch_does(supernet):
    described, space = describe(supernet, (1, 32, 32)), SearchSpace.of(supernet)
    rng = random.Random(0)
    training, images = torch.randn(64, 1, 32, 32), torch.randn(4, 1, 32, 32)
    configs = [space.sample(rng) for _ in range(20)]
    assert len(set(configs)) == 20
    for config in (*configs, space.full(), space.smallest()):
        statistics, answers = torch_answers(supernet, config, training, images)
        assert relative_deviation(described, config, statistics, images, answers) <= TOLERANCE, config


def test_a_dropped_permutation_or_a_wrong_pattern_or_stale_statistics_are_noticed(supernet):
    described, space = describe(supernet, (1, 32, 32)), SearchSpace.of(supernet)
    config = space.uniform(4)
    training, images = torch.randn(64, 1, 32, 32), torch.randn(4, 1, 32, 32)
    statistics, answers = torch_answers(supernet, config, training, images)
    straight = tuple(dataclasses.replace(shuffle, groups=1) for shuffle in described.shuffles[:1])
    dropped = dataclasses.replace(described, shuffles=straight + described.shuffles[1:])
    switched = next(norm for norm in described.norms if norm.layer is not None)
    swapped = dataclasses.replace(switched, patterns={**switched.patterns, 4: switched.patterns[8]})
    wrong = dataclasses.replace(
        described, norms=tuple(swapped if norm is switched else norm for norm in described.norms)
    )
    assert relative_deviation(dropped, config, statistics, images, answers) > 1000 * TOLERANCE
    assert relative_deviation(wrong, config, statistics, images, answers) > 1000 * TOLERANCE
    assert relative_deviation(described, config, {}, images, answers) > 1000 * TOLERANCE


def test_a_bundle_is_complete_and_its_golden_answers_come_out(checkpoint, frontier, tmp_path):
    out = Path(os.environ.get("WENET_TEST_BUNDLE_OUT") or tmp_path / "bundle")  # the Python 3.8 job reads it
    sha256 = export_bundle(checkpoint, frontier, out, quiet=True)
    bundle = Bundle(out)
    assert bundle.sha256 == sha256
    assert [mode.id for mode in bundle.manifest.modes] == [mode.id for mode in frontier.modes]
    assert bundle.manifest.preprocess == FewDigits().preprocess
    assert bundle.manifest.labels == tuple("0123456789")
    assert set(bundle.manifest.created_by) == {"wenet_trainer", "torch"}
    golden, supernet = bundle.golden(), Supernet.of(bundle)
    expected = normalise(FewDigits().validation().first(4).pixels, FewDigits().preprocess).numpy()
    assert np.array_equal(golden["input.image"], expected)
    for mode in bundle.modes:
        model = materialize(supernet, mode.groups, bundle.statistics(mode))
        reference = golden[f"{mode.id}.logits"]
        away = distance(answers_of(model, golden["input.image"]), reference)
        assert away <= TOLERANCE if mode.precision == "fp32" else 1e-4 < away <= 0.2


def answers_of(model, inputs):
    engine = OrtBackend().load_bytes(model, name="test")
    answers = engine.infer({"image": inputs})["logits"]
    engine.close()
    return answers


@pytest.mark.parametrize("kind", ["int8", "fp16", "bf16"])
def test_a_mode_of_another_precision_answers_as_it_is_computed_and_as_the_canary_wants(checkpoint, tmp_path, kind):
    config = SearchSpace.of(checkpoint.network()).uniform(4)
    frontier = frontier_of(checkpoint, [(config, "fp32"), (config, kind)])
    export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True)
    bundle = Bundle(tmp_path / "bundle")
    float_mode, mode = (bundle.mode(one) for one in ("m0", "m1"))
    assert (float_mode.precision, mode.precision) == ("fp32", kind)
    statistics, golden = bundle.statistics(mode), bundle.golden()
    reduced = wants_reduced_range(platform.machine(), processor_flags())
    graph = lower(Supernet.of(bundle), config, statistics, precision=kind, reduce_range=reduced)
    assert np.array_equal(answers_of(graph.to_bytes(), golden["input.image"]), golden["m1.logits"])
    norms, ranges = split_statistics(statistics)
    assert bool(ranges) == (kind == "int8")
    assert all(np.array_equal(value, bundle.statistics(float_mode)[name]) for name, value in norms.items())


def test_a_bundle_of_several_precisions_is_tuned_built_and_served_and_the_canary_watches_each(
    checkpoint, frontier, tmp_path
):
    export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True)
    bundle, backend = Bundle(tmp_path / "bundle"), OrtBackend()
    device = this_device(backend.name, backend.version, 1)
    tuner = Tuner(tmp_path / "cache", device, backend)
    cache = DeviceCache(tmp_path / "cache", bundle, device, backend, emitted=tuner.emitted, plan_id=plan_id(True))
    pool = Pool(bundle, backend, cache.artifact)  # which refuses a mode that does not answer its golden images
    assert pool.resident == ["m0", "m1", "m2", "m3"]
    pool.close()
    spoilt = with_golden(bundle, tmp_path / "spoilt", lambda golden: golden.update({"m1.logits": -golden["m1.logits"]}))
    cache = DeviceCache(tmp_path / "cache", spoilt, device, backend)
    with pytest.raises(EngineError, match="mode 'm1' deviates from its golden output"):
        Pool(spoilt, backend, cache.artifact)


def test_the_float_twin_of_an_int8_mode_is_checked_against_torch(checkpoint, frontier, tmp_path, monkeypatch):
    frontier = dataclasses.replace(frontier, modes=frontier.modes[1:2])
    monkeypatch.setattr("wenet_trainer.export.describe", without_shuffles)
    with pytest.raises(ExportError, match=r"mode 'm1' .* deviates from torch by .* nothing was written"):
        export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True)
    assert not (tmp_path / "bundle").exists()


def without_shuffles(net, shape):
    described = describe(net, shape)
    straight = tuple(dataclasses.replace(shuffle, groups=1) for shuffle in described.shuffles)
    return dataclasses.replace(described, shuffles=straight)


def test_what_precisions_cost_beyond_the_usual_is_said_and_the_rest_is_not(checkpoint, frontier, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("wenet_trainer.golden.PRECISIONS", {"int8": 0.5})
    export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True, say=said.append)
    assert said == []
    monkeypatch.setattr("wenet_trainer.golden.PRECISIONS", {"int8": 1e-6})
    export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True, say=said.append)
    (sentence,) = said
    assert sentence.startswith("mode 'm1' in int8 is up to 0.")
    assert sentence.endswith("it stays for its accuracy, 80.0 %")


def test_the_same_frontier_gives_the_same_bundle(checkpoint, frontier, tmp_path):
    once, twice = (export_bundle(checkpoint, frontier, tmp_path / name, quiet=True) for name in ("one", "two"))
    assert once == twice


def test_a_mode_that_deviates_fails_the_export_and_nothing_is_written(checkpoint, frontier, tmp_path, monkeypatch):
    monkeypatch.setattr("wenet_trainer.export.describe", without_shuffles)
    with pytest.raises(ExportError, match=r"mode 'm\d' .* deviates from torch by .* nothing was written"):
        export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True)
    assert not (tmp_path / "bundle").exists()


def test_what_torch_rounds_itself_is_no_deviation(checkpoint, frontier, monkeypatch):
    net, mode = checkpoint.network(), as_mode(frontier.modes[0])
    images = torch.randn(4, 1, 32, 32)
    statistics, answers = torch_answers(net, mode.groups, torch.randn(64, 1, 32, 32), images)
    own = rounding(net, mode.groups, statistics, images)
    assert 1e-9 < own < 1e-5
    described = describe(net, (1, 32, 32))
    monkeypatch.setattr("wenet_trainer.export.TOLERANCE", 0.0)
    monkeypatch.setattr("wenet_trainer.export.ROUNDINGS", 1e4)
    check_mode(net, described, mode, statistics, images, answers)
    monkeypatch.setattr("wenet_trainer.export.ROUNDINGS", 1e-4)
    with pytest.raises(ExportError, match="deviates from torch"):
        check_mode(net, described, mode, statistics, images, answers)


def test_a_frontier_of_another_network_is_refused(checkpoint, frontier, tmp_path):
    foreign = dataclasses.replace(frontier.modes[0], groups={**frontier.modes[0].groups, "conv": 32})
    wrong = dataclasses.replace(frontier, modes=(foreign,))
    with pytest.raises(ExportError, match=r"does not fit this checkpoint \(layers \['conv'\]\)"):
        export_bundle(checkpoint, wrong, tmp_path / "bundle", quiet=True)


def test_a_mode_of_a_precision_that_there_is_not_is_refused(checkpoint, frontier, tmp_path):
    foreign = dataclasses.replace(frontier.modes[0], precision="int4")
    with pytest.raises(ExportError, match="mode 'm0' of the frontier has unknown precision 'int4', known are fp32, "):
        export_bundle(checkpoint, dataclasses.replace(frontier, modes=(foreign,)), tmp_path / "bundle", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_frontier_found_before_further_training_is_refused(tmp_path):
    recipe = Recipe(data=FEW, model="tiny", epochs=2, batch=32)
    early = train(recipe, tmp_path / "run", stop_after=1, quiet=True)
    frontier = frontier_of(early, [(SearchSpace.of(early.network()).full(), "fp32")])
    later = train(recipe, tmp_path / "run", quiet=True)
    with pytest.raises(ExportError, match=r"this checkpoint has \w{12} after 2 epochs.*explore this checkpoint again"):
        export_bundle(later, frontier, tmp_path / "bundle", quiet=True)
    assert not (tmp_path / "bundle").exists()
    export_bundle(early, frontier, tmp_path / "bundle", quiet=True)
