"""`wenet-trainer report`: what a training came to, beside others if wanted, as pictures and one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from wenet_runtime.bundle import Accuracy
from wenet_runtime.files import write_atomic
from wenet_trainer.checkpoint import Checkpoint, read_checkpoint
from wenet_trainer.cost import macs_of
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape
from wenet_trainer.errors import ExploreError, TrainingError
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.images import FINAL_IMAGES, calibration
from wenet_trainer.explore.picture import NAME, write_pictures
from wenet_trainer.explore.result import FILE as FRONTIER
from wenet_trainer.explore.result import read_frontier
from wenet_trainer.plots import plot_accuracy_over_macs, plot_curves
from wenet_trainer.progress import tqdm
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import weight_enabled

TABLE, CURVES, ACCURACY = "report.md", "curves.png", "accuracy.png"
PICTURE = f"{NAME}.png"


@dataclass(frozen=True)
class Row:
    """One configuration of one run.

    Attributes:
        run: name of the run's folder.
        mode: "1/4" is the uniform mode of 4 groups, or the fourth level of another flexible network.
        macs: multiply-accumulates of one image.
        accuracy: on the test images, with recalibrated statistics.
    """

    run: str
    mode: str
    macs: int
    accuracy: Accuracy


def write_report(out: Path, beside: Sequence[Path], *, quiet: bool = False) -> list[Row]:
    """Evaluate the uniform modes of runs on their test images; write `report.md` and two pictures into `out`.

    What an exploration left in `out` is shown, too: its modes, and its picture, drawn anew where it is missing.

    Args:
        out: directory of the run.
        beside: directories of runs to compare with.
        quiet: no progress bar.

    Raises:
        CheckpointError: one of them holds no checkpoint.
        TrainingError: one was trained on other data, so that accuracies cannot be compared.
    """
    runs = {path: read_checkpoint(path) for path in (out, *beside)}
    first = runs[out].recipe
    names = _names(list(runs))
    for path, checkpoint in runs.items():
        theirs = (checkpoint.recipe.data, checkpoint.recipe.image_size)
        if theirs != (first.data, first.image_size):
            raise TrainingError(
                f"{path} was trained on {theirs[0]} at size {theirs[1]}, {out} on {first.data} at {first.image_size}: "
                "compare runs of the same data"
            )
    rows = [
        row
        for path, checkpoint in tqdm(runs.items(), desc="report", unit=" runs", disable=quiet)
        for row in _rows(names[path], checkpoint)
    ]
    plot_curves(runs[out].history, f"{first.model} on {first.data}", out / CURVES)
    lines: Mapping[str, list[tuple[float, float]]] = {
        name: [(row.macs, row.accuracy.value) for row in rows if row.run == name] for name in names.values()
    }
    plot_accuracy_over_macs(lines, f"{first.data}, {rows[0].accuracy.images} test images", out / ACCURACY)
    write_atomic(out / TABLE, (_table(rows) + _explored(out, runs[out])).encode())
    return rows


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The folders' names, or their whole paths where two have one name."""
    names = [path.resolve().name for path in paths]
    return {
        path: name if names.count(name) == 1 else str(path.resolve()) for path, name in zip(paths, names, strict=True)
    }


def _rows(name: str, checkpoint: Checkpoint) -> list[Row]:
    # A run's own test images: splits that are cut from the training images differ by seed.
    recipe = checkpoint.recipe
    source = open_source(recipe.data, recipe.seed, recipe.image_size)
    images = source.test().first(FINAL_IMAGES)
    net, statistics = checkpoint.network(), calibration(source)
    rows = []
    for mode, config in _configs(net, checkpoint).items():
        with recalibrated(net, config, statistics):
            found = accuracy_on(net, config, images, source.preprocess)
        rows.append(Row(name, mode, macs_of(net, config, input_shape(source)), found))
    return rows


def _configs(net: nn.Module, checkpoint: Checkpoint) -> dict[str, GroupConfig]:
    space = SearchSpace.of(net)
    levels = sorted({level for levels in space.allowed.values() for level in levels})
    if checkpoint.recipe.sampling == "fixed":  # nothing else was trained
        levels = [level for level in levels if level == checkpoint.recipe.groups]
    return {f"1/{level}": space.uniform(level) for level in levels}


def _table(rows: Sequence[Row]) -> str:
    lines = ["| run | mode | MMACs | test accuracy, % | 95 % |", "|---|---|---|---|---|"]
    for row in rows:
        value = row.accuracy
        span = f"{100 * value.ci_low:.1f} to {100 * value.ci_high:.1f}"
        lines.append(f"| {row.run} | {row.mode} | {row.macs / 1e6:.2f} | {100 * value.value:.2f} | {span} |")
    return "\n".join(lines) + "\n"


def _explored(out: Path, checkpoint: Checkpoint) -> str:
    """The frontier's part of the report; a frontier that does not belong here is no reason to report nothing."""
    if not (out / FRONTIER).is_file():
        return ""
    try:
        frontier = read_frontier(out / FRONTIER)
    except ExploreError as error:
        return f"\n{error}\n"
    if frontier.weights_sha256 != checkpoint.weights_sha256():
        return f"\n{FRONTIER} was explored on other weights than this checkpoint's: explore again.\n"
    if not (out / PICTURE).is_file():
        write_pictures(frontier, out, layers=tuple(weight_enabled(checkpoint.network())))
    lines = [
        "",
        f"Modes on {frontier.device}, accuracies on {frontier.final_images} validation images "
        "that the search did not choose by:",
        "",
        "| mode | precision | MMACs | ms (p50) | ms (p95) | mJ | accuracy, % | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mode in frontier.modes:
        value, time = mode.accuracy, mode.latency
        energy = "–" if mode.energy_mj is None else f"{mode.energy_mj:.3g} ({mode.energy_source})"
        lines.append(
            f"| {mode.id} | {mode.precision} | {mode.macs / 1e6:.2f} | {time.p50_ms:.3f} | {time.p95_ms:.3f} "
            f"| {energy} | {100 * value.value:.2f} | {100 * value.ci_low:.1f} to {100 * value.ci_high:.1f} |"
        )
    return "\n".join([*lines, "", f"![frontier]({PICTURE})"]) + "\n"
