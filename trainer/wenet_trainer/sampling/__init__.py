"""The table of samplings: which sub-networks a step trains. A new one is one file and one line here."""

from collections.abc import Mapping

from torch import nn

from wenet_runtime.registry import load
from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.sampling.base import Plan, Sampler
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import Flexible

SAMPLINGS: Mapping[str, str] = {
    "fixed": "wenet_trainer.sampling.fixed:FixedSampler",
    "progressive": "wenet_trainer.sampling.progressive:ProgressiveSampler",
    "target": "wenet_trainer.sampling.target:TargetSampler",
    "uniform": "wenet_trainer.sampling.uniform:UniformSampler",
}


def open_sampler(name: str, plan: Plan, net: nn.Module, input_shape: tuple[int, ...]) -> Sampler:
    """The sampler of that name for a network.

    Args:
        name: a name of the table, or "package.module:Class".
        plan: what the recipe says about sampling.
        net: the supernet, or a network flexible in another way.
        input_shape: (C, H, W) of its images.

    Raises:
        TrainingError: there is no such sampling, or it does not suit the network.
    """
    costs = None if isinstance(net, Flexible) else measure_costs(net, input_shape)
    create = load(SAMPLINGS, name, kind="sampling", error=TrainingError)
    sampler: Sampler = create(plan, SearchSpace.of(net, "layer"), SearchSpace.of(net, "block"), costs)
    return sampler
