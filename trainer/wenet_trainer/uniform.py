"""A bundle of the uniform modes, without any exploration: what a board can be measured with before exploring for it."""

from pathlib import Path

from torch import nn

from wenet_runtime.bundle import Mode
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.cost import measure_costs
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Source, input_shape
from wenet_trainer.errors import ExportError
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.images import FINAL_IMAGES, calibration
from wenet_trainer.export import write_modes
from wenet_trainer.progress import tqdm
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import Flexible

FOUND_BY = "uniform"


def export_uniform(checkpoint: Checkpoint, out: Path, *, quiet: bool = False) -> str:
    """Write a bundle of one fp32 mode for every pattern, the same in every layer that allows it.

    Accuracies are of all validation images, with recalibrated statistics.

    Args:
        checkpoint: the trained supernet.
        out: the bundle's directory; an older bundle there is replaced at once.
        quiet: no progress bars.

    Returns:
        The bundle's SHA-256.

    Raises:
        ExportError: the network has no weight-enabled layers, or a mode deviates from torch; nothing is written.
    """
    net = checkpoint.network()
    if isinstance(net, Flexible):
        raise ExportError(
            f"'{checkpoint.recipe.model}' has no weight-enabled layers, so it has no modes to serve: "
            "compare it with `wenet-trainer report`"
        )
    source = open_source(checkpoint.recipe.data, checkpoint.recipe.seed, checkpoint.recipe.image_size)
    return write_modes(checkpoint, net, uniform_modes(net, source, quiet=quiet), out, quiet=quiet)


def uniform_modes(net: nn.Module, source: Source, *, quiet: bool = False) -> list[Mode]:
    """The uniform modes of a network, "g1" for the full one to "g16", with their accuracies on the validation images.

    Args:
        net: the trained supernet; left as it is but for the active configuration.
        source: where images come from; the first `FINAL_IMAGES` to validate on are taken.
        quiet: no progress bar.
    """
    costs = measure_costs(net, input_shape(source))
    training_images, images = calibration(source), source.validation().first(FINAL_IMAGES)
    modes = []
    for config in tqdm(SearchSpace.of(net).uniforms(), desc="accuracies", unit=" modes", disable=quiet):
        with recalibrated(net, config, training_images):
            accuracy = accuracy_on(net, config, images, source.preprocess)
        modes.append(
            Mode(
                id=f"g{max(config.values())}",
                groups=dict(config),
                precision="fp32",
                accuracy=accuracy,
                macs=costs.macs(config),
                params=costs.params(config),
                found_by=FOUND_BY,
            )
        )
    return modes
