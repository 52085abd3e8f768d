"""Algorithm 1: trains every sub-network of a supernet at once, resumable epoch by epoch."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from wenet_trainer.checkpoint import FILE, Checkpoint, check_disk, write_checkpoint
from wenet_trainer.checks import check_classes, check_images, check_numbers, check_shares, previous
from wenet_trainer.data import open_source
from wenet_trainer.data.augment import augmentation
from wenet_trainer.data.base import Images, input_shape, normalise, standardise
from wenet_trainer.data.loader import batches
from wenet_trainer.devices import open_device
from wenet_trainer.distill import open_teacher
from wenet_trainer.errors import TrainingError
from wenet_trainer.failure import save_batch
from wenet_trainer.forward import open_forward
from wenet_trainer.logs import Watch
from wenet_trainer.network import start_network
from wenet_trainer.optimizer import open_optimizer, optimizer_state, restore_optimizer, schedule, set_learning_rate
from wenet_trainer.options import Options
from wenet_trainer.parallel import Workers, workers
from wenet_trainer.progress import tqdm
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling import open_sampler
from wenet_trainer.sampling.base import Plan, Trial
from wenet_trainer.space import SearchSpace
from wenet_trainer.step import Step
from wenet_trainer.validate import Validation

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} epochs, {elapsed}, {remaining} left{postfix}"

Say = Callable[[str], None]


def train(
    recipe: Recipe,
    out: Path,
    *,
    options: Options | None = None,
    stop_after: int | None = None,
    quiet: bool = False,
    watch: Watch = lambda _checkpoint: None,
    say: Say = lambda _line: None,
) -> Checkpoint:
    """Train, or go on where a run of the same recipe in `out` stopped, with the same result.

    The result is the same to the bit on a CPU, and to rounding on a GPU, whose sums have no fixed order.
    Under `torchrun` every process calls this with the same arguments; the first one writes.

    Args:
        recipe: the settings.
        out: directory of the checkpoint, which is written after every epoch.
        options: where and how it runs.
        stop_after: epochs after which to stop early, as a kill would.
        quiet: no progress bar.
        watch: told of every finished epoch, in the first process.
        say: told what is worth knowing before it starts, in the first process.

    Returns:
        The last checkpoint.

    Raises:
        TrainingError: `out` holds a run of another recipe, or the loss is no number any more.
        DataError: the source cannot be opened, or an image cannot be read; the message names the file.
        CheckpointError: the disk is too small for the checkpoint.
    """
    options = options or Options()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = open_device(options.device, int(os.environ.get("LOCAL_RANK", "0")))
    with workers(device) as joined:
        first = joined.first
        training = Training(recipe, out, options, device, joined, say if first else lambda _line: None)
        return training.run(stop_after, watch, quiet=quiet or not first)


class Training:
    """One run in one process: everything that an epoch needs.

    Args:
        recipe: the settings.
        out: directory of the checkpoint.
        options: where and how it runs.
        device: of this process.
        joined: the processes that train together.
        say: told what is worth knowing before it starts.
    """

    def __init__(
        self, recipe: Recipe, out: Path, options: Options, device: torch.device, joined: Workers, say: Say
    ) -> None:
        check_shares(recipe.batch, joined.world)
        self._recipe, self._out, self._options, self._joined, self._device = recipe, out, options, joined, device
        torch.backends.cudnn.benchmark = device.type == "cuda"  # sizes stay the same, step after step
        self._source = open_source(recipe.data, recipe.seed, recipe.image_size)
        torch.manual_seed(recipe.seed)
        self._done = previous(recipe, out / FILE)
        net = start_network(recipe, say) if self._done is None else self._done.network()
        self._net = net.to(device)
        check_classes(self._net, self._source)
        if options.channels_last:
            self._net = self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = open_optimizer(self._net, recipe)
        self._teacher = open_teacher(recipe.teacher, self._net, recipe.teacher_decay)
        plan = Plan(recipe.samples, recipe.groups, recipe.epochs, recipe.seed)
        self._sampler = open_sampler(recipe.sampling, plan, self._net, input_shape(self._source))
        self._space = SearchSpace.of(self._net)
        self._augment = augmentation(recipe.augment, input_shape(self._source)[-1])
        self._step = Step(
            self._net,
            self._optimizer,
            recipe,
            teacher=self._teacher,
            workers=joined,
            forward=open_forward(self._net, self._space, compile_ends=options.compile),
        )
        if self._done is not None:
            self._restore(self._done, say)
        for note in self._source.notes:
            say(note)
        if options.check_data:
            say(f"{check_images(self._source, options.workers, joined.world)} images can be read")
        self._validation = None
        if options.validate_images and joined.first:
            self._validation = Validation.of(self._source, options)

    def run(self, stop_after: int | None, watch: Watch, *, quiet: bool) -> Checkpoint:
        """Train the epochs that are left."""
        checkpoint = self._done or Checkpoint(self._recipe, 0, (), self._net.state_dict(), {})
        done = checkpoint.epochs_done
        self._joined.check_same(f"{done} epochs of {checkpoint.weights_sha256()}", self._device)
        until = self._recipe.epochs if stop_after is None else min(self._recipe.epochs, stop_after)
        if self._joined.first and done < until:
            averages = 2 if self._recipe.optimizer == "adamw" else 1
            check_disk(self._out, self._net, copies=1 + averages + (self._recipe.teacher == "ema"))
        with tqdm(desc="train", total=until, initial=done, bar_format=BAR, disable=quiet) as progress:
            for epoch in range(done, until):
                record = self.epoch(epoch, progress)
                check_numbers(self._net, epoch)
                checkpoint = replace(self._checkpoint(), epochs_done=epoch + 1, history=(*checkpoint.history, record))
                if self._joined.first:
                    write_checkpoint(self._out / FILE, checkpoint)
                    watch(checkpoint)
        return checkpoint

    def epoch(self, epoch: int, progress: tqdm) -> dict[str, float]:
        """One pass over the epoch's images; everything random follows from (seed, epoch, rank).

        Returns:
            The epoch's record: mean losses of the full and the smallest network, accuracies, seconds.
        """
        recipe, joined, started = self._recipe, self._joined, time.perf_counter()
        if self._sampler.wants_trial(epoch):
            self._look(epoch)
        torch.manual_seed((recipe.seed * 1_000_003 + epoch) * 4_099 + joined.rank)
        rng = random.Random(f"{recipe.seed}/{epoch}")
        view = self._source.train(epoch)
        steps = len(view) // recipe.batch  # a short last batch would count too much
        if steps == 0:
            raise TrainingError(
                f"{len(view)} training images are fewer than one batch of {recipe.batch}: lower --batch"
            )
        ends: list[tuple[float, float]] = []
        self._net.train()
        shares = batches(view, recipe.batch, workers=self._options.workers, rank=joined.rank, world=joined.world)
        for step, images in enumerate(shares):
            done = (epoch * steps + step) / (recipe.epochs * steps)
            set_learning_rate(self._optimizer, recipe.learning_rate * schedule(done, recipe.warm_up))
            losses = self._one(images, rng, epoch, step)
            ends.append((losses[0], losses[min(1, len(losses) - 1)]))
            progress.update(epoch + (step + 1) / steps - progress.n)  # not a sum of fractions, which may pass the end
            rate = (step + 1) * recipe.batch / (time.perf_counter() - started)
            progress.set_postfix_str(f"loss full {ends[-1][0]:.3f} smallest {ends[-1][1]:.3f}, {rate:.0f} images/s")
        trained = time.perf_counter() - started
        joined.average_statistics(self._net)
        record = {
            "loss_full": sum(full for full, _ in ends) / steps,
            "loss_smallest": sum(smallest for _, smallest in ends) / steps,
            "images_per_s": steps * recipe.batch / trained,
        }
        if self._validation is not None:
            record |= self._validation.table(self._net, self._space)
        return record | {"seconds": time.perf_counter() - started}

    def _one(self, images: Images, rng: random.Random, epoch: int, step: int) -> list[float]:
        """Train one batch; a loss that is no number stops the run before it reaches the weights."""
        configs = self._sampler.sandwich(rng)
        inputs, labels = self._inputs(images)
        losses = self._step.gradients(inputs, labels, configs)
        if not all(isfinite(loss) for loss in losses):
            where = save_batch(self._out, self._joined.rank, inputs, labels, configs)
            raise TrainingError(
                f"the loss became {losses} in epoch {epoch + 1}, step {step + 1}: lower --learning-rate or set "
                f"--clip-norm; the batch is {where}, the checkpoint of the epoch before is kept"
            )
        self._step.update()
        return losses

    def _inputs(self, images: Images) -> tuple[Tensor, Tensor]:
        pixels, labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
        if self._device.type == "cuda":  # only pinned memory is copied while the device works
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        pixels = pixels.to(self._device, non_blocking=True)
        inputs = standardise(self._augment(pixels.float() / 255.0), self._source.preprocess)
        if self._options.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, labels.to(self._device, non_blocking=True)

    def _look(self, epoch: int) -> None:
        """Let the sampler look at the network; all processes go on with what the first one saw."""
        if self._joined.first:
            images = self._source.validation().first(self._sampler.trial_images)
            inputs = normalise(images.pixels, self._source.preprocess).to(self._device)
            self._sampler.look(epoch, Trial(self._net, inputs, torch.from_numpy(images.labels).to(self._device)))
        self._sampler.restore(self._joined.from_first(self._sampler.state(), self._device))

    def _restore(self, done: Checkpoint, say: Say) -> None:
        restore_optimizer(self._net, self._optimizer, done.optimizer)
        self._teacher.restore(done.teacher)
        self._sampler.restore(done.sampler)
        self._step.restore_scaler(done.scaler)
        if done.world != self._joined.world:
            say(
                f"this run began with {done.world} processes and goes on with {self._joined.world}: each one's batch "
                "norms see another share of a batch, so the result is not that of a run that never stopped"
            )

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self._recipe,
            0,
            (),
            self._net.state_dict(),
            optimizer_state(self._net, self._optimizer),
            self._teacher.state(),
            self._sampler.state(),
            self._step.scaler_state(),
            self._joined.world,
        )
