"""The dense network: its patterns, what they cost, and that what is exported answers as torch does."""

import random

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from tests.trainer.conftest import lively
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import lower
from wenet_runtime.profiler import load_graph
from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import NetworkError
from wenet_trainer.models import build
from wenet_trainer.models.digits_mlp import DigitsMlp, patches
from wenet_trainer.norms import SwitchableBatchNorm1d
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import layer_blocks, set_active, shuffles, switchable_norms, weight_enabled
from wenet_trainer.topology import INPUT, OUTPUT, describe

SHAPE = (1, 32, 32)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def net():
    net = lively("digits_mlp")
    with torch.no_grad():
        for layer in weight_enabled(net).values():  # so large that in 16 groups, too, the image outweighs the norms
            layer.weight.normal_(0, 4 * layer.in_features**-0.5)
    return net


@pytest.fixture(scope="module")
def described(net):
    return describe(net, SHAPE)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def torch_answers(net, config, images):
    set_active(net, config)
    with torch.inference_mode():
        return net(images).numpy()


def engine_answers(graph, images):
    engine = load_graph(OrtBackend(), graph, "test")
    try:
        return engine.infer({INPUT: images.numpy()})[OUTPUT]
    finally:
        engine.close()


def deviation(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_every_layer_reaches_sixteen_groups_and_is_a_block_of_its_own(net):
    layers = weight_enabled(net)
    assert [layer.groups_allowed for layer in layers.values()] == [(1, 2, 4, 8, 16)] * 3
    assert all(layer.bias is None for layer in layers.values())
    assert layer_blocks(net) == tuple((name,) for name in layers)
    norms = switchable_norms(net).values()
    assert [norm.fed_by for norm in norms] == list(layers.values())
    assert all(isinstance(norm, SwitchableBatchNorm1d) for norm in norms)
    assert [shuffle.channels for shuffle in shuffles(net).values()] == [
        layer.out_features for layer in layers.values()
    ][:2]


def test_a_patch_is_what_a_group_of_the_first_layer_sees(net, images):
    rows = patches(images).view(3, 16, 8, 8)
    assert torch.equal(rows[:, 0], images[:, 0, :8, :8])
    assert torch.equal(rows[:, 1], images[:, 0, :8, 8:16])
    assert torch.equal(rows[:, 15], images[:, 0, 24:, 24:])
    set_active(net, SearchSpace.of(net).smallest())
    seen = images.clone().requires_grad_()
    first = net.layers[0].linear(patches(seen))
    first[0, 0].backward()  # the first output of the first group
    assert seen.grad[0, 0, :8, :8].abs().min() > 0
    assert seen.grad.count_nonzero() == 64


def test_patterns_cost_their_share_of_the_arithmetic(net):
    costs, (full, *others) = measure_costs(net, SHAPE), SearchSpace.of(net).uniforms()
    head = net.head.weight.numel()
    assert costs.macs(full) == sum(layer.weight.numel() for layer in weight_enabled(net).values()) + head
    for level, config in zip((2, 4, 8, 16), others):
        assert costs.macs(config) - head == (costs.macs(full) - head) // level


def test_what_is_exported_answers_as_torch_does_in_any_configuration_and_emission(net, described, images):
    space, rng = SearchSpace.of(net), random.Random(0)
    for config in (*space.uniforms(), *(space.sample(rng) for _ in range(20))):
        expected = torch_answers(net, config, images)
        assert deviation(expected[0], expected[1]) > 1000 * TOLERANCE  # else the images would not matter
        emitted = {name: max(1, groups // rng.choice([1, 2, 16])) for name, groups in dict(config).items()}
        assert deviation(engine_answers(lower(described, config), images), expected) <= TOLERANCE
        assert deviation(engine_answers(lower(described, config, emitted=emitted), images), expected) <= TOLERANCE


def test_a_wrong_pattern_or_a_dropped_shuffle_is_noticed(net, described, images):
    config = dict(SearchSpace.of(net).uniforms()[2])
    expected = torch_answers(net, config, images)
    first = next(iter(config))
    assert deviation(engine_answers(lower(described, {**config, first: 8}), images), expected) >= 1e-2
    graph = lower(described, config)
    for shuffle in described.shuffles:
        graph.bypass(graph.node(shuffle.node))
    assert deviation(engine_answers(graph, images), expected) >= 1e-2


def test_its_topology_holds_no_numbers_of_the_network(described):
    model = onnx.load_from_string(described.topology)
    assert len(described.topology) < 10_000
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Gemm") == 4
    assert "MatMul" not in kinds


def test_it_learns_in_every_pattern():
    torch.manual_seed(0)
    net = DigitsMlp(width=64, layers=2, classes=4)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    images, labels = torch.randn(64, *SHAPE), torch.arange(64) % 4
    for row, label in enumerate(labels):
        images[row, 0, label * 8 : label * 8 + 8] += 0.5
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        total = 0.0
        for config in SearchSpace.of(net).uniforms():
            set_active(net, config)
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            total = max(total, loss.item())
        optimizer.step()
        losses.append(total)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("arguments", [{"width": 48}, {"width": 8, "layers": 1}, {"layers": 0}, {"width": 0}])
def test_widths_that_cannot_be_grouped_are_refused(arguments):
    with pytest.raises(NetworkError, match=r"does not give multiples of 16: take at least one layer and"):
        build("digits_mlp", arguments)
    assert build("digits_mlp", {"width": 32, "layers": 2, "classes": 3})(torch.zeros(2, *SHAPE)).shape == (2, 3)
