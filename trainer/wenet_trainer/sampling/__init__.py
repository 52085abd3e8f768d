"""The table of samplings: which sub-networks a step trains. A new one is one file and one line here."""

from collections.abc import Mapping

from wenet_runtime.registry import load
from wenet_trainer.cost import Costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.sampling.base import Plan, Sampler
from wenet_trainer.space import SearchSpace

SAMPLINGS: Mapping[str, str] = {
    "fixed": "wenet_trainer.sampling.fixed:FixedSampler",
    "progressive": "wenet_trainer.sampling.progressive:ProgressiveSampler",
    "target": "wenet_trainer.sampling.target:TargetSampler",
    "uniform": "wenet_trainer.sampling.uniform:UniformSampler",
}


def open_sampler(name: str, plan: Plan, layers: SearchSpace, blocks: SearchSpace, costs: Costs | None) -> Sampler:
    """The sampler of that name.

    Args:
        name: a name of the table, or "package.module:Class".
        plan: what the recipe says about sampling.
        layers: the space with a knob per layer.
        blocks: the space with a knob per block.
        costs: multiply-accumulates of the configurations; None for a network flexible in another way.
    """
    sampler: Sampler = load(SAMPLINGS, name, kind="sampling", error=TrainingError)(plan, layers, blocks, costs)
    return sampler
