"""What each of two processes does in test_parallel: three steps on its half of the batches. Started by torchrun."""

import json
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wenet_trainer.models import build
from wenet_trainer.parallel import Workers, workers
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling import open_sampler
from wenet_trainer.sampling.base import Plan
from wenet_trainer.step import Step

BATCH, STEPS = 8, 3


def steps(
    net: nn.Module, halves: list[Workers], joined: Workers | None
) -> tuple[list[dict[str, Tensor]], list[list[dict[str, int]]], list[list[float]]]:
    """Gradients, sub-networks and losses of every step; `halves` are the shares that this process computes."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    step = Step(net, optimizer, Recipe(), workers=joined)
    sampler = open_sampler("uniform", Plan(4, 1, 1, 0), net, (1, 32, 32))
    rng = random.Random("7/0")
    images = torch.randn(STEPS, BATCH, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(STEPS * BATCH).view(STEPS, BATCH) % 10
    gradients, sampled, losses = [], [], []
    for index in range(STEPS):
        configs = sampler.sandwich(rng)
        sums: dict[str, Tensor] = {}
        found = []
        for half in halves:
            rows = slice(half.rank * BATCH // half.world, (half.rank + 1) * BATCH // half.world)
            found.append(step.gradients(images[index, rows], labels[index, rows], configs))
            for name, parameter in net.named_parameters():
                if parameter.grad is not None:
                    sums[name] = sums.get(name, torch.zeros_like(parameter)) + parameter.grad / len(halves)
        for name, parameter in net.named_parameters():
            if name in sums:
                parameter.grad = sums[name].clone()
        step.update()
        gradients.append(sums)
        sampled.append([dict(config) for config in configs])
        losses.append([sum(one) / len(found) for one in zip(*found, strict=True)])
    return gradients, sampled, losses


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build("tiny").train()
    with workers(torch.device("cpu")) as joined:
        gradients, sampled, losses = steps(net, [joined], joined)
        joined.average_statistics(net)
        flat = {f"{index}.{name}": value for index, sums in enumerate(gradients) for name, value in sums.items()}
        flat |= {f"buffer.{name}": value for name, value in net.named_buffers() if value.is_floating_point()}
        save_file(flat, str(out / f"rank{joined.rank}.safetensors"))
        (out / f"rank{joined.rank}.json").write_text(json.dumps({"sampled": sampled, "losses": losses}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
