"""Lines 4–20 of Algorithm 1: one batch through several sub-networks, one update of the weights."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.distill import NoTeacher, Teacher
from wenet_trainer.errors import TrainingError
from wenet_trainer.heap import give_back_surplus
from wenet_trainer.parallel import Workers
from wenet_trainer.recipe import Recipe
from wenet_trainer.supernet import set_active

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """Trains a supernet by one batch at a time.

    Args:
        net: the supernet in training mode.
        optimizer: over its parameters.
        recipe: label smoothing, clipping and precision are taken from it.
        teacher: of all sub-networks but the first.
        workers: the processes that share the batch.
        forward: what runs a configuration that is active; the network itself by default.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        *,
        teacher: Teacher | None = None,
        workers: Workers | None = None,
        forward: Callable[[Mapping[str, int], Tensor], Tensor] | None = None,
    ) -> None:
        self._net = net
        self._optimizer = optimizer
        self._recipe = recipe
        self._teacher = teacher or NoTeacher()
        self._workers = workers or Workers()
        self._forward = forward or (lambda _config, inputs: net(inputs))
        self._device = next(net.parameters()).device
        if recipe.amp == "fp16" and self._device.type != "cuda":
            raise TrainingError("fp16 needs a CUDA device, whose gradients are scaled: train with --amp bf16 or none")
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=recipe.amp == "fp16")

    def gradients(self, inputs: Tensor, labels: Tensor, configs: Sequence[Mapping[str, int]]) -> list[float]:
        """Add up every sub-network's gradient, each with its own forward and backward.

        Args:
            inputs: (N, C, H, W) this process's share of the batch.
            labels: (N,).
            configs: the sub-networks; the first is taught by the labels, and may teach the others.

        Returns:
            Each sub-network's loss, averaged over the processes.
        """
        self._optimizer.zero_grad()
        losses: list[Tensor] = []
        answers: Tensor | None = None
        for config in configs:
            set_active(self._net, config)
            with self._precision():
                logits = self._forward(config, inputs)
            loss = self._loss(logits.float(), labels, answers)
            torch.autograd.backward(self._scaler.scale(loss))
            if self._device.type == "cpu":
                give_back_surplus()
            if not losses and len(configs) > 1:  # now that the full network's activations are freed
                with self._precision():
                    answers = self._teacher.answers(inputs, logits.detach())
            losses.append(loss.detach())
        together = torch.stack(losses)
        self._workers.average([together])
        self._workers.average_gradients(self._net)
        found: list[float] = together.tolist()
        return found

    def scaler_state(self) -> dict[str, float]:
        """What fp16 needs to go on as it was: the gradients' scale and when it grows; empty otherwise."""
        state: dict[str, float] = self._scaler.state_dict()
        return state

    def restore_scaler(self, state: Mapping[str, float]) -> None:
        """Take back a `scaler_state`."""
        if state:
            self._scaler.load_state_dict(dict(state))

    def update(self) -> None:
        """Move the weights by what `gradients` added up."""
        self._scaler.unscale_(self._optimizer)
        if self._recipe.clip_norm:
            nn.utils.clip_grad_norm_(self._net.parameters(), self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._teacher.follow(self._net)

    def _precision(self) -> torch.autocast:
        dtype = DTYPES.get(self._recipe.amp, torch.bfloat16)
        return torch.autocast(self._device.type, dtype, enabled=self._recipe.amp != "none")

    def _loss(self, logits: Tensor, labels: Tensor, answers: Tensor | None) -> Tensor:
        hard = F.cross_entropy(logits, labels, label_smoothing=self._recipe.label_smoothing)
        if answers is None:
            return hard
        return torch.lerp(hard, F.cross_entropy(logits, answers), self._recipe.teacher_share)
