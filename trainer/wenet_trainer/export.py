"""From a checkpoint and a frontier to a bundle; every mode is checked against torch before it is written."""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from wenet_runtime.bundle import FORMAT, FORMAT_VERSION, GOLDEN, TOPOLOGY, WEIGHTS, Manifest, Mode, TensorSpec
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer import __version__
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape, normalise
from wenet_trainer.errors import ExportError
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.explore.bench import calibration
from wenet_trainer.explore.result import FoundMode, Frontier
from wenet_trainer.progress import tqdm
from wenet_trainer.supernet import set_active, weight_enabled
from wenet_trainer.topology import INPUT, OUTPUT, describe

TOLERANCE = 1e-5  # of the largest answer; a wrong permutation or pattern is off by 0.1 and more
ROUNDINGS = 4
GOLDEN_IMAGES = 4
MAX_BATCH = 64

Statistics = dict[str, NDArray[np.float32]]


def export_bundle(checkpoint: Checkpoint, frontier: Frontier, out: Path, *, quiet: bool = False) -> str:
    """Write the bundle that the runtime serves.

    Args:
        checkpoint: the trained supernet.
        frontier: its modes.
        out: the bundle's directory; an older bundle there is replaced at once.
        quiet: no progress bar.

    Returns:
        The bundle's SHA-256.

    Raises:
        ExportError: the frontier is not this checkpoint's, or a mode deviates from torch; nothing is written.
    """
    source = open_source(checkpoint.recipe.data, checkpoint.recipe.seed, checkpoint.recipe.image_size)
    net = checkpoint.network()
    check_frontier(checkpoint, net, frontier)
    supernet = describe(net, input_shape(source))
    training_images = calibration(source)
    images = normalise(source.validation().first(GOLDEN_IMAGES).pixels, source.preprocess)
    golden = {f"input.{INPUT}": images.numpy()}
    files = {TOPOLOGY: supernet.topology, WEIGHTS: save(dict(supernet.weights))}
    modes = []
    for found in tqdm(frontier.modes, desc="export", unit=" modes", disable=quiet):
        statistics, answers = torch_answers(net, found.groups, training_images, images)
        check_mode(net, supernet, found, statistics, images, answers)
        name = f"modes/{found.id}.safetensors"
        files[name] = save(statistics)
        golden[f"{found.id}.{OUTPUT}"] = answers
        modes.append(_mode(found, name))
    files[GOLDEN] = save(golden)
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        model=checkpoint.recipe.model,
        inputs=supernet.inputs,
        outputs=(TensorSpec(OUTPUT, "FP32", (-1, len(source.labels))),),
        preprocess=source.preprocess,
        labels=source.labels,
        max_batch=MAX_BATCH,
        layers=supernet.layers,
        norms=supernet.norms,
        shuffles=supernet.shuffles,
        modes=tuple(modes),
        created_by={"wenet_trainer": __version__, "torch": str(torch.__version__)},
    )
    return write_bundle(out, manifest, files)


def torch_answers(
    net: nn.Module, groups: Mapping[str, int], training_images: Tensor, images: Tensor
) -> tuple[Statistics, NDArray[np.float32]]:
    """A mode's recalibrated statistics, and torch's answers with them: (N, classes)."""
    with recalibrated(net, groups, training_images) as statistics:
        return statistics, logits(net, images).numpy()


def check_mode(
    net: nn.Module,
    supernet: Supernet,
    found: FoundMode,
    statistics: Mapping[str, NDArray[np.float32]],
    images: Tensor,
    answers: NDArray[np.float32],
) -> None:
    """Refuse a mode whose materialized model does not answer as torch does.

    Raises:
        ExportError: the largest difference is above `TOLERANCE` times the largest answer, and above what
            torch's own float32 answers differ from its float64 ones by.
    """
    deviation = relative_deviation(supernet, found.groups, statistics, images, answers)
    if not deviation <= TOLERANCE and not deviation <= ROUNDINGS * rounding(net, found.groups, statistics, images):
        raise ExportError(
            f"mode '{found.id}' of the materialized model deviates from torch by {deviation:.2e} of the largest "
            f"answer, allowed are {TOLERANCE:.0e}; nothing was written. The network's layers were probably not "
            "mapped as they run: look for a batch norm or shuffle used unlike the others"
        )


def rounding(
    net: nn.Module, groups: Mapping[str, int], statistics: Mapping[str, NDArray[np.float32]], images: Tensor
) -> float:
    """max|torch in float32 − torch in float64| / max|torch in float64| of one configuration.

    Barely trained networks magnify rounding; two engines that sum in another order then differ by a few times this.
    """
    single = copy.deepcopy(net).eval()
    single.load_state_dict({name: torch.from_numpy(value) for name, value in statistics.items()}, strict=False)
    set_active(single, groups)
    found = logits(single, images)
    exact = logits(single.double(), images.double())
    return float((found.double() - exact).abs().max() / exact.abs().max())


def relative_deviation(
    supernet: Supernet,
    groups: Mapping[str, int],
    statistics: Mapping[str, NDArray[np.float32]],
    images: Tensor,
    answers: NDArray[np.float32],
) -> float:
    """max|ONNX Runtime − torch| / max|torch| of one configuration."""
    model = materialize(supernet, groups, statistics)
    engine = OrtBackend(None, 1).load_bytes(model, name="check")
    found = engine.infer({INPUT: images.numpy()})[OUTPUT]
    engine.close()
    return float(np.abs(found - answers).max() / np.abs(answers).max())


def check_frontier(checkpoint: Checkpoint, net: nn.Module, frontier: Frontier) -> None:
    """Refuse a frontier of other weights or of another network. Raises `ExportError`."""
    weights = checkpoint.weights_sha256()
    if frontier.weights_sha256 != weights:
        raise ExportError(
            f"the frontier belongs to weights {frontier.weights_sha256[:12]}, this checkpoint has {weights[:12]} "
            f"after {checkpoint.epochs_done} epochs, so its accuracies would be wrong: explore this checkpoint again"
        )
    allowed = {name: layer.groups_allowed for name, layer in weight_enabled(net).items()}
    if not frontier.modes:
        raise ExportError("the frontier has no modes: explore again")
    for mode in frontier.modes:
        wrong = sorted(set(mode.groups) ^ set(allowed))
        wrong += [name for name, groups in mode.groups.items() if groups not in allowed.get(name, (groups,))]
        if wrong:
            raise ExportError(
                f"mode '{mode.id}' of the frontier does not fit this checkpoint (layers {wrong[:5]}): "
                "explore this checkpoint again"
            )


def _mode(found: FoundMode, statistics: str) -> Mode:
    return Mode(
        id=found.id,
        groups=dict(found.groups),
        precision="fp32",
        accuracy=found.accuracy,
        macs=found.macs,
        params=found.params,
        found_by=found.found_by,
        statistics=statistics,
    )
