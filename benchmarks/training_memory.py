"""How much more memory does Algorithm 1 take than plain training at the same batch?"""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import ROOT, Arguments, Figure, Measured, at_most, reported, run
from wenet_trainer.distill import EmaTeacher
from wenet_trainer.models import build
from wenet_trainer.optimizer import open_optimizer
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling import open_sampler
from wenet_trainer.sampling.base import Plan
from wenet_trainer.step import Step

QUESTION = "How much more memory does Algorithm 1 take than plain training at the same batch?"
NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")
SIZES = ((224, 32), (128, 8))  # pixels, batch: as one trains, and so small that the weights weigh most
GOAL = 1.3
SAMPLES, STEPS = 4, 2


def measure(arguments: Arguments) -> Measured:
    """The paper's networks, each way in a process of its own; with `--quick` a tiny one."""
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    for name in ("tiny",) if arguments.quick else NETWORKS:
        for pixels, batch in ((32, 8),) if arguments.quick else SIZES:
            grown = {way: _peak_mb(name, way, pixels, batch) for way in ("plain", "none", "ema")}
            what = f"{name} at {pixels} px, batch {batch}"
            how = f"peak of {STEPS} steps less what there was before the network was made; s = {SAMPLES}, AdamW"
            goal = GOAL if (pixels, batch) == SIZES[0] else None
            for way, teacher in (("none", "no teacher"), ("ema", "ema teacher")):
                ratio = grown[way] / grown["plain"]
                key = f"{what}: over plain training, {teacher}"
                figures[key] = reported(ratio, "x", how) if goal is None else at_most(ratio, goal, "x", how)
            figures[f"{what}: plain training"] = reported(grown["plain"], "MB", how)
            samples[what] = grown
    return figures, {"megabytes": samples}


def _peak_mb(name: str, way: str, pixels: int, batch: int) -> float:
    command = [sys.executable, "-m", "benchmarks.training_memory", "--peak", name, way, str(pixels), str(batch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def _print_peak(name: str, way: str, pixels: int, batch: int) -> None:
    """Train a few steps and print how much the process grew at most, MB."""
    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _status_mb("VmRSS")
    net = build(name).train()
    shape = (1 if name == "tiny" else 3, pixels, pixels)
    inputs, labels = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    sampler = open_sampler("target", Plan(SAMPLES, 1, 1, 0), net, shape)
    recipe = Recipe(batch=batch, teacher="none")
    step = Step(net, open_optimizer(net, recipe), recipe, teacher=EmaTeacher(net, 0.997) if way == "ema" else None)
    rng = random.Random(0)
    for _ in range(STEPS):
        step.gradients(inputs, labels, [sampler.layers.full()] if way == "plain" else sampler.sandwich(rng))
        step.update()
    print(json.dumps(max(1.0, _status_mb("VmHWM") - before)))


def _status_mb(key: str) -> float:
    """A line of this process's status: VmRSS now, VmHWM the most there was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        _print_peak(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        run("training_memory", QUESTION, measure, needs_bundle=False)
