"""Algorithm 1 as printed: every layer's pattern is drawn uniformly and on its own."""

import random

from wenet_trainer.sampling.base import Sampler
from wenet_trainer.space import GroupConfig


class UniformSampler(Sampler):
    """The paper's draws (Algorithm 1, line 13). Over many layers they cluster around the mean cost."""

    def draw(self, rng: random.Random) -> GroupConfig:
        """Every layer on its own."""
        return self.layers.sample(rng)
