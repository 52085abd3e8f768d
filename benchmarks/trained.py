"""Trains one arm of the accuracy benchmark and evaluates it, once: what is done is read back from its folder."""

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.arms import INPUT, Arm, candidates
from wenet_runtime.files import write_atomic
from wenet_runtime.pareto import pareto_front
from wenet_trainer.checkpoint import read_checkpoint
from wenet_trainer.cost import macs_of
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, normalise
from wenet_trainer.data.generated import Generated
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.explore.images import calibration
from wenet_trainer.options import Options
from wenet_trainer.train import train

FEW = "benchmarks.trained:FewGenerated"


@dataclass(frozen=True)
class FewGenerated(Generated):
    """So few images that the benchmark only shows that it works."""

    train_images: int = 128
    validation_images: int = 96
    test_images: int = 96


@dataclass(frozen=True)
class Mode:
    """One configuration of a trained network.

    Attributes:
        macs: multiply-accumulates of one image.
        validation: accuracy on the validation images, 0–1.
        test: accuracy on the test images, 0–1; None where the mode is no point of the curve.
    """

    macs: int
    validation: float
    test: float | None


@dataclass(frozen=True)
class Trained:
    """What one arm came to.

    Attributes:
        modes: by name; "1/4" is the uniform mode of 4 groups (or the fourth level of a peer).
        seconds: processor time of the training, all threads; validation tables are not made.
        images: training images seen.
    """

    modes: dict[str, Mode]
    seconds: float
    images: int


def run_arm(arm: Arm, folder: Path) -> Trained:
    """Train and evaluate in this process, on one thread; a folder that holds the result is only read."""
    result = folder / "result.json"
    source = repr(open_source(arm.recipe.data, arm.recipe.seed))  # with its scene and its counts
    if result.exists():
        members = json.loads(result.read_text())
        if (members["recipe"], members["source"]) == (arm.recipe.to_json(), source):
            modes = {name: Mode(**mode) for name, mode in members["modes"].items()}
            return Trained(modes, members["seconds"], members["images"])
        raise ValueError(f"{folder} holds another recipe's result: remove it to train this one")
    if folder.exists():
        shutil.rmtree(folder)  # half a training, whose processor time would be half
    torch.set_num_threads(1)
    started = time.process_time()
    checkpoint = train(arm.recipe, folder, options=Options(validate_images=0), quiet=True)
    seconds = time.process_time() - started
    modes, right = _evaluate(arm, folder)
    np.savez_compressed(folder / "right.npz", **right)
    images = len(open_source(arm.recipe.data, arm.recipe.seed).train(0)) * checkpoint.epochs_done
    found = Trained(modes, seconds, images)
    members = {"recipe": arm.recipe.to_json(), "source": source, **asdict(found)}
    write_atomic(result, json.dumps(members, indent=1).encode())
    return found


def right_answers(folder: Path) -> dict[str, NDArray[np.bool_]]:
    """Which test images each tested mode got right: (N,) by the mode's name."""
    with np.load(folder / "right.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _evaluate(arm: Arm, folder: Path) -> tuple[dict[str, Mode], dict[str, Any]]:
    """Validation chooses the curve's points among all candidates; these and the uniform modes are tested."""
    net = read_checkpoint(folder).network()
    source = open_source(arm.recipe.data, arm.recipe.seed)
    statistics, validation, test = calibration(source), _all(source.validation()), _all(source.test())
    inputs = {id(images): normalise(images.pixels, source.preprocess) for images in (validation, test)}
    configs = candidates(net, hull=arm.hull)
    if arm.recipe.sampling == "fixed":
        configs = {name: config for name, config in configs.items() if name == f"1/{arm.recipe.groups}"}

    def right(config: dict[str, int], images: Images) -> NDArray[np.bool_]:
        with recalibrated(net, config, statistics):
            answers = logits(net, inputs[id(images)]).argmax(1).numpy()
        correct: NDArray[np.bool_] = answers == images.labels
        return correct

    modes = {
        name: Mode(macs_of(net, config, INPUT), float(right(config, validation).mean()), None)
        for name, config in configs.items()
    }
    names = list(modes)
    front = {names[index] for index in pareto_front([(modes[name].macs, modes[name].validation) for name in names])}
    tested = {name: right(configs[name], test) for name in names if name in front or name.startswith("1/")}
    return (
        {
            name: replace(mode, test=float(tested[name].mean()) if name in tested else None)
            for name, mode in modes.items()
        },
        tested,
    )


def _all(view: Any) -> Images:
    images: Images = view.first(len(view))
    return images
