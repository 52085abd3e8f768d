import random

import numpy as np
import pytest
import torch

from tests.trainer.conftest import lively
from tests.trainer.convert import nets
from tests.trainer.explore.test_cuts import (
    AsksWhatIsActive,
    Chain,
    ChangesTheShortcut,
    NeverRunsOne,
    NormsTwice,
    enliven,
)
from wenet_runtime.bundle import Preprocess
from wenet_trainer import evaluate
from wenet_trainer.convert import convert
from wenet_trainer.data.base import Images
from wenet_trainer.evaluate import accuracy_on, input_batches, recalibrated
from wenet_trainer.explore.cuts import cut
from wenet_trainer.explore.shared_prefix import SharedPrefix
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import set_active, weight_enabled

NETWORKS = {
    "tiny": lambda: lively("tiny"),
    "digits_resnet": lambda: lively("digits_resnet"),
    "digits_mlp": lambda: lively("digits_mlp"),
    "small_resnet": lambda: lively("small_resnet"),
    "mobilenet_v2": lambda: lively("mobilenet_v2"),
    "converted chain": lambda: enliven(convert(nets.vgg()).net),
    "converted residual": lambda: enliven(convert(nets.Residual()).net),
    "converted bottlenecks": lambda: enliven(convert(nets.Bottlenecks()).net),
    "whole": lambda: enliven(AsksWhatIsActive()),
    "a norm that runs twice": lambda: enliven(NormsTwice()),
    "changed in place": lambda: enliven(ChangesTheShortcut()),
    "a layer that never runs": lambda: enliven(NeverRunsOne()),
}


class Sight:
    """Images and what goes with them, of a shape that a network takes."""

    def __init__(self, net, count, calibration):
        rng = np.random.default_rng(0)
        channels = next(net.parameters()).shape[1] if next(net.parameters()).dim() == 4 else 1
        pixels = rng.integers(0, 256, (count, channels, 32, 32), dtype=np.uint8)
        self.images = Images(pixels, rng.integers(0, 10, count))
        mean, std = (0.5,) * channels, (0.25,) * channels
        self.preprocess = Preprocess(color="RGB" if channels == 3 else "L", height=32, width=32, mean=mean, std=std)
        self.calibration = torch.randn(calibration, channels, 32, 32, generator=torch.Generator().manual_seed(0))

    def plain(self, net, config):
        """One configuration alone: answers, and statistics by name."""
        with recalibrated(net, config, self.calibration) as statistics:
            set_active(net, config)
            answers = evaluate._answers(net, input_batches(self.images, self.preprocess))
            right = answers.argmax(1).numpy() == self.images.labels
            assert accuracy_on(net, config, self.images, self.preprocess).value == right.mean()
        return right, answers, statistics


