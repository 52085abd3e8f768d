"""The default: uniform modes, and networks at a drawn cost between two of them.

Independent draws over many layers all cost about the same: nothing near a cheap mode is ever trained
(on ResNet-50, 99.8 % of them lie at 0.27 to 0.57 of the full network's multiply-accumulates). So a cost
is drawn first. And a network whose layers differ wildly is hard to train and beaten at its cost by a
uniform mode, so what is drawn lies between two neighbouring uniform modes, and these themselves take
most places.
"""

import random
from collections.abc import Mapping
from math import exp, log

from wenet_trainer.cost import Costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.sampling.base import Plan, Sampler
from wenet_trainer.space import GroupConfig, SearchSpace

NOW_AND_THEN = 0.2  # share of the uniform modes' places that others take


class DrawAtCost:
    """Draws configurations whose expected cost is what was asked for.

    The cost lies between those of two neighbouring uniform modes; every knob takes its pattern from the
    one or the other, with the probability that meets the cost on average.

    Args:
        space: whose knobs are drawn.
        costs: of its configurations.
        ceilings: layer name → the highest pattern it may have; all allowed ones by default.
    """

    def __init__(self, space: SearchSpace, costs: Costs, ceilings: Mapping[str, int] | None = None) -> None:
        self._space = space
        limits = ceilings or {}
        clipped = [
            GroupConfig({name: min(groups, limits.get(name, groups)) for name, groups in mode.items()})
            for mode in space.uniforms()
        ]
        self._modes = list(dict.fromkeys(clipped))
        self._macs = [costs.macs(mode) for mode in self._modes]  # descending

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest cost that can be drawn, multiply-accumulates."""
        return self._macs[-1], self._macs[0]

    def draw(self, macs: float, rng: random.Random) -> GroupConfig:
        """A configuration that costs about `macs`, or the nearest that can be had."""
        wanted = min(max(macs, self._macs[-1]), self._macs[0])
        above = max(index for index, cost in enumerate(self._macs) if cost >= wanted)
        dearer = self._modes[above]
        if above + 1 == len(self._modes):
            return dearer
        share = (self._macs[above] - wanted) / (self._macs[above] - self._macs[above + 1])
        cheaper = self._modes[above + 1]
        moved = [name for knob in self._space.knobs if rng.random() < share for name in knob]
        return GroupConfig({**dearer, **{name: cheaper[name] for name in moved}})

    def draw_log_uniform(self, rng: random.Random) -> GroupConfig:
        """A configuration at a cost drawn so that halving it is as likely everywhere, as modes are spaced."""
        least, greatest = self.range
        return self.draw(exp(rng.uniform(log(least), log(greatest))), rng)


class TargetSampler(Sampler):
    """First uniform modes between full and smallest, no one twice in a step; then networks at drawn costs.

    Now and then a network at a drawn cost takes a uniform mode's place, so that few samples reach them,
    too. They move single layers or whole blocks, as a search over the one or the other will.
    """

    def __init__(self, plan: Plan, layers: SearchSpace, blocks: SearchSpace, costs: Costs | None) -> None:
        super().__init__(plan, layers, blocks, costs)
        self._between = layers.uniforms()[1:-1]
        self._draws = () if costs is None else (DrawAtCost(layers, costs), DrawAtCost(blocks, costs))
        if not self._draws and not self._between and plan.samples > 2:
            raise TrainingError("there is nothing between the full and the smallest network: ask for --samples 2")

    def sandwich(self, rng: random.Random) -> list[GroupConfig]:
        """The full network, the smallest, uniform modes, and as many others as are left."""
        wanted = self.plan.samples - 2
        drawn = rng.sample(self._between, min(wanted, len(self._between)))
        if self._draws:  # a network flexible in another way has nothing but its levels: none is trained twice
            drawn = [self.draw(rng) if rng.random() < NOW_AND_THEN else mode for mode in drawn]
            drawn += [self.draw(rng) for _ in range(len(drawn), wanted)]
        return [self.layers.full(), self.layers.smallest(), *drawn]

    def draw(self, rng: random.Random) -> GroupConfig:
        """One at a drawn cost; of a network flexible in another way, any but the ends."""
        return rng.choice(self._draws).draw_log_uniform(rng) if self._draws else rng.choice(self._between)
