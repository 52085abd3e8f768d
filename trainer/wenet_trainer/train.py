"""Algorithm 1: trains every sub-network of a supernet at once, resumable epoch by epoch."""

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from wenet_trainer.checkpoint import FILE, Checkpoint, check_disk, read_checkpoint, write_checkpoint
from wenet_trainer.cost import measure_costs
from wenet_trainer.data import open_source
from wenet_trainer.data.augment import augmentation
from wenet_trainer.data.base import Images, Source, View, input_shape, standardise
from wenet_trainer.data.loader import batches
from wenet_trainer.data.verify import verify
from wenet_trainer.devices import open_device
from wenet_trainer.distill import Teacher, open_teacher
from wenet_trainer.errors import TrainingError
from wenet_trainer.evaluate import logits
from wenet_trainer.failure import save_batch
from wenet_trainer.forward import open_forward
from wenet_trainer.network import make_network, start_network
from wenet_trainer.optimizer import open_optimizer, optimizer_state, restore_optimizer, schedule, set_learning_rate
from wenet_trainer.options import Options
from wenet_trainer.parallel import Workers, workers
from wenet_trainer.progress import tqdm
from wenet_trainer.recipe import Recipe
from wenet_trainer.sampling import open_sampler
from wenet_trainer.sampling.base import Plan, Sampler, Trial
from wenet_trainer.space import SearchSpace
from wenet_trainer.step import Step
from wenet_trainer.supernet import Flexible
from wenet_trainer.validate import Validation

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} epochs, {elapsed}, {remaining} left{postfix}"

Watcher = Callable[[Checkpoint], None]
Say = Callable[[str], None]


