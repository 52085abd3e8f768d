"""Progressive sub-network sampling: which layers may be grouped grows stage by stage, the pool is re-selected.

Our reading of "A Progressive Sub-Network Searching Framework for Dynamic Inference", whose abstract
names trainable noise ranking, thresholds and re-selection and leaves the details open:

- every few epochs a stage begins: a trainable noise (`noise`) ranks the layers by how much they mind,
  and the least sensitive share of those that are not at their highest pattern may go one level further;
- then sub-networks within these ceilings are drawn at all costs and tried on a small validation set;
  the best one of each cost makes the pool;
- a step trains the full network, the smallest one, and others of the pool.

The smallest network is always trained, whatever the ceilings say, so that every pattern of every layer
has statistics and the sandwich of Algorithm 1 stays whole.
"""

import random
from collections.abc import Mapping
from math import ceil, log
from typing import Any

import numpy as np

from wenet_trainer.cost import Costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.sampling.base import Plan, Sampler, Trial
from wenet_trainer.sampling.noise import learn_noise
from wenet_trainer.sampling.target import DrawAtCost
from wenet_trainer.space import GroupConfig, SearchSpace

STAGES = 6
THRESHOLD = 0.7  # share of the layers that may go one level further in a stage
POOL = 10  # sub-networks, one for each range of cost
TRIED = 4  # for each place in the pool
IMAGES = 256


class ProgressiveSampler(Sampler):
    """Draws from a pool that is selected anew as training goes on."""

    trial_images = IMAGES

    def __init__(self, plan: Plan, layers: SearchSpace, blocks: SearchSpace, costs: Costs | None) -> None:
        if costs is None:
            raise TrainingError("progressive sampling ranks weight-enabled layers, and this network has none")
        super().__init__(plan, layers, blocks, costs)
        self._costs = costs
        self._every = ceil(plan.epochs / STAGES)
        self._noise: dict[str, float] = {}
        self._ceilings = dict.fromkeys(layers.allowed, 1)
        self._pool: list[GroupConfig] = []

    def draw(self, rng: random.Random) -> GroupConfig:
        """One of the pool."""
        return rng.choice(self._pool) if self._pool else self.layers.full()

    def wants_trial(self, epoch: int) -> bool:
        """Before the first epoch and every few further ones, `STAGES` times at most."""
        return epoch % self._every == 0

    def look(self, epoch: int, trial: Trial) -> None:
        """Rank the layers, raise ceilings, select the pool."""
        images, labels = trial.inputs, trial.labels
        self._noise = learn_noise(trial.net, images, labels, self.plan.seed + epoch)
        self._ceilings = raised(self._ceilings, self._noise, self.layers.allowed, THRESHOLD)
        rng = random.Random(f"{self.plan.seed}/{epoch}/pool")
        drawn = DrawAtCost(self.layers, self._costs, self._ceilings)
        least, greatest = (log(macs) for macs in drawn.range)
        self._pool = []
        for place in range(POOL):
            costs = [least + (greatest - least) * (place + rng.random()) / POOL for _ in range(TRIED)]
            tried = [drawn.draw(float(np.exp(cost)), rng) for cost in costs]
            right = []
            for config in tried:
                with recalibrated(trial.net, config, images):
                    answers = logits(trial.net, images).argmax(1)
                right.append(int((answers == labels).sum()))
            self._pool.append(tried[int(np.argmax(right))])

    def state(self) -> dict[str, Any]:
        """Noise, ceilings and pool."""
        return {
            "noise": self._noise,
            "ceilings": dict(self._ceilings),
            "pool": [dict(config) for config in self._pool],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back a `state`; an empty one is that of the start."""
        if state:
            self._noise, self._ceilings = dict(state["noise"]), dict(state["ceilings"])
            self._pool = [GroupConfig(config) for config in state["pool"]]


def raised(
    ceilings: Mapping[str, int], noise: Mapping[str, float], allowed: Mapping[str, tuple[int, ...]], threshold: float
) -> dict[str, int]:
    """The ceilings after one stage: the layers that bear most noise may go one level further.

    Args:
        ceilings: layer name → the highest pattern it may have.
        noise: layer name → the noise it bears.
        allowed: layer name → its patterns.
        threshold: share, of the layers that can go further, that does.
    """
    open_ = sorted((name for name in ceilings if ceilings[name] < allowed[name][-1]), key=lambda name: -noise[name])
    chosen = open_[: ceil(threshold * len(open_))]
    return {
        name: allowed[name][allowed[name].index(ceiling) + 1] if name in chosen else ceiling
        for name, ceiling in ceilings.items()
    }
