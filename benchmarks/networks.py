"""The paper's three networks with random numbers: what their operating modes cost needs no training."""

import dataclasses
import random
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from wenet_runtime.materialize import Supernet
from wenet_trainer.cost import measure_costs
from wenet_trainer.models import build
from wenet_trainer.models.digits_resnet import Bottleneck
from wenet_trainer.models.efficientnet import MBConv
from wenet_trainer.models.mobilenet_v2 import InvertedResidual
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import fixed_norms, set_active, switchable_norms
from wenet_trainer.topology import describe

MIXED = 12  # random configurations that the statistics are drawn for, beside the uniform ones
NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")


def make(name: str, seed: int = 0, size: int = 224) -> Supernet:
    """One of the three as the runtime reads it, for images of 3 × size × size; its numbers follow from the seed."""
    return describe(make_torch(name, seed), (3, size, size))


def make_torch(name: str, seed: int = 0) -> nn.Module:
    """The torch supernet that `make` describes, at full width and in evaluation mode.

    Every pattern of every batch norm has affine parameters and statistics of its own, so that a mix-up
    shows in the answers, and the answers depend on the image in every configuration.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = build(name).eval()
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, BatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
        for module in net.modules():
            if isinstance(module, Bottleneck | InvertedResidual | MBConv):
                for norm in _last_norms(module):  # small, or the sum over many blocks explodes
                    norm.weight.uniform_(0.1, 0.4)
        _settle(net, seed)
    return net


def without_shuffles(supernet: Supernet) -> Supernet:
    """The same supernet with its shuffles' nodes bypassed: the paper's table II, "without shuffling"."""
    model = onnx.load_from_string(supernet.topology)
    gone = {shuffle.node for shuffle in supernet.shuffles}
    removed = [node for node in model.graph.node if node.name in gone]
    sources = {node.output[0]: node.input[0] for node in removed}
    for node in removed:
        model.graph.node.remove(node)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = sources.get(name, name)
    orders = {node.input[1] for node in removed}
    for value in [value for value in model.graph.input if value.name in orders]:
        model.graph.input.remove(value)
    return dataclasses.replace(supernet, topology=model.SerializeToString(), shuffles=())


def uniform(supernet: Supernet, groups: int) -> dict[str, int]:
    """Every layer at `groups`, clipped to what it allows."""
    return {layer.name: max(one for one in layer.groups if one <= groups) for layer in supernet.layers}


def random_groups(supernet: Supernet, seed: int) -> dict[str, int]:
    """A random configuration."""
    choose = np.random.default_rng(seed)
    return {layer.name: int(choose.choice(layer.groups)) for layer in supernet.layers}


def macs(net: nn.Module, groups: Mapping[str, int], size: int = 224) -> int:
    """Multiply-accumulates of one configuration for one image of 3 × size × size."""
    return measure_costs(net, (3, size, size)).macs(groups)


def _last_norms(block: Bottleneck | InvertedResidual | MBConv) -> list[BatchNorm]:
    """Every pattern's norm at the end of a residual block's branch."""
    branch = block.bn3 if isinstance(block, Bottleneck) else block
    *_, last = switchable_norms(branch).values()
    return [norm for _, norm in last.norms()]


def _settle(net: nn.Module, seed: int) -> None:
    """Draw every norm's statistics in units of what it meets: means from ±0.3, variances from 0.5 to 2.

    Units of 1 would fit no grouped layer, whose sums are shorter: after some of them only the biases
    would be left, and the answers would not depend on the image. Where another configuration brings a norm
    more than the one before did its statistics grow with it, or the signal would explode and rounding with it.
    """
    met: dict[BatchNorm, float] = {}

    def settle(module: nn.Module, inputs: tuple[Tensor]) -> None:
        norm = module.active_norm() if isinstance(module, SwitchableBatchNorm) else module
        assert isinstance(norm, BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        square = float(inputs[0].square().mean())
        if norm not in met:
            met[norm] = 1.0
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 2.0)
        if met[norm] < square or met[norm] == 1.0:
            norm.running_mean.mul_((square / met[norm]) ** 0.5)
            norm.running_var.mul_(square / met[norm])
            met[norm] = square

    norms: dict[str, BatchNorm] = {**switchable_norms(net), **fixed_norms(net)}
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms.values()]
    space, rng = SearchSpace.of(net), random.Random(seed)
    for config in (*space.uniforms(), *(space.sample(rng) for _ in range(MIXED))):
        set_active(net, config)
        net(torch.randn(4, 3, 64, 64))
    set_active(net, space.full())
    for hook in hooks:
        hook.remove()
