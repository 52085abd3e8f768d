"""The paper's three networks: torchvision's numbers fit them, and what is exported answers as torch does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import networks
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import materialize
from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import ChannelShuffle
from wenet_trainer.models import build
from wenet_trainer.models.efficientnet import MBConv, StochasticDepth
from wenet_trainer.models.mobilenet_v2 import InvertedResidual
from wenet_trainer.models.pretrained import load_full
from wenet_trainer.models.resnet import ResNet50
from wenet_trainer.models.tiny import DepthwiseBlock, TinyNet
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import fixed_norms, set_active, shuffles, switchable_norms, weight_enabled
from wenet_trainer.topology import describe

KEYS = json.loads((Path(__file__).parent / "torchvision_keys.json").read_text())
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SIZE = 64
TOLERANCE = 1e-5  # of the largest answer, as for every export


@pytest.fixture(scope="module", params=networks.NETWORKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def lively(name):
    return networks.make_torch(name)


@pytest.fixture(scope="module")
def described(lively):
    return describe(lively, (3, SIZE, SIZE))


def full_shapes(net):
    copies = tuple(f"{norm}.patterns." for norm in switchable_norms(net))
    return {key: list(value.shape) for key, value in net.state_dict().items() if not key.startswith(copies)}


def plain(net):
    """The state dict a plain network of this kind would have, with numbers that show every mix-up."""
    random = torch.Generator().manual_seed(1)
    state = {}
    for key, shape in full_shapes(net).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) == 1:
            state[key] = torch.rand(shape, generator=random) + 0.5
        else:
            state[key] = torch.randn(shape, generator=random) * np.prod(shape[1:]) ** -0.5
    return state


def straighten(net):
    for shuffle in shuffles(net).values():
        shuffle.permutation = torch.arange(shuffle.channels)
    return net


def torch_answers(net, groups, images):
    set_active(net, groups)
    with torch.inference_mode():
        return net(images).numpy()


def engine_answers(supernet, groups, images):
    engine = OrtBackend().load_bytes(materialize(supernet, groups), name="test")
    try:
        return engine.infer({"image": images.numpy()})["logits"]
    finally:
        engine.close()


def deviation(found, reference):
    return np.abs(found - reference).max() / np.abs(reference).max()


def test_the_full_network_has_the_names_and_shapes_of_torchvisions(name, lively):
    assert full_shapes(lively) == KEYS[name]
    assert list(full_shapes(lively)) == list(KEYS[name])


def test_the_kept_lists_are_what_torchvision_has(name, torchvision):
    with torch.device("meta"):
        reference = getattr(torchvision.models, name)()
    assert {key: list(value.shape) for key, value in reference.state_dict().items()} == KEYS[name]


@pytest.mark.parametrize(
    ("model", "layers", "mixes"), [("resnet50", 52, 16), ("mobilenet_v2", 34, 16), ("efficientnet_b0", 32, 15)]
)
def test_every_block_that_expands_is_shuffled_once_in_sixteen_groups(model, layers, mixes):
    net = build(model)
    assert len(weight_enabled(net)) == layers
    assert len(shuffles(net)) == mixes
    assert {shuffle.groups for shuffle in shuffles(net).values()} == {16}


def test_layers_with_24_or_40_channels_stop_at_eight_groups_and_all_others_reach_sixteen(name, lively):
    stopped = {
        layer: max(module.groups_allowed)
        for layer, module in weight_enabled(lively).items()
        if max(module.groups_allowed) < 16
    }
    assert set(stopped.values()) <= {8}
    narrow = {
        layer
        for layer, module in weight_enabled(lively).items()
        if {24, 40} & {module.in_channels, module.out_channels}
    }
    assert set(stopped) == narrow
    assert len(narrow) == {"resnet50": 0, "mobilenet_v2": 4, "efficientnet_b0": 8}[name]


def test_a_depthwise_norm_follows_its_expansion_and_is_fixed_where_there_is_none():
    mobile, efficient = build("mobilenet_v2"), build("efficientnet_b0")
    assert set(fixed_norms(mobile)) == {"features.0.1", "features.1.conv.0.1"}
    assert set(fixed_norms(efficient)) == {"features.0.1", "features.1.0.block.0.1"}
    assert set(fixed_norms(build("resnet50"))) == {"bn1"}
    expanding = [block for block in mobile.features if isinstance(block, InvertedResidual)][1:]
    assert len(expanding) == 16
    assert all(block.conv[1][1].fed_by is block.conv[0][0] for block in expanding)
    expanding = [module for module in efficient.modules() if isinstance(module, MBConv)][1:]
    assert len(expanding) == 15
    assert all(block.block[1][1].fed_by is block.block[0][0] for block in expanding)


def test_full_networks_cost_the_published_multiply_accumulates(name, lively):
    published = {"resnet50": 4.09e9, "mobilenet_v2": 0.30e9, "efficientnet_b0": 0.39e9}[name]
    groups = SearchSpace.of(lively).full()
    assert networks.macs(lively, groups) == pytest.approx(published, rel=0.02)
    parameters = sum(np.prod(shape) for key, shape in KEYS[name].items() if not key.endswith(STATISTICS))
    assert measure_costs(lively, (3, SIZE, SIZE)).params(groups) == parameters


def test_what_is_exported_answers_as_torch_does(lively, described):
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    bare = networks.without_shuffles(described)
    for groups in (networks.uniform(described, 1), *(networks.random_groups(described, seed) for seed in range(3))):
        reference = torch_answers(lively, groups, images)
        assert deviation(reference[0], reference[1]) > 100 * TOLERANCE  # else the images would not matter
        assert deviation(engine_answers(described, groups, images), reference) <= TOLERANCE
        assert deviation(engine_answers(bare, groups, images), reference) > 1000 * TOLERANCE


def with_grouped_classifier(name):
    """The network with a weight-enabled classifier and the lively numbers of the other one."""
    net = build(name, {"grouped_classifier": 1}).eval()
    net.load_state_dict(networks.make_torch(name).state_dict())
    return net


def test_a_grouped_classifier_changes_no_name_and_is_one_more_layer_of_eight_patterns(name, lively):
    net = build(name, {"grouped_classifier": 1})
    assert full_shapes(net) == KEYS[name]
    assert list(full_shapes(net)) == list(KEYS[name])
    assert len(shuffles(net)) == len(shuffles(lively))
    *others, last = weight_enabled(net)
    assert others == list(weight_enabled(lively))
    assert weight_enabled(net)[last].groups_allowed == (1, 2, 4, 8)
    load_full(net, plain(net))


def test_a_grouped_classifier_saves_its_share_of_multiply_accumulates(name, lively):
    net = build(name, {"grouped_classifier": 1})
    (*_, (last, layer)) = weight_enabled(net).items()
    full = dict(SearchSpace.of(net).full())
    assert networks.macs(net, full) == networks.macs(lively, SearchSpace.of(lively).full())
    for groups in (2, 4, 8):
        saved = networks.macs(net, full) - networks.macs(net, {**full, last: groups})
        assert saved == layer.weight.numel() - layer.weight.numel() // groups


def test_a_grouped_classifier_is_exported_as_it_answers(name):
    net = with_grouped_classifier(name)
    supernet = describe(net, (3, SIZE, SIZE))
    (*_, last) = weight_enabled(net)
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for seed, groups in enumerate((1, 2, 8)):
        config = {**networks.random_groups(supernet, seed), last: groups}
        reference = torch_answers(net, config, images)
        assert deviation(engine_answers(supernet, config, images), reference) <= TOLERANCE
        wrong = {**config, last: 4}
        assert deviation(engine_answers(supernet, wrong, images), reference) > 1000 * TOLERANCE


def test_a_classifier_that_cannot_be_grouped_is_refused():
    with pytest.raises(NetworkError, match="5 classes cannot be divided into two groups"):
        build("mobilenet_v2", {"classes": 5, "grouped_classifier": 1})
    with pytest.raises(NetworkError, match="grouped_classifier is 2: give 0"):
        build("efficientnet_b0", {"grouped_classifier": 2})


def test_without_shuffles_means_torch_without_shuffles(name, described):
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    bare = networks.without_shuffles(described)
    groups = networks.random_groups(described, 0)
    reference = torch_answers(straighten(networks.make_torch(name)), groups, images)
    assert deviation(engine_answers(bare, groups, images), reference) <= TOLERANCE
    assert len(described.shuffles) >= 15


def test_the_benchmarks_numbers_follow_from_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (networks.make_torch("mobilenet_v2", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["classifier.1.weight"], other["classifier.1.weight"])


def test_a_loaded_full_network_answers_as_the_plain_network_does(name):
    net, state = build(name).eval(), plain(build(name))
    reference = straighten(build(name)).eval()
    reference.load_state_dict(state, strict=False)
    images = torch.randn(2, 3, SIZE, SIZE)
    expected = torch_answers(reference, SearchSpace.of(net).full(), images)
    load_full(net, state)
    assert deviation(torch_answers(net, SearchSpace.of(net).full(), images), expected) <= TOLERANCE
    net.load_state_dict(state, strict=False)  # as they stand, the shuffles mix up the channels
    assert deviation(torch_answers(net, SearchSpace.of(net).full(), images), expected) > 1000 * TOLERANCE


def test_loading_starts_every_patterns_norm_as_a_copy_of_the_full_ones():
    net = ResNet50(classes=3, width=16, layers=(1, 1, 1, 1))
    state = plain(net)
    load_full(net, state)
    assert torch.equal(net.layer2[0].conv2.weight, state["layer2.0.conv2.weight"])
    for switch in switchable_norms(net).values():
        for _, norm in switch.norms():
            assert torch.equal(norm.weight, switch.weight)
            assert torch.equal(norm.bias, switch.bias)
            assert torch.equal(norm.running_mean, switch.running_mean)
            assert torch.equal(norm.running_var, switch.running_var)
            assert norm.num_batches_tracked == 7
    assert torch.equal(net.layer1[0].bn3.patterns["8"].running_var, state["layer1.0.bn3.running_var"])


def test_a_state_dict_that_does_not_fit_is_refused_by_name_and_nothing_is_loaded():
    net = ResNet50(classes=3, width=16, layers=(1, 1, 1, 1))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = plain(net)
    weight = state.pop("layer3.0.conv1.weight")
    with pytest.raises(NetworkError, match=r"it lacks layer3\.0\.conv1\.weight\. Take"):
        load_full(net, state)
    with pytest.raises(NetworkError, match=r"it has unknown layer3\.1\.conv1\.weight\. Take"):
        load_full(net, {**state, "layer3.0.conv1.weight": weight, "layer3.1.conv1.weight": weight})
    with pytest.raises(NetworkError, match=r"fc\.bias is \(4,\) instead of \(3,\)"):
        load_full(net, {**state, "layer3.0.conv1.weight": weight, "fc.bias": torch.zeros(4)})
    with pytest.raises(NetworkError, match=r"it lacks conv1\.weight, .* and \d+ more"):
        load_full(net, {})
    with pytest.raises(NetworkError, match=r"it has unknown bn1\.patterns"):
        load_full(net, {**plain(net), "bn1.patterns.2.weight": torch.zeros(16)})
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_shuffle_whose_layer_is_not_plain_to_see_is_refused():
    class Late(DepthwiseBlock):
        def __init__(self):
            super().__init__(32, 64)
            self.shuffle, self.late = nn.Identity(), ChannelShuffle(32)

    net = TinyNet()
    net.block = Late()
    load_full(net, plain(net))  # behind the projection and its norm
    net.block.late, net.block.between = nn.Identity(), nn.Conv2d(1, 1, 1)
    net.block.later = ChannelShuffle(32)
    with pytest.raises(NetworkError, match=r"the shuffle 'block\.later' follows"):
        load_full(net, plain(net))


def test_a_small_residual_network_learns_in_every_pattern():
    torch.manual_seed(0)
    net = ResNet50(classes=3, width=16, layers=(1, 2, 1, 1))
    space = SearchSpace.of(net)
    for config in space.uniforms():
        set_active(net, config)
        net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_stochastic_depth_drops_whole_images_in_training_only():
    torch.manual_seed(0)
    drop, branch = StochasticDepth(0.25), torch.ones(4000, 2, 3)
    kept = drop.train()(branch)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert drop.eval()(branch) is branch
    net = build("efficientnet_b0")
    blocks = [module.stochastic_depth.probability for module in net.modules() if isinstance(module, MBConv)]
    assert blocks == pytest.approx([0.2 * number / 16 for number in range(16)])
