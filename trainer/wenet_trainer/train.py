"""Algorithm 1: trains every sub-network of a supernet at once, resumable epoch by epoch."""

import random
import time
from collections.abc import Mapping, Sequence
from math import cos, isfinite, pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.checkpoint import (
    FILE,
    Checkpoint,
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Source, normalise
from wenet_trainer.errors import TrainingError
from wenet_trainer.models import build
from wenet_trainer.progress import tqdm
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling import Sampler
from wenet_trainer.supernet import set_active

WARM_UP = 0.15  # share of the steps
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} epochs, {elapsed}, {remaining} left{postfix}"


def train(recipe: Recipe, out: Path, *, stop_after: int | None = None, quiet: bool = False) -> Checkpoint:
    """Train, or go on where a run of the same recipe in `out` stopped, with the same result.

    Args:
        recipe: the settings.
        out: directory of the checkpoint, which is written after every epoch.
        stop_after: epochs after which to stop early, as a kill would.
        quiet: no progress bar.

    Returns:
        The last checkpoint.

    Raises:
        TrainingError: `out` holds a run of another recipe, or the loss is no number any more.
    """
    source = open_source(recipe.data, recipe.seed)
    path = out / FILE
    torch.manual_seed(recipe.seed)
    net = build(recipe.model, recipe.model_arguments)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    done = _previous(recipe, path)
    if done is not None:
        net.load_state_dict(dict(done.weights))
        restore_optimizer(net, optimizer, done.optimizer)
    checkpoint = done or Checkpoint(recipe, 0, (), net.state_dict(), {})
    until = min(recipe.epochs, stop_after or recipe.epochs)
    with tqdm(desc="train", total=until, initial=checkpoint.epochs_done, bar_format=BAR, disable=quiet) as progress:
        for epoch in range(checkpoint.epochs_done, until):
            record = train_epoch(net, optimizer, recipe, source, epoch, progress)
            checkpoint = Checkpoint(
                recipe,
                epoch + 1,
                (*checkpoint.history, record),
                net.state_dict(),
                optimizer_state(net, optimizer),
            )
            write_checkpoint(path, checkpoint)
    return checkpoint


def train_epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    source: Source,
    epoch: int,
    progress: tqdm,
) -> dict[str, float]:
    """One pass over the epoch's images; everything random follows from (seed, epoch).

    Returns:
        The epoch's record: mean losses of the full and the smallest network, seconds.
    """
    started = time.perf_counter()
    torch.manual_seed(recipe.seed * 1_000_003 + epoch)
    rng = random.Random(f"{recipe.seed}/{epoch}")
    sampler = Sampler.of(net, recipe.samples, recipe.sampling)
    view = source.train(epoch)
    images = view.first(len(view))
    inputs, labels = normalise(images.pixels, source.preprocess), torch.from_numpy(images.labels)
    steps = len(images) // recipe.batch  # a short last batch would count too much
    if steps == 0:
        raise TrainingError(f"{len(images)} training images are fewer than one batch of {recipe.batch}: lower --batch")
    losses: list[list[float]] = []
    net.train()
    for step in range(steps):
        rows = slice(step * recipe.batch, (step + 1) * recipe.batch)
        rate = recipe.learning_rate * schedule((epoch * steps + step) / (recipe.epochs * steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses.append(
            train_step(
                net,
                optimizer,
                inputs[rows],
                labels[rows],
                sampler.sandwich(rng),
                teach=recipe.teacher == "inplace",
            )
        )
        if not all(isfinite(loss) for loss in losses[-1]):
            raise TrainingError(
                f"the loss became {losses[-1]} in epoch {epoch + 1}, step {step + 1}: lower --learning-rate; "
                "the checkpoint of the epoch before is kept"
            )
        progress.update(1 / steps)
        seconds = time.perf_counter() - started
        progress.set_postfix_str(
            f"loss full {losses[-1][0]:.3f} smallest {losses[-1][1]:.3f}, "
            f"{(step + 1) * recipe.batch / seconds:.0f} images/s"
        )
    return {
        "loss_full": sum(step_losses[0] for step_losses in losses) / steps,
        "loss_smallest": sum(step_losses[1] for step_losses in losses) / steps,
        "seconds": time.perf_counter() - started,
    }


def train_step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    configs: Sequence[Mapping[str, int]],
    *,
    teach: bool = False,
) -> list[float]:
    """Lines 4–20 of Algorithm 1 for one batch.

    Args:
        net: the supernet in training mode.
        optimizer: over its parameters.
        inputs: (N, C, H, W); labels: (N,).
        configs: the sub-networks; the first is the full network, which also teaches if `teach`.

    Returns:
        Each sub-network's loss.
    """
    optimizer.zero_grad()
    losses = []
    answers: Tensor | None = None
    for config in configs:
        set_active(net, config)
        logits = net(inputs)
        if teach and answers is not None:
            loss = F.cross_entropy(logits, answers)
        else:
            loss = F.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        if teach and answers is None:
            answers = logits.detach().softmax(1)
        losses.append(float(loss.detach()))
    optimizer.step()
    return losses


def schedule(progress: float) -> float:
    """Share of the peak learning rate at `progress` (0–1): linear warm-up, then a cosine to zero."""
    if progress < WARM_UP:
        return (progress + 0.01) / (WARM_UP + 0.01)
    return 0.5 * (1 + cos(pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _previous(recipe: Recipe, path: Path) -> Checkpoint | None:
    if not path.exists():
        return None
    found = read_checkpoint(path)
    if found.recipe != recipe:
        raise TrainingError(
            f"{path} belongs to a run with other settings ({'; '.join(recipe.differences(found.recipe))}): "
            "choose another --out, ask for the same settings, or remove it"
        )
    return found
