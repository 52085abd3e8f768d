"""What the accuracy benchmark trains: WeNet, its ablations and its peers, all by one recipe with one thing changed."""

from dataclasses import dataclass, replace
from math import exp, log
from random import Random

from torch import nn

from wenet_trainer.cost import measure_costs
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling.target import DrawAtCost
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import Flexible

SUPERNET = "small_resnet"
WITHOUT_SHUFFLE = "benchmarks.arms:small_resnet_without_shuffle"
US_NET = "wenet_trainer.peers.networks:slimmable_small_resnet"
EARLY_EXIT = "wenet_trainer.peers.networks:early_exit_small_resnet"
INPUT = (3, 32, 32)
GROUPS = (1, 2, 4, 8, 16)
WIDTH_LEVELS = (4, 7, 10, 13)  # of the slimmable network's 13; level 1 is the independent full network
DRAWN = 11  # configurations beside the five uniform ones, so that WeNet offers about as many as US-Net has widths


@dataclass(frozen=True)
class Arm:
    """One training.

    Attributes:
        name: in the results.
        recipe: its settings; the seed is put in.
        hull: whether a curve over multiply-accumulates is wanted, not only the uniform modes.
    """

    name: str
    recipe: Recipe
    hull: bool = False

    def seeded(self, seed: int) -> "Arm":
        """The same with this seed."""
        return replace(self, recipe=replace(self.recipe, seed=seed))


def arms(base: Recipe, many_epochs: int) -> list[Arm]:
    """Every training of one seed; what decides most comes first.

    Args:
        base: WeNet's recipe.
        many_epochs: epochs for s = 20 that take as long as the base's with s = 4.
    """
    # Channels in steps of 4: with the usual 8 the widths of so small a network would be uneven.
    us_net = replace(base, model=US_NET, model_arguments={**base.model_arguments, "divisor": 4})
    shared = replace(us_net, model_arguments={**us_net.model_arguments, "shared_affine": 1})
    narrow = {**base.model_arguments, "width": 16}
    alone = replace(base, sampling="fixed", teacher="none")
    slim = replace(us_net, sampling="fixed", teacher="none")
    return [
        Arm("wenet", base, hull=True),
        Arm("us-net", us_net, hull=True),
        Arm("us-net, shared affine", shared, hull=True),
        *(Arm(f"independent 1/{groups}", replace(alone, groups=groups)) for groups in GROUPS),
        Arm("without shuffle", replace(base, model=WITHOUT_SHUFFLE)),
        Arm("without distillation", replace(base, teacher="none")),
        Arm("s = 20", replace(base, samples=20, epochs=many_epochs)),
        Arm("uniform sampling", replace(base, sampling="uniform"), hull=True),
        Arm("progressive sampling", replace(base, sampling="progressive"), hull=True),
        Arm("narrow wenet", replace(base, model_arguments=narrow), hull=True),
        Arm("narrow us-net", replace(us_net, model_arguments={**narrow, "divisor": 4}), hull=True),
        *(Arm(f"static width {level}", replace(slim, groups=level)) for level in WIDTH_LEVELS),
        Arm("early exit", replace(base, model=EARLY_EXIT), hull=True),
    ]


def small_resnet_without_shuffle(classes: int = 24, width: int = 32, depth: int = 3) -> SmallResNet:
    """The supernet with nothing where its shuffles were."""
    net = SmallResNet(classes, width, depth)
    for block in net.blocks:
        block.shuffle = nn.Identity()
    return net


def candidates(net: nn.Module, *, hull: bool) -> dict[str, dict[str, int]]:
    """The configurations to look at: the uniform ones, and for a curve of a supernet some drawn between them.

    They follow from the network alone, so they were fixed before it was trained.
    """
    space = SearchSpace.of(net)
    names = sorted({level for levels in space.allowed.values() for level in levels})
    found = {f"1/{level}": dict(space.uniform(level)) for level in names}
    if hull and not isinstance(net, Flexible):
        costs = measure_costs(net, INPUT)
        draw = DrawAtCost(space, costs)
        least, greatest = (log(value) for value in draw.range)
        rng = Random(0)
        for index in range(DRAWN):
            wanted = exp(least + (greatest - least) * (index + 0.5) / DRAWN)
            found[f"drawn {index}"] = dict(draw.draw(wanted, rng))
    return found
