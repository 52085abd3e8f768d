"""One configuration alone: how an independent network, the ceiling of a supernet's mode, is trained."""

import random

from wenet_trainer.cost import Costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.sampling.base import Plan, Sampler
from wenet_trainer.space import GroupConfig, SearchSpace


class FixedSampler(Sampler):
    """Always the uniform configuration of `Plan.groups`, and nothing beside it.

    Raises:
        TrainingError: the network has no such pattern.
    """

    def __init__(self, plan: Plan, layers: SearchSpace, blocks: SearchSpace, costs: Costs | None) -> None:
        super().__init__(plan, layers, blocks, costs)
        known = sorted({level for levels in layers.allowed.values() for level in levels})
        if plan.groups not in known:
            raise TrainingError(f"the network has no pattern {plan.groups}: --groups can be one of {known}")

    def sandwich(self, rng: random.Random) -> list[GroupConfig]:
        """That one configuration."""
        return [self.layers.uniform(self.plan.groups)]

    def draw(self, rng: random.Random) -> GroupConfig:
        """That configuration, too."""
        return self.layers.uniform(self.plan.groups)
