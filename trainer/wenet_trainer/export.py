"""From a checkpoint and its modes to a bundle; every mode is checked against torch before it is written."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from wenet_runtime.bundle import FORMAT, FORMAT_VERSION, GOLDEN, TOPOLOGY, WEIGHTS, Manifest, Mode, TensorSpec
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer import __version__
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape, normalise
from wenet_trainer.errors import ExportError
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.explore.images import calibration
from wenet_trainer.explore.precision import variant_of
from wenet_trainer.explore.result import FoundMode, Frontier
from wenet_trainer.golden import computed_answers, distance, remark
from wenet_trainer.progress import tqdm
from wenet_trainer.space import GroupConfig
from wenet_trainer.supernet import set_active, weight_enabled
from wenet_trainer.topology import INPUT, OUTPUT, describe

TOLERANCE = 1e-5  # of the largest answer; a wrong permutation or pattern is off by 0.1 and more
ROUNDINGS = 4
GOLDEN_IMAGES = 4
MAX_BATCH = 64

Statistics = dict[str, NDArray[np.float32]]
Say = Callable[[str], None]


def _silent(sentence: str) -> None:
    del sentence


def export_bundle(
    checkpoint: Checkpoint, frontier: Frontier, out: Path, *, quiet: bool = False, say: Say = _silent
) -> str:
    """Write the bundle that the runtime serves.

    Args:
        checkpoint: the trained supernet.
        frontier: its modes.
        out: the bundle's directory; an older bundle there is replaced at once.
        quiet: no progress bar.
        say: told a sentence of every mode that its precision moves far from fp32.

    Returns:
        The bundle's SHA-256.

    Raises:
        ExportError: the frontier is not this checkpoint's, or a mode deviates from torch; nothing is written.
    """
    net = checkpoint.network()
    check_frontier(checkpoint, net, frontier)
    return write_modes(checkpoint, net, [as_mode(found) for found in frontier.modes], out, quiet=quiet, say=say)


def write_modes(
    checkpoint: Checkpoint,
    net: nn.Module,
    modes: Sequence[Mode],
    out: Path,
    *,
    quiet: bool = False,
    say: Say = _silent,
) -> str:
    """Write a bundle of these modes; the rest is as in `export_bundle`.

    Args:
        checkpoint: the trained supernet.
        net: its network.
        modes: what is to be in the bundle; which file holds a mode's statistics is decided here.
        out: the bundle's directory.
        quiet: no progress bar.
        say: told a sentence of every mode that its precision moves far from fp32.
    """
    source = open_source(checkpoint.recipe.data, checkpoint.recipe.seed, checkpoint.recipe.image_size)
    supernet = describe(net, input_shape(source))
    training_images = calibration(source)
    images = normalise(source.validation().first(GOLDEN_IMAGES).pixels, source.preprocess)
    golden = {f"input.{INPUT}": images.numpy()}
    files = {TOPOLOGY: supernet.topology, WEIGHTS: save(dict(supernet.weights))}
    twins: dict[GroupConfig, tuple[Statistics, NDArray[np.float32]]] = {}  # in fp32, one for all precisions
    written = []
    for mode in tqdm(modes, desc="export", unit=" modes", disable=quiet):
        config = GroupConfig(mode.groups)
        if config not in twins:
            twins[config] = torch_answers(net, config, training_images, images)
            check_mode(net, supernet, mode, twins[config][0], images, twins[config][1])
        statistics, answers = twins[config]
        if mode.precision != "fp32":
            variant = variant_of(supernet, config, mode.precision, statistics, training_images)
            statistics, answers = dict(variant.statistics), computed_answers(supernet, variant, images)
            sentence = remark(mode, answers, twins[config][1])
            if sentence is not None:
                say(sentence)
        name = f"modes/{mode.id}.safetensors"
        files[name] = save(statistics)
        golden[f"{mode.id}.{OUTPUT}"] = answers
        written.append(replace(mode, statistics=name))
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
        modes=tuple(written),
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
    mode: Mode,
    statistics: Mapping[str, NDArray[np.float32]],
    images: Tensor,
    answers: NDArray[np.float32],
) -> None:
    """Refuse a mode whose materialized model does not answer as torch does; both in fp32, whatever its precision.

    Raises:
        ExportError: the largest difference is above `TOLERANCE` times the largest answer, and above what
            torch's own float32 answers differ from its float64 ones by.
    """
    deviation = relative_deviation(supernet, mode.groups, statistics, images, answers)
    if not deviation <= TOLERANCE and not deviation <= ROUNDINGS * rounding(net, mode.groups, statistics, images):
        raise ExportError(
            f"mode '{mode.id}' of the materialized model deviates from torch by {deviation:.2e} of the largest "
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
    return distance(found, answers)


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
        if mode.precision not in PRECISIONS:
            raise ExportError(
                f"mode '{mode.id}' of the frontier has unknown precision '{mode.precision}', known are "
                f"{', '.join(PRECISIONS)}: explore this checkpoint again"
            )


def as_mode(found: FoundMode) -> Mode:
    """A frontier's mode as a bundle names it."""
    return Mode(
        id=found.id,
        groups=dict(found.groups),
        precision=found.precision,
        accuracy=found.accuracy,
        macs=found.macs,
        params=found.params,
        found_by=found.found_by,
    )
