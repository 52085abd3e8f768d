"""What every sampling gives: the sub-networks of one step, and a state that travels in the checkpoint."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wenet_trainer.cost import Costs
from wenet_trainer.space import GroupConfig, SearchSpace


@dataclass(frozen=True)
class Plan:
    """What a recipe says about sampling.

    Attributes:
        samples: s of Algorithm 1, full and smallest included.
        groups: the pattern that `fixed` trains.
        epochs: passes over the training images.
        seed: fixes every draw.
    """

    samples: int
    groups: int
    epochs: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """What a sampler may look at before an epoch.

    Attributes:
        net: the supernet as it is now; left as it was found.
        inputs: (N, C, H, W) normalised validation images, `Sampler.trial_images` or all there are, on the
            network's device.
        labels: (N,) their classes.
    """

    net: nn.Module
    inputs: Tensor
    labels: Tensor


class Sampler(ABC):
    """Draws the sandwich of a step: the full network, the smallest, and others.

    Attributes:
        trial_images: how many validation images a `Trial` shall have; 0 for a sampler that wants none.
    """

    trial_images = 0

    def __init__(self, plan: Plan, layers: SearchSpace, blocks: SearchSpace, costs: Costs | None) -> None:
        self.plan = plan
        self.layers = layers
        self.blocks = blocks
        self.costs = costs

    def sandwich(self, rng: random.Random) -> list[GroupConfig]:
        """One step's sub-networks in training order; the full network is first, because it may teach."""
        drawn = [self.draw(rng) for _ in range(self.plan.samples - 2)]
        return [self.layers.full(), self.layers.smallest(), *drawn]

    @abstractmethod
    def draw(self, rng: random.Random) -> GroupConfig:
        """One of the step's further sub-networks."""

    def wants_trial(self, epoch: int) -> bool:
        """Whether `look` must be called before this epoch."""
        return False

    def look(self, epoch: int, trial: Trial) -> None:  # noqa: B027 - most samplers need no look
        """Take in how the network does now."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs after a kill, as JSON members."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most samplers have no state
        """Take back a `state`."""