def train(
    recipe: Recipe,
    out: Path,
    *,
    options: Options | None = None,
    stop_after: int | None = None,
    quiet: bool = False,
    watch: Watcher = lambda _checkpoint: None,
    say: Say = lambda _line: None,
) -> Checkpoint:
    """Train, or go on where a run of the same recipe in `out` stopped, with the same result.

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
        training = Training(
            recipe, out, options, device, joined, quiet=quiet, say=say if joined.first else lambda _line: None
        )
        return training.run(stop_after, watch)


class Training:
    """One run in one process: everything that an epoch needs.

    Args:
        recipe: the settings.
        out: directory of the checkpoint.
        options: where and how it runs.
        device: of this process.
        joined: the processes that train together.
        quiet: no progress bar.
        say: told what is worth knowing before it starts.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        options: Options,
        device: torch.device,
        joined: Workers,
        *,
        quiet: bool,
        say: Say,
    ) -> None:
        if recipe.batch % joined.world:
            raise TrainingError(
                f"a batch of {recipe.batch} images cannot be shared by {joined.world} processes: "
                f"choose a --batch that {joined.world} divides"
            )
        if recipe.batch // joined.world < 2:
            raise TrainingError(
                f"a batch of {recipe.batch} images leaves each of {joined.world} processes fewer than two, and batch "
                f"norms need two: choose a --batch of at least {2 * joined.world}"
            )
        self._recipe, self._out, self._options, self._joined, self._device = recipe, out, options, joined, device
        self._quiet = quiet or not joined.first
        self._source = open_source(recipe.data, recipe.seed, recipe.image_size)
        torch.manual_seed(recipe.seed)
        self._done = _previous(recipe, out / FILE)
        for note in getattr(self._source, "notes", ()):
            say(note)
        if options.check_data and joined.first:
            say(f"{_check_images(self._source, options.workers)} images can be read")
        self._net = self._start(say).to(device)
        _check_classes(self._net, self._source)
        if options.channels_last:
            self._net = self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = open_optimizer(self._net, recipe)
        self._teacher: Teacher = open_teacher(recipe.teacher, self._net, recipe.teacher_decay)
        self._sampler = _sampler(self._net, recipe, self._source)
        self._space = SearchSpace.of(self._net)
        self._validation = Validation.of(self._source, options, device)
        self._augment = augmentation(recipe.augment, input_shape(self._source)[-1])
        if self._done is not None:
            restore_optimizer(self._net, self._optimizer, self._done.optimizer)
            self._teacher.restore(self._done.teacher)
            self._sampler.restore(self._done.sampler)
        self._step = Step(
            self._net,
            self._optimizer,
            recipe,
            teacher=self._teacher,
            workers=joined,
            forward=open_forward(self._net, self._space, compile_uniform=options.compile),
        )

    def run(self, stop_after: int | None, watch: Watcher) -> Checkpoint:
        """Train the epochs that are left."""
        checkpoint = self._done or Checkpoint(self._recipe, 0, (), self._net.state_dict(), {})
        self._joined.check_same(f"{checkpoint.epochs_done} epochs of {checkpoint.weights_sha256()}", self._device)
        until = min(self._recipe.epochs, stop_after or self._recipe.epochs)
        if self._joined.first and checkpoint.epochs_done < until:
            check_disk(self._out, self._net, copies=3 + (self._recipe.teacher == "ema"))
        done = checkpoint.epochs_done
        with tqdm(desc="train", total=until, initial=done, bar_format=BAR, disable=self._quiet) as progress:
            for epoch in range(done, until):
                record = self.epoch(epoch, progress)
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
        recipe, started = self._recipe, time.perf_counter()
        if self._sampler.wants_trial(epoch):
            self._look(epoch)
        torch.manual_seed((recipe.seed * 1_000_003 + epoch) * 4_099 + self._joined.rank)
        rng = random.Random(f"{recipe.seed}/{epoch}")
        view = self._source.train(epoch)
        steps = len(view) // recipe.batch  # a short last batch would count too much
        if steps == 0:
            raise TrainingError(
                f"{len(view)} training images are fewer than one batch of {recipe.batch}: lower --batch"
            )
        losses: list[list[float]] = []
        self._net.train()
        for step, images in enumerate(self._batches(view)):
            done = (epoch * steps + step) / (recipe.epochs * steps)
            set_learning_rate(self._optimizer, recipe.learning_rate * schedule(done, recipe.warm_up))
            losses.append(self._one(images, rng, epoch, step))
            progress.update(epoch + (step + 1) / steps - progress.n)  # not a sum of fractions, which may pass the end
            rate = (step + 1) * recipe.batch / (time.perf_counter() - started)
            progress.set_postfix_str(
                f"loss full {losses[-1][0]:.3f} smallest {losses[-1][min(1, len(losses[-1]) - 1)]:.3f}, "
                f"{rate:.0f} images/s"
            )
        trained = time.perf_counter() - started
        self._joined.average_statistics(self._net)
        record = {
            "loss_full": sum(step_losses[0] for step_losses in losses) / steps,
            "loss_smallest": sum(step_losses[min(1, len(step_losses) - 1)] for step_losses in losses) / steps,
            "images_per_s": steps * recipe.batch / trained,
        }
        if self._options.validate_images and self._joined.first:
            record |= self._validation.table(self._net, self._space)
        return record | {"seconds": time.perf_counter() - started}

    def _one(self, images: Images, rng: random.Random, epoch: int, step: int) -> list[float]:
        """Train one batch; a loss that is no number stops the run before it reaches the weights."""
        configs = self._sampler.sandwich(rng)
        inputs, labels = self._inputs(images)
        losses = self._step.gradients(inputs, labels, configs)
        if not all(isfinite(loss) for loss in losses):
            saved = save_batch(self._out, self._joined.rank, inputs, labels, configs)
            raise TrainingError(
                f"the loss became {losses} in epoch {epoch + 1}, step {step + 1}: lower --learning-rate or set "
                f"--clip-norm; the batch is saved in {saved}, the checkpoint of the epoch before is kept"
            )
        self._step.update()
        return losses

    def _batches(self, view: View) -> Iterator[Images]:
        joined = self._joined
        return batches(view, self._recipe.batch, workers=self._options.workers, rank=joined.rank, world=joined.world)

    def _inputs(self, images: Images) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(images.pixels).to(self._device, non_blocking=True)
        inputs = standardise(self._augment(pixels.float() / 255.0), self._source.preprocess)
        if self._options.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, torch.from_numpy(images.labels).to(self._device, non_blocking=True)

    def _look(self, epoch: int) -> None:
        """Let the sampler look at the network; all processes go on with what the first one saw."""
        if self._joined.first:
            labels = torch.from_numpy(self._validation.labels).to(self._device)
            self._sampler.look(epoch, Trial(self._net, self._validation.inputs, labels))
        self._sampler.restore(self._joined.from_first(self._sampler.state(), self._device))

    def _start(self, say: Say) -> nn.Module:
        if self._done is None:
            return start_network(self._recipe, say)
        net = make_network(self._recipe)
        net.load_state_dict(dict(self._done.weights))
        return net

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self._recipe,
            0,
            (),
            self._net.state_dict(),
            optimizer_state(self._net, self._optimizer),
            self._teacher.state(),
            self._sampler.state(),
        )


def _sampler(net: nn.Module, recipe: Recipe, source: Source) -> Sampler:
    plan = Plan(recipe.samples, recipe.groups, recipe.epochs, recipe.seed)
    costs = None if isinstance(net, Flexible) else measure_costs(net, input_shape(source))
    return open_sampler(recipe.sampling, plan, SearchSpace.of(net), SearchSpace.of(net, "block"), costs)


def _check_images(source: Source, workers: int) -> int:
    return sum(verify(view, workers=workers) for view in (source.train(0), source.validation(), source.test()))


def _check_classes(net: nn.Module, source: Source) -> None:
    if len(source.labels) < 2:
        raise TrainingError(f"the data has only one class, {source.labels}: there is nothing to tell apart")
    image = torch.zeros(1, *input_shape(source), device=next(net.parameters()).device)
    answers = logits(net, image)
    if answers.shape != (1, len(source.labels)):
        raise TrainingError(
            f"for one image the network answers {tuple(answers.shape)}, but the data has {len(source.labels)} classes: "
            f"build it for them, for most models with --model-arguments classes={len(source.labels)}"
        )


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
