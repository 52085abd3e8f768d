"""What does one step of Algorithm 1 cost, against the plain way and against its own parts?"""

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.plain_ways import Masks, by_autograd, masked
from wenet_trainer.cost import measure_costs
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape
from wenet_trainer.distill import EmaTeacher
from wenet_trainer.forward import open_forward
from wenet_trainer.models import build
from wenet_trainer.network import make_network
from wenet_trainer.optimizer import open_optimizer
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling import open_sampler
from wenet_trainer.sampling.base import Plan, Sampler
from wenet_trainer.space import GroupConfig
from wenet_trainer.step import Step

QUESTION = "What does a step of Algorithm 1 cost against full-size masked weights, and against its own parts?"
NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")
PIXELS, BATCH, SAMPLES = 128, 8, 4
RECIPE = Recipe(batch=BATCH, teacher="none")

Way = Callable[[Sequence[GroupConfig]], None]


def measure(arguments: Arguments) -> Measured:
    """The paper's networks at 128 px, one thread; with `--quick` a tiny one."""
    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {"pixels": PIXELS, "batch": BATCH, "samples": SAMPLES, "threads": 1}
    for name in ("tiny",) if arguments.quick else NETWORKS:
        found, samples[name] = _times(name, 2 if arguments.quick else 9, arguments.seed)
        figures.update({f"{name}: {key}": figure for key, figure in found.items()})
    return figures, samples


def _times(name: str, rounds: int, seed: int) -> Measured:
    torch.manual_seed(seed)
    net = build(name).train()
    shape = (1, 32, 32) if name == "tiny" else (3, PIXELS, PIXELS)
    inputs, labels = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))
    sampler = _sampler(net, shape, SAMPLES)
    costs, full = measure_costs(net, shape), sampler.layers.full()
    ways = _ways(net, sampler, inputs, labels, compiled=name == "resnet50")
    rng = random.Random(seed)
    taken: dict[str, list[float]] = {}
    shares = []
    for index in range(rounds + 1):  # the first one warms up
        configs = sampler.sandwich(rng)
        for key, way in ways.items():
            started = time.process_time()
            way(configs)
            if index:
                taken.setdefault(key, []).append(time.process_time() - started)
        shares.append(sum(costs.macs(config) for config in configs) / costs.macs(full))
    middle = {key: float(np.median(values)) for key, values in taken.items()}
    limit = SAMPLES / float(np.mean(shares))
    how = f"processor time, median of {rounds} interleaved rounds, s = {SAMPLES}, batch {BATCH}, {shape[-1]} px"
    figures = {
        "masked over ours": at_least(
            _ratio(taken, "masked", "step"), 1.4, "x", f"{how}; the arithmetic alone: {limit:.2f}"
        ),
        "enabled by autograd over ours": reported(_ratio(taken, "by autograd", "step"), "x", how),
        "step over its parts": at_most(_ratio(taken, "step", "parts"), 1.1, "x", f"{how}; parts: each alone"),
        "step over plain training": reported(_ratio(taken, "step", "plain"), "x", f"{how}; plain: the full network"),
        "ema teacher over none": reported(_ratio(taken, "taught", "step"), "x", how),
        "channels-last over not": reported(_ratio(taken, "channels last", "step"), "x", how),
        "masked over ours, at most": reported(
            SAMPLES * middle["plain"] / (middle["plain"] + (SAMPLES - 1) * middle["smallest"]),
            "x",
            f"{how}; if every sub-network but the full one took no longer than the smallest: what is left is batch "
            "norms, activations and layers that no pattern changes",
        ),
        "smallest network over plain training": reported(_ratio(taken, "smallest", "plain"), "x", how),
        "plain step": reported(1000 * middle["plain"], "ms", how),
    }
    if "compiled" in taken:
        told = f"{how}; the full and the smallest network compiled"
        figures["compiled over not"] = reported(_ratio(taken, "compiled", "step"), "x", told)
    return figures, {"seconds": taken, "macs_shares": shares}


def _ways(net: nn.Module, sampler: Sampler, inputs: Tensor, labels: Tensor, *, compiled: bool) -> dict[str, Way]:
    """One step of the same sub-networks in every way, on one network except where its layout or program differs."""
    space = sampler.layers
    step = Step(net, open_optimizer(net, RECIPE), RECIPE)
    taught = Step(net, open_optimizer(net, RECIPE), RECIPE, teacher=EmaTeacher(net, 0.997))
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = Step(other, open_optimizer(other, RECIPE), RECIPE)
    nhwc = inputs.contiguous(memory_format=torch.channels_last)
    masks: Masks = {}

    def whole(step: Step, configs: Sequence[GroupConfig], images: Tensor = inputs) -> None:
        step.gradients(images, labels, configs)
        step.update()

    def parts(configs: Sequence[GroupConfig]) -> None:
        for config in configs:  # each alone; the weights move once, as in a step
            step.gradients(inputs, labels, [config])
        step.update()

    def within(way: AbstractContextManager[None], configs: Sequence[GroupConfig]) -> None:
        with way:
            whole(step, configs)

    ways: dict[str, Way] = {
        "plain": lambda configs: whole(step, [space.full()]),
        "smallest": lambda configs: whole(step, [space.smallest()]),
        "step": lambda configs: whole(step, configs),
        "taught": lambda configs: whole(taught, configs),
        "parts": parts,
        "channels last": lambda configs: whole(last, configs, nhwc),
        "masked": lambda configs: within(masked(net, masks), configs),
        "by autograd": lambda configs: within(by_autograd(net), configs),
    }
    if compiled:
        fast = copy.deepcopy(net)
        forward = open_forward(fast, space, compile_ends=True)
        program = Step(fast, open_optimizer(fast, RECIPE), RECIPE, forward=forward)
        ways["compiled"] = lambda configs: whole(program, configs)
    return ways


def _ratio(taken: Mapping[str, Sequence[float]], over: str, under: str) -> float:
    """Median of the rounds' ratios, so that the machine's drift cancels."""
    return float(np.median(np.divide(taken[over], taken[under])))


def _sampler(net: nn.Module, shape: tuple[int, ...], samples: int) -> Sampler:
    return open_sampler("target", Plan(samples, 1, 1, 0), net, shape)


def step_seconds(recipe: Recipe, samples: int, rounds: int = 12) -> float:
    """Processor seconds of one step of a recipe with so many sub-networks, median."""
    torch.set_num_threads(1)
    source = open_source(recipe.data, recipe.seed)
    net = make_network(recipe).train()
    shape = input_shape(source)
    sampler = _sampler(net, shape, samples)
    step = Step(net, open_optimizer(net, recipe), recipe, teacher=EmaTeacher(net, recipe.teacher_decay))
    inputs, labels = torch.randn(recipe.batch, *shape), torch.randint(0, len(source.labels), (recipe.batch,))
    taken = []
    rng = random.Random(0)
    for _ in range(rounds):
        configs = sampler.sandwich(rng)
        started = time.process_time()
        step.gradients(inputs, labels, configs)
        step.update()
        taken.append(time.process_time() - started)
    return float(np.median(taken))


if __name__ == "__main__":
    run("training_step", QUESTION, measure, needs_bundle=False)
