"""Flexible width: one network that runs at several widths, as slimmable and universally slimmable networks do."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.norms import BatchNorm
from wenet_trainer.peers.slimmable_layers import FULL, SlimmableLayer
from wenet_trainer.peers.slimmable_norms import SlimmableBatchNorm
from wenet_trainer.peers.slimming import distinct_widths, slimmed

WIDTHS = tuple(range(FULL, 3, -1))  # 16/16 … 4/16: a quarter of the width is about a sixteenth of the MACs
KNOB = "width"


class Slimmable(nn.Module):
    """A network whose every layer runs with a share of its channels, the same share everywhere.

    Level 1 is the full width; level k keeps each layer's first `widths[k - 1]` sixteenths. The image's
    channels and the logits are never slimmed. Batch norms are private to each level (S-BN), or share γ and β
    over all widths, as in US-Net, and have private statistics only. Of a WeNet supernet all weights are used:
    its layers become dense and its shuffles nothing. The sandwich rule, the distillation and the recalibration
    of US-Net come from the trainer, as for every network.

    Args:
        net: a plain network or a supernet; it is copied. Its classifier is the layer it defines last.
        widths: sixteenths, descending. Widths that keep the same channels everywhere are one level.
        divisor: channel counts are multiples of it, and at least it, where the full network has that many.
        shared_affine: 1 for one γ and β in each batch norm, of which a level uses its first channels; 0 for
            private ones. A whole number, because that is what recipes give to networks.

    Attributes:
        levels: the width levels.
        widths: the sixteenths of each level.

    Raises:
        NetworkError: the widths make no sense, or the network has a layer that cannot be slimmed.
    """

    levels: Mapping[str, tuple[int, ...]]

    def __init__(
        self, net: nn.Module, widths: Sequence[int] = WIDTHS, divisor: int = 8, shared_affine: int = 0
    ) -> None:
        super().__init__()
        if not widths or list(widths) != sorted(set(widths), reverse=True) or not 0 < widths[-1] <= widths[0] <= FULL:
            raise NetworkError(f"widths are {list(widths)}: give sixteenths from {FULL} down to 1, descending")
        if divisor < 1:
            raise NetworkError(f"the divisor of channel counts is {divisor}: give at least 1")
        if shared_affine not in (0, 1):
            raise NetworkError(f"shared_affine is {shared_affine}: give 1 to share γ and β over the widths, else 0")
        self.widths = distinct_widths(net, widths, divisor)
        self.levels = {KNOB: tuple(range(1, len(self.widths) + 1))}
        self.net = slimmed(net, self.widths, divisor, shared_affine=bool(shared_affine))
        self._classes = self._layers()[-1].outs[0]
        self._active = 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, classes) logits at the active width.

        Raises:
            NetworkError: other channels arrive at a layer than this width brings, see `Slimmable`.
        """
        logits: Tensor = self.net(x)
        if logits.shape[1] != self._classes:
            raise NetworkError(
                f"the network answers {logits.shape[1]} numbers, but the layer it defines last gives {self._classes}: "
                "define its classifier last, so that the logits are never slimmed"
            )
        return logits

    def activate(self, config: Mapping[str, int]) -> None:
        """Let the next forward run at this width level.

        Raises:
            NetworkError: the configuration is not {"width": a level}.
        """
        level = self._level(config)
        for module in self.modules():
            if isinstance(module, SlimmableLayer | SlimmableBatchNorm):
                module.level = level
        self._active = level

    def norms_in_use(self) -> dict[str, BatchNorm]:
        """The batch norms of the active width, by module name."""
        names = {id(module): name for name, module in self.named_modules()}
        active = [module.active() for module in self.modules() if isinstance(module, SlimmableBatchNorm)]
        return {names[id(norm)]: norm for norm in active}

    def macs(self, config: Mapping[str, int], input_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for one image of (C, H, W), recorded in one forward at this width.

        The active width, the training flag and all statistics stay as they were.
        """
        count = 0

        def record(layer: SlimmableLayer, _inputs: object, output: Tensor) -> None:
            nonlocal count
            weight, _ = layer.active()
            count += output.numel() // len(weight) * weight.numel()

        hooks = [layer.register_forward_hook(record) for layer in self._layers()]
        was_training, was_active = self.training, self._active
        try:
            self.activate(config)
            with torch.inference_mode():
                self.eval()(torch.zeros(1, *input_shape, device=next(self.parameters()).device))
        finally:
            self.train(was_training)
            self.activate({KNOB: was_active})
            for hook in hooks:
                hook.remove()
        return count

    def params(self, config: Mapping[str, int]) -> int:
        """Parameters in use at this width: slices of weights and biases, γ and β of its batch norms."""
        was_active = self._active
        self.activate(config)
        try:
            slices = [part for layer in self._layers() for part in layer.active() if part is not None]
            norms = (module for module in self.modules() if isinstance(module, SlimmableBatchNorm))
            affine = [part for norm in norms for part in norm.affine_in_use()]
            return sum(p.numel() for p in [*slices, *affine])
        finally:
            self.activate({KNOB: was_active})

    def _layers(self) -> list[SlimmableLayer]:
        return [module for module in self.modules() if isinstance(module, SlimmableLayer)]

    def _level(self, config: Mapping[str, int]) -> int:
        known = self.levels[KNOB]
        if set(config) != {KNOB} or config[KNOB] not in known:
            raise NetworkError(
                f"the configuration {dict(config)} does not fit this slimmable network: give {{'{KNOB}': level}} "
                f"with a level from {known[0]} to {known[-1]}"
            )
        return config[KNOB]
