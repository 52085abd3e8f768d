"""What a person sees of a training while it runs: a table row an epoch, and TensorBoard events."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wenet_trainer.checkpoint import ACCURACY, Checkpoint
from wenet_trainer.errors import TrainingError
from wenet_trainer.options import Options

FOLDER = "tensorboard"

Watch = Callable[[Checkpoint], None]


@contextmanager
def watcher(out: Path, options: Options, say: Callable[[str], None]) -> Iterator[Watch]:
    """What is told of every epoch.

    Args:
        out: directory of the run.
        options: whether TensorBoard events are wanted.
        say: prints a line.

    Raises:
        TrainingError: TensorBoard is wanted and not installed.
    """
    with ExitStack() as stack:
        watches: list[Watch] = [lambda checkpoint: say(row(checkpoint))]
        if options.tensorboard:
            watches.append(stack.enter_context(_events(out / FOLDER)))

        def watch(checkpoint: Checkpoint) -> None:
            for one in watches:
                one(checkpoint)

        yield watch


def row(checkpoint: Checkpoint) -> str:
    """The last epoch in one line: losses, accuracy of every uniform mode (1/16: 16 groups), throughput."""
    record = checkpoint.history[-1]
    modes = [
        f"1/{name.removeprefix(ACCURACY)} {100 * value:.1f} %"
        for name, value in record.items()
        if name.startswith(ACCURACY)
    ]
    return ", ".join(
        [
            f"epoch {checkpoint.epochs_done}/{checkpoint.recipe.epochs}: loss {record['loss_full']:.3f} full",
            f"{record['loss_smallest']:.3f} smallest",
            *modes,
            f"{record['images_per_s']:.0f} images/s",
        ]
    )


@contextmanager
def _events(folder: Path) -> Iterator[Watch]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("--tensorboard needs TensorBoard: pip install 'wenet-trainer[tensorboard]'") from None
    with SummaryWriter(str(folder)) as writer:

        def watch(checkpoint: Checkpoint) -> None:
            for name, value in checkpoint.history[-1].items():
                writer.add_scalar(name, value, checkpoint.epochs_done)
            writer.flush()

        yield watch