class Watched(SharedPrefix):
    """Keeps what a test wants to see."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.branches, self.answers = 0, {}

    def _tree(self, configs):
        self.roots = super()._tree(configs)
        return self.roots

    def _descend(self, branch, depth, values, calibrating):
        self.branches += 1
        for leaf, answers in super()._descend(branch, depth, values, calibrating):
            if depth == len(self._segments) - 1 and not calibrating:
                self.answers.setdefault(leaf, []).append(answers.clone())
            yield leaf, answers


def statistics_of(shared, config):
    """What was gathered for one configuration, as `recalibrated` names it."""
    branches, found = shared.roots, {}
    for segment in shared._segments:
        groups = tuple(config[name] for name in segment.layers)
        branch = next(one for one in branches if one.groups == groups)
        for name, (mean, variance, batches) in branch.statistics.items():
            switch = shared._norms[name]
            level = config[next(k for k, v in weight_enabled(shared._net).items() if v is switch.fed_by)] \
                if hasattr(switch, "fed_by") else 1  # fmt: skip
            full = name if level == 1 else f"{name}.patterns.{level}"
            if batches:
                found |= {f"{full}.running_mean": mean.numpy(), f"{full}.running_var": variance.numpy()}
        branches = list(branch.children.values())
    return found


def some(net, count):
    """Ends, random ones, and some that differ in one late layer alone."""
    space, rng = SearchSpace.of(net), random.Random(0)
    configs = [space.full(), space.smallest(), *(space.sample(rng) for _ in range(count))]
    last = space.knobs[-1][-1]
    late = [type(one)({**one, last: rng.choice(space.allowed[last])}) for one in configs]
    return list(dict.fromkeys([*configs, *late]))


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_and_statistics_equal_those_of_each_configuration_alone(name, monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 8)
    torch.manual_seed(0)
    net = NETWORKS[name]()
    sight = Sight(net, 19, 16)
    configs = some(net, 1 if name in ("mobilenet_v2", "digits_resnet") else 3)
    shared = Watched(net, cut(net, sight.calibration[:2]))
    right = shared.right(configs, sight.calibration, sight.images, sight.preprocess)
    for number, config in enumerate(configs):
        expected, answers, statistics = sight.plain(net, config)
        assert torch.equal(torch.cat(shared.answers[number]), answers)
        assert (right[number] == expected).all()
        gathered = statistics_of(shared, config)
        assert gathered.keys() == statistics.keys()
        for key, value in statistics.items():
            np.testing.assert_allclose(gathered[key], value, rtol=1e-6, atol=1e-6)


def test_statistics_of_another_configuration_would_be_seen():
    """The control of the test above: what it compares does depend on the configuration."""
    net = enliven(Chain())
    sight = Sight(net, 60, 32)
    space = SearchSpace.of(net)
    one, other = (sight.plain(net, config) for config in (space.full(), space.smallest()))
    assert (one[0] != other[0]).any()
    assert not np.allclose(one[2]["second_bn.running_mean"], other[2]["second_bn.patterns.16.running_mean"], atol=1e-3)


def test_what_configurations_agree_on_runs_once_a_batch(monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 16)
    net = enliven(Chain())
    sight = Sight(net, 32, 32)
    configs = [GroupConfig({"first": a, "second": b}) for a in (1, 4) for b in (1, 2, 16)]
    runs = []
    net.stem.register_forward_hook(lambda *_: runs.append("stem"))
    net.first.register_forward_hook(lambda *_: runs.append("first"))
    net.second.register_forward_hook(lambda *_: runs.append("second"))
    cuts = cut(net, sight.calibration[:2])
    runs.clear()
    shared = Watched(net, cuts)
    shared.right(configs, sight.calibration, sight.images, sight.preprocess)
    batches = 4
    assert [runs.count(name) for name in ("stem", "first", "second")] == [batches, 2 * batches, 6 * batches]
    assert shared.branches == batches * (1 + 2 + 6)


def test_the_network_is_left_as_it_was_even_after_an_error():
    net = enliven(Chain())
    space, sight = SearchSpace.of(net), Sight(net, 8, 8)
    cuts = cut(net, sight.calibration[:2])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    set_active(net.train(), space.uniform(4))
    shared = SharedPrefix(net, cuts)
    shared.right([space.full()], sight.calibration, sight.images, sight.preprocess)
    wrong = Images(np.zeros((2, 4, 32, 32), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(RuntimeError):
        shared.right([space.full()], sight.calibration, wrong, sight.preprocess)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert net.first_bn.momentum == 0.1
    assert {layer.active_groups for layer in weight_enabled(net).values()} == {4}


def test_the_work_that_is_observed_sums_to_the_configurations():
    net, seen = enliven(Chain()), []
    sight, space = Sight(net, 300, 20), SearchSpace.of(net)
    shared = SharedPrefix(net, cut(net, sight.calibration[:2]), seen.append)
    shared.right(space.uniforms(), sight.calibration, sight.images, sight.preprocess)
    assert sum(seen) == pytest.approx(len(space.uniforms()))
    assert len(seen) == 3 * len(space.uniforms())


def test_where_forks_would_hold_too_much_less_is_shared_and_the_answers_are_the_same():
    net = enliven(Chain())
    sight = Sight(net, 20, 20)
    cuts = cut(net, sight.calibration[:2])
    # Behind the stem and behind `first`: (32, 8, 8) float32 for each image.
    assert [segment.bytes_alive for segment in cuts.segments] == [8192, 8192, 20]
    configs = [GroupConfig({"first": a, "second": b}) for a in (1, 4) for b in (1, 2, 16)]
    found, walks = [], []
    for most in (2 * 8192 * evaluate.BATCH, 2 * 8192 * evaluate.BATCH - 1, 0):
        shared = Watched(net, cuts, most_held=most)
        found.append(shared.right(configs, sight.calibration, sight.images, sight.preprocess))
        walks.append(shared.branches)
    assert walks == [2 * (1 + 2 + 6), 2 * 2 * (1 + 1 + 3), 2 * 6 * 3]
    assert all((one == found[0]).all() for one in found)
