"""What is refused before a training starts."""

from pathlib import Path

import torch
from torch import nn

from wenet_trainer.checkpoint import Checkpoint, read_checkpoint
from wenet_trainer.data.base import Source, input_shape
from wenet_trainer.data.verify import verify
from wenet_trainer.errors import TrainingError
from wenet_trainer.evaluate import logits
from wenet_trainer.recipe import Recipe


def check_shares(batch: int, world: int) -> None:
    """Every process must get the same number of images of a batch, and at least two for its batch norms."""
    if batch % world:
        raise TrainingError(
            f"a batch of {batch} images cannot be shared by {world} processes: choose a --batch that {world} divides"
        )
    if batch // world < 2:
        raise TrainingError(
            f"a batch of {batch} images leaves each of {world} processes fewer than two, and batch norms need two: "
            f"choose a --batch of at least {2 * world}"
        )


def check_classes(net: nn.Module, source: Source) -> None:
    """The network must answer as many classes as the data has, which must be two or more."""
    if len(source.labels) < 2:
        raise TrainingError(f"the data has only one class, {source.labels}: there is nothing to tell apart")
    image = torch.zeros(1, *input_shape(source), device=next(net.parameters()).device)
    answers = logits(net, image)
    if answers.shape != (1, len(source.labels)):
        raise TrainingError(
            f"for one image the network answers {tuple(answers.shape)}, but the data has {len(source.labels)} classes: "
            f"build it for them, for most models with --model-arguments classes={len(source.labels)}"
        )


def check_images(source: Source, workers: int, world: int) -> int:
    """Read every image once. Returns how many there are; raises `DataError` for those that cannot be read."""
    if world > 1:
        raise TrainingError("--check-data reads every image, which the other processes would wait for: run it alone")
    return sum(verify(view, workers=workers) for view in (source.train(0), source.validation(), source.test()))


def previous(recipe: Recipe, path: Path) -> Checkpoint | None:
    """The run of this very recipe that stopped there, if there is one. Raises `TrainingError` for another's."""
    if not path.exists():
        return None
    found = read_checkpoint(path)
    if found.recipe != recipe:
        raise TrainingError(
            f"{path} belongs to a run with other settings ({'; '.join(recipe.differences(found.recipe))}): "
            "choose another --out, ask for the same settings, or remove it"
        )
    return found


def check_numbers(net: nn.Module, epoch: int) -> None:
    """Refuse to write weights or statistics that are no numbers: the checkpoint before is worth more."""
    broken = [
        name
        for name, value in net.state_dict().items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        raise TrainingError(
            f"after epoch {epoch + 1} {len(broken)} tensors are no numbers any more, '{broken[0]}' the first: lower "
            "--learning-rate or set --clip-norm; the checkpoint of the epoch before is kept"
        )
