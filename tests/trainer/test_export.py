import dataclasses
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.few_digits import FEW, FewDigits
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import ExportError
from wenet_trainer.explore.frontier import find_frontier
from wenet_trainer.export import (
    TOLERANCE,
    check_mode,
    export_bundle,
    relative_deviation,
    rounding,
    torch_answers,
)  # fmt: skip
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe
from wenet_trainer.train import train


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})


@pytest.fixture
def frontier(checkpoint, tmp_path):
    return find_frontier(checkpoint, tmp_path / "f.json", keep=4, search_images=64, draws=16, rounds=3, quiet=True)


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
        engine = OrtBackend().load_bytes(materialize(supernet, mode.groups, bundle.statistics(mode)), name=mode.id)
        answers = engine.infer({"image": golden["input.image"]})["logits"]
        reference = golden[f"{mode.id}.logits"]
        assert np.abs(answers - reference).max() <= TOLERANCE * np.abs(reference).max()
        engine.close()


def test_a_mode_that_deviates_fails_the_export_and_nothing_is_written(checkpoint, frontier, tmp_path, monkeypatch):
    def shuffled(net, shape):
        described = describe(net, shape)
        straight = tuple(dataclasses.replace(shuffle, groups=1) for shuffle in described.shuffles)
        return dataclasses.replace(described, shuffles=straight)

    monkeypatch.setattr("wenet_trainer.export.describe", shuffled)
    with pytest.raises(ExportError, match=r"mode 'm0' .* deviates from torch by .* nothing was written"):
        export_bundle(checkpoint, frontier, tmp_path / "bundle", quiet=True)
    assert not (tmp_path / "bundle").exists()


def test_what_torch_rounds_itself_is_no_deviation(checkpoint, frontier, monkeypatch):
    net, mode = checkpoint.network(), frontier.modes[0]
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


def test_a_frontier_found_before_further_training_is_refused(tmp_path):
    recipe = Recipe(data=FEW, model="tiny", epochs=2, batch=32)
    early = train(recipe, tmp_path / "run", stop_after=1, quiet=True)
    frontier = find_frontier(early, tmp_path / "f.json", keep=2, search_images=32, draws=2, rounds=2, quiet=True)
    later = train(recipe, tmp_path / "run", quiet=True)
    with pytest.raises(ExportError, match=r"this checkpoint has \w{12} after 2 epochs.*explore this checkpoint again"):
        export_bundle(later, frontier, tmp_path / "bundle", quiet=True)
    assert not (tmp_path / "bundle").exists()
    export_bundle(early, frontier, tmp_path / "bundle", quiet=True)
