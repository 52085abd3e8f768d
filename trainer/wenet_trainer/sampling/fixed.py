"""One configuration alone: how an independent network, the ceiling of a supernet's mode, is trained."""

import random

from wenet_trainer.sampling.base import Sampler
from wenet_trainer.space import GroupConfig


class FixedSampler(Sampler):
    """Always the uniform configuration of `Plan.groups`, and nothing beside it."""

    def sandwich(self, rng: random.Random) -> list[GroupConfig]:
        """That one configuration."""
        return [self.layers.uniform(self.plan.groups)]

    def draw(self, index: int, rng: random.Random) -> GroupConfig:
        """That configuration, too."""
        return self.layers.uniform(self.plan.groups)
