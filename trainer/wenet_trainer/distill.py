"""Who teaches the sub-networks: nobody, the full network of this step, or a slow average of it."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wenet_trainer.errors import CheckpointError
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active


class NoTeacher:
    """Hard labels for all, as the paper has it. Also the base of the others."""

    def answers(self, inputs: Tensor, full_logits: Tensor) -> Tensor | None:
        """What the sub-networks shall answer: (N, classes) probabilities, or None for the labels.

        Args:
            inputs: the step's batch.
            full_logits: what the full network answered to it, detached: (N, classes).
        """
        return None

    def follow(self, net: nn.Module) -> None:
        """Called after every step."""

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs after a kill."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back a `state`. Raises `CheckpointError` if it is another teacher's."""
        if set(state) != set(self.state()):
            raise CheckpointError("the checkpoint holds another teacher's state: train again into another --out")


class InplaceTeacher(NoTeacher):
    """The full network of the same step teaches; it costs nothing more."""

    def answers(self, inputs: Tensor, full_logits: Tensor) -> Tensor | None:
        """The full network's probabilities."""
        return full_logits.float().softmax(1)


class EmaTeacher(NoTeacher):
    """An exponential moving average of the full network teaches: steadier, for one more forward a step.

    It normalises by the batch, as the network it follows does in training, so that its weights need
    no statistics of their own.

    Args:
        net: the supernet; copied.
        decay: of the average; it starts lower, so that early weights are soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self._net = copy.deepcopy(net).requires_grad_(requires_grad=False).train()
        set_active(self._net, SearchSpace.of(self._net).full())
        for module in self._net.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        self._decay = decay
        self._steps = torch.zeros((), dtype=torch.int64)

    def answers(self, inputs: Tensor, full_logits: Tensor) -> Tensor | None:
        """The average's probabilities."""
        with torch.no_grad():
            logits: Tensor = self._net(inputs)
        return logits.float().softmax(1)

    def follow(self, net: nn.Module) -> None:
        """Move towards the network's weights."""
        self._steps += 1
        steps = int(self._steps)
        decay = min(self._decay, (1 + steps) / (10 + steps))
        pairs: Sequence[tuple[Tensor, Tensor]] = [
            (mine, theirs.detach()) for mine, theirs in zip(self._net.parameters(), net.parameters(), strict=True)
        ]
        with torch.no_grad():
            torch._foreach_lerp_([mine for mine, _ in pairs], [theirs for _, theirs in pairs], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The average's parameters, and how many steps it has followed."""
        return {**{name: value.detach() for name, value in self._net.named_parameters()}, "steps": self._steps}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back a `state`. Raises `CheckpointError` if it is another teacher's."""
        super().restore(state)
        with torch.no_grad():
            for name, value in self.state().items():
                value.copy_(state[name])


Teacher = NoTeacher


def open_teacher(name: str, net: nn.Module, decay: float) -> Teacher:
    """The teacher of that name: none, inplace or ema."""
    if name == "ema":
        return EmaTeacher(net, decay)
    return InplaceTeacher() if name == "inplace" else NoTeacher()
