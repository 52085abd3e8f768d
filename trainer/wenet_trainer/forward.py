"""What runs an active configuration in training: the network itself, or a compiled form of it."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from wenet_trainer.space import GroupConfig, SearchSpace

Forward = Callable[[Mapping[str, int], Tensor], Tensor]


def open_forward(net: nn.Module, space: SearchSpace, *, compile_ends: bool, backend: str = "inductor") -> Forward:
    """The forward of every configuration.

    A pattern is a constant to the compiler, so each configuration is a program of its own, compiled
    in its first step. That pays for the full and the smallest network, which come back in every step;
    the others run as they are (the compiler keeps eight programs of one network at most).

    Args:
        net: the supernet; the configuration is active when the forward is called.
        space: of its configurations.
        compile_ends: compile these two.
        backend: of torch.compile.
    """
    if not compile_ends:
        return lambda _config, inputs: net(inputs)
    programs: dict[GroupConfig, Callable[[Tensor], Tensor]] = {}
    ends = {space.full(), space.smallest()}

    def forward(config: Mapping[str, int], inputs: Tensor) -> Tensor:
        key = GroupConfig(config)
        if key not in ends:
            eager: Tensor = net(inputs)
            return eager
        if key not in programs:
            programs[key] = torch.compile(_Frozen(net), backend=backend, dynamic=False)
        return programs[key](inputs)

    return forward


class _Frozen(nn.Module):
    """A new module around the network, so that each configuration has its own entry in the compiler's cache."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.net(inputs)
        return out
