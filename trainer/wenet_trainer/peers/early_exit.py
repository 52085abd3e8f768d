"""Flexible depth: one network with an exit behind every block, after BranchyNet's idea."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice

import torch
from torch import Tensor, nn

from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import NetworkError
from wenet_trainer.norms import BatchNorm
from wenet_trainer.supernet import active_norms, switchable_norms, weight_enabled

KNOB = "exit"


class EarlyExit(nn.Module):
    """A network that can stop after any of its blocks; nothing behind the chosen exit is computed.

    Level 1 is the network's own head after the last block; each further level runs one block fewer. An
    exit is what the network itself does between blocks and head (global average pooling) and a linear
    layer, or two with a ReLU between. BranchyNet's exits may have convolutions too; these do not.

    Two things differ from BranchyNet. It trains all exits with one weighted loss and one backward; here
    each exit is a sub-network of the harness's step, so the drawn exits are trained, with equal weight.
    It leaves at the first exit that is sure of the image at hand; here the configuration decides.
    Weight-enabled layers inside stay at pattern 1, that is dense, and their shuffles stay.

    Args:
        net: a network that runs its stem, its blocks, global pooling and its head; it is copied.
        input_shape: (C, H, W) of one image, to find how many channels each block gives.
        hidden: features of an exit's first linear layer; 0 for exits of one layer.
        blocks: name of the `nn.Sequential` that holds the blocks.
        head: name of the module that turns pooled features into logits.

    Attributes:
        levels: the exits, the last one first.

    Raises:
        NetworkError: the network is not built like that.
    """

    levels: Mapping[str, tuple[int, ...]]

    def __init__(
        self,
        net: nn.Module,
        input_shape: tuple[int, ...],
        hidden: int = 0,
        blocks: str = "blocks",
        head: str = "head",
    ) -> None:
        super().__init__()
        row, last = getattr(net, blocks, None), getattr(net, head, None)
        if not isinstance(row, nn.Sequential) or not len(row) or not isinstance(last, nn.Module):
            raise NetworkError(
                f"{type(net).__name__} needs a Sequential '{blocks}' and a module '{head}' to get exits: "
                "name the ones it has"
            )
        if hidden < 0:
            raise NetworkError(f"an exit cannot have {hidden} hidden features: give 0 or more")
        channels, classes = _measure(net, row, last, input_shape)
        self.levels = {KNOB: tuple(range(1, len(row) + 1))}
        self.net = deepcopy(net)
        for layer in weight_enabled(self.net).values():
            layer.set_groups(1)
        exits = [_exit(count, hidden, classes) for count in channels[:-1]]
        # In the places of blocks and head, so that the network's own forward does the rest.
        setattr(self.net, blocks, _FirstBlocks(*getattr(self.net, blocks)))
        setattr(self.net, head, _Exits([*exits, getattr(self.net, head)]))
        self._places = blocks, head

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, classes) logits of the active exit."""
        logits: Tensor = self.net(x)
        return logits

    def activate(self, config: Mapping[str, int]) -> None:
        """Let the next forward stop at this exit.

        Raises:
            NetworkError: the configuration is not {"exit": a level}.
        """
        known = self.levels[KNOB]
        if set(config) != {KNOB} or config[KNOB] not in known:
            raise NetworkError(
                f"the configuration {dict(config)} does not fit this network of early exits: give {{'{KNOB}': level}} "
                f"with a level from {known[0]} to {known[-1]}"
            )
        blocks, exits = self._parts()
        blocks.count = len(blocks) + 1 - config[KNOB]
        exits.chosen = blocks.count - 1

    def norms_in_use(self) -> dict[str, BatchNorm]:
        """The batch norms up to the active exit, by module name."""
        idle = self._idle()
        return {f"net.{name}": norm for name, norm in active_norms(self.net).items() if norm not in idle}

    def macs(self, config: Mapping[str, int], input_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for one image of (C, H, W), recorded in one forward up to this exit.

        The active exit, the training flag and all statistics stay as they were.
        """
        with self._activated(config):
            costs = measure_costs(self.net, input_shape)  # layers that the forward does not reach count nothing
        return costs.macs(dict.fromkeys(costs.layers, 1))

    def params(self, config: Mapping[str, int]) -> int:
        """Parameters in use up to this exit, its own included."""
        with self._activated(config):
            unused = self._idle()
            for switch in switchable_norms(self.net).values():
                unused |= set(switch.patterns.modules())
            used = (module for module in self.net.modules() if module not in unused)
            return sum(p.numel() for module in used for p in module.parameters(recurse=False))

    @contextmanager
    def _activated(self, config: Mapping[str, int]) -> Iterator[None]:
        was_active = {KNOB: len(self._parts()[0]) + 1 - self._parts()[0].count}
        self.activate(config)
        try:
            yield
        finally:
            self.activate(was_active)

    def _parts(self) -> tuple["_FirstBlocks", "_Exits"]:
        blocks, exits = (getattr(self.net, place) for place in self._places)
        assert isinstance(blocks, _FirstBlocks)
        assert isinstance(exits, _Exits)
        return blocks, exits

    def _idle(self) -> set[nn.Module]:
        """Every module that the active exit does without."""
        blocks, exits = self._parts()
        idle = [*islice(blocks, blocks.count, None), *(end for n, end in enumerate(exits) if n != exits.chosen)]
        return {module for part in idle for module in part.modules()}


class _FirstBlocks(nn.Sequential):
    """A Sequential that can stop early."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.count = len(blocks)

    def forward(self, input: Tensor) -> Tensor:
        """The input through the first `count` blocks."""
        for block in islice(self, self.count):
            input = block(input)
        return input


class _Exits(nn.ModuleList):
    """The heads, one for each block, of which one answers."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__(heads)
        self.chosen = len(heads) - 1

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) → (N, classes) by the chosen head."""
        logits: Tensor = self[self.chosen](features)
        return logits


def _exit(channels: int, hidden: int, classes: int) -> nn.Module:
    if hidden == 0:
        return nn.Linear(channels, classes)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes))


def _measure(
    net: nn.Module, blocks: nn.Sequential, head: nn.Module, input_shape: tuple[int, ...]
) -> tuple[list[int], int]:
    """Channels behind each block, and the number of classes, found in one forward of one image."""
    outputs: dict[nn.Module, Tensor] = {}
    arrived: list[Tensor] = []
    hooks = [
        *(block.register_forward_hook(lambda block, _, output: outputs.update({block: output})) for block in blocks),
        head.register_forward_pre_hook(lambda _, inputs: arrived.append(inputs[0])),
    ]
    was_training = net.training
    try:
        with torch.inference_mode():
            logits = net.eval()(torch.zeros(1, *input_shape, device=next(net.parameters()).device))
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    shapes = [tuple(outputs[block].shape) for block in blocks]
    if [tuple(x.shape) for x in arrived] != [shapes[-1][:2]]:
        raise NetworkError(
            f"the head of {type(net).__name__} gets {[tuple(x.shape) for x in arrived]} of blocks that give "
            f"{shapes[-1]}: exits need nothing but global pooling between the two"
        )
    return [shape[1] for shape in shapes], logits.shape[1]
