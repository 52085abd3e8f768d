"""What a configuration costs in arithmetic: equations (2) and (3) of the paper as code.

The paper writes the input's size; where a stride shrinks the output, every weight is used once per
*output* position, so the output's size is what counts.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wenet_trainer.layers import WeightEnabled
from wenet_trainer.norms import SwitchableBatchNorm
from wenet_trainer.supernet import Flexible, weight_enabled


@dataclass(frozen=True)
class LayerCost:
    """One layer at one group: what equation (2) needs, divided by the groups in (3)."""

    positions: int  # how often an image uses every weight: output height × width, or tokens; over all calls
    weights: int  # of the full layer
    other_params: int  # bias: never shrinks


@dataclass(frozen=True)
class Costs:
    """Costs of every configuration of one network at one input size.

    Attributes:
        layers: weight-enabled layers by name.
        fixed_macs: multiply-accumulates of the layers that no pattern changes.
        fixed_params: their parameters, and the affine parameters of one pattern of every batch norm.
    """

    layers: Mapping[str, LayerCost]
    fixed_macs: int
    fixed_params: int

    def macs(self, config: Mapping[str, int]) -> int:
        """Multiply-accumulates for one image: h·w·c_i·c_o·k² / groups, summed over layers."""
        enabled = (cost.positions * cost.weights // config[name] for name, cost in self.layers.items())
        return self.fixed_macs + sum(enabled)

    def params(self, config: Mapping[str, int]) -> int:
        """Parameters in use: enabled weights, biases, and γ and β of each norm's active pattern."""
        enabled = (cost.weights // config[name] + cost.other_params for name, cost in self.layers.items())
        return self.fixed_params + sum(enabled)


def measure_costs(net: nn.Module, input_shape: tuple[int, ...]) -> Costs:
    """Record every layer's output size in one forward of one image, then costs are arithmetic.

    A layer that the forward calls several times counts every call.

    Args:
        net: the supernet; its training flag and statistics are left as they were.
        input_shape: (C, H, W) of one input.
    """
    positions: Counter[str] = Counter()
    counted = (nn.Conv2d, nn.Linear)

    def record(name: str, module: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        positions[name] += output.numel() // len(module.weight)  # there is one image, so the rest are positions

    hooks = [
        module.register_forward_hook(lambda module, _inputs, output, name=name: record(name, module, output))
        for name, module in net.named_modules()
        if isinstance(module, counted)
    ]
    was_training = net.training
    try:
        with torch.inference_mode():
            net.eval()(torch.zeros(1, *input_shape, device=next(net.parameters()).device))
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()

    switched = weight_enabled(net)
    layers: dict[str, LayerCost] = {}
    fixed_macs = fixed_params = 0
    for name, module in net.named_modules():
        if isinstance(module, WeightEnabled):
            bias = 0 if module.bias is None else module.bias.numel()
            layers[name] = LayerCost(positions[name], module.weight.numel(), bias)
        elif isinstance(module, counted):
            fixed_macs += positions[name] * module.weight.numel()
    in_use = {id(p) for module in switched.values() for p in module.parameters()}
    for module in net.modules():
        if isinstance(module, SwitchableBatchNorm):
            in_use |= {id(p) for level, norm in module.norms() if level > 1 for p in norm.parameters()}
    fixed_params = sum(p.numel() for p in net.parameters() if id(p) not in in_use)
    return Costs(layers, fixed_macs, fixed_params)


def macs_of(net: nn.Module, config: Mapping[str, int], input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one configuration for one image of (C, H, W), whatever kind of network it is."""
    if isinstance(net, Flexible):
        return net.macs(config, input_shape)
    return measure_costs(net, input_shape).macs(config)
