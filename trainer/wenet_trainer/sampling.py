"""Which sub-networks one step of Algorithm 1 trains."""

import random
from dataclasses import dataclass

from torch import nn

from wenet_trainer.space import GroupConfig, SearchSpace


@dataclass(frozen=True)
class Sampler:
    """Draws the sandwich: the full network, the smallest, and random ones.

    Attributes:
        layers: the space with a knob per layer.
        blocks: the space with a knob per block.
        samples: s of Algorithm 1, full and smallest included.
        mixed: see `Recipe.sampling`.
    """

    layers: SearchSpace
    blocks: SearchSpace
    samples: int
    mixed: bool

    @classmethod
    def of(cls, net: nn.Module, samples: int, sampling: str) -> "Sampler":
        """The sampler for a supernet."""
        return cls(SearchSpace.of(net, "layer"), SearchSpace.of(net, "block"), samples, sampling == "mixed")

    def sandwich(self, rng: random.Random) -> list[GroupConfig]:
        """One step's sub-networks, in training order."""
        drawn = [self._draw(index, rng) for index in range(self.samples - 2)]
        return [self.layers.full(), self.layers.smallest(), *drawn]

    def _draw(self, index: int, rng: random.Random) -> GroupConfig:
        if not self.mixed:
            return self.layers.sample(rng)
        # Independent draws over many layers cluster around the mean cost: nothing near a uniform mode
        # is ever drawn. So every other draw is one of the uniform modes between full and smallest, and
        # the rest move whole blocks, as the search does.
        between = self.layers.uniforms()[1:-1]
        return rng.choice(between) if index % 2 == 0 and between else self.blocks.sample(rng)
