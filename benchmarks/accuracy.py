"""Is WeNet more accurate than its peers at equal cost, trained on the same images by the same recipe?"""

import json
import math
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.arms import GROUPS, SUPERNET, WIDTH_LEVELS, Arm, arms
from benchmarks.common import ROOT, Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.curves import at, common_range, curve, operating_points, over_seeds, paired
from benchmarks.trained import FEW, Mode, Trained, right_answers, run_arm
from benchmarks.training_step import step_seconds
from wenet_runtime.files import write_atomic
from wenet_trainer.progress import tqdm
from wenet_trainer.recipe import Recipe

QUESTION = "Is WeNet more accurate than its peers at equal cost, trained alike, and what does each part of it give?"
SEEDS = 3
PROCESSES = 2
BASE = Recipe(
    data="generated",
    model=SUPERNET,
    model_arguments={"classes": 24, "width": 32, "depth": 3},
    epochs=32,
    batch=64,
    learning_rate=8e-3,
)
UNIFORM = [f"1/{groups}" for groups in GROUPS]

Results = Mapping[str, Sequence[Trained]]  # arm → one of each seed


def measure(arguments: Arguments) -> Measured:
    """Train what is not in `out/accuracy` yet, then compare; an hour or two on two cores."""
    if arguments.quick:
        with tempfile.TemporaryDirectory(prefix="wenet-accuracy-") as folder:
            base = replace(BASE, data=FEW, epochs=1, batch=32)
            return _compare(base, Path(folder), [arguments.seed])
    return _compare(BASE, ROOT / "out/accuracy", range(arguments.seed, arguments.seed + SEEDS))


def _compare(base: Recipe, folder: Path, seeds: Sequence[int]) -> Measured:
    many = _many_epochs(base, folder)
    chosen = arms(base, many)
    results = _train_all(chosen, folder, seeds)
    figures = {
        **_against(results, "wenet", "us-net", goal=0.732),
        **_against(results, "wenet", "us-net, shared affine", goal=0.732),
        **_against(results, "narrow wenet", "narrow us-net", goal=None),
        **_against(results, "wenet", "early exit", goal=None),
        **_static(results),
        **_ceiling(results, folder, seeds),
        **_ablations(results, folder, seeds),
        **_against(results, "progressive sampling", "uniform sampling", goal=None),
        **_against(results, "wenet", "uniform sampling", goal=None),
        **_levels(results),
    }
    samples = {name: [asdict(one) for one in trained] for name, trained in results.items()}
    recipes = {arm.name: arm.recipe.to_json() for arm in chosen}
    return figures, {"seeds": list(seeds), "recipes": recipes, "trained": samples}


def _many_epochs(base: Recipe, folder: Path) -> int:
    """Epochs with 20 sub-networks a step that take at least as long as the base's with 4, measured once."""
    path = folder / "many.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found["base"] != base.to_json():
            raise ValueError(f"{folder} belongs to another recipe: remove it")
        return int(found["epochs"])
    few_s, many_s = step_seconds(base, 4), step_seconds(base, 20)
    epochs = math.ceil(base.epochs * few_s / many_s)
    folder.mkdir(parents=True, exist_ok=True)
    found = {"base": base.to_json(), "few_s": few_s, "many_s": many_s, "epochs": epochs}
    write_atomic(path, json.dumps(found).encode())
    return epochs


def _train_all(chosen: Sequence[Arm], folder: Path, seeds: Sequence[int]) -> Results:
    jobs = [(arm, seed) for arm in chosen for seed in seeds]
    found: dict[tuple[str, int], Trained] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        futures = {
            pool.submit(run_arm, arm.seeded(seed), place(folder, arm.name, seed)): (arm.name, seed)
            for arm, seed in jobs
        }
        for future in tqdm(as_completed(futures), desc="accuracy", total=len(jobs), unit=" trainings"):
            found[futures[future]] = future.result()
    return {arm.name: [found[arm.name, seed] for seed in seeds] for arm in chosen}


def place(folder: Path, name: str, seed: int) -> Path:
    """Where a training lies."""
    return folder / f"seed-{seed}" / name.replace(" ", "-").replace("/", "-")


def _against(results: Results, ours: str, theirs: str, *, goal: float | None) -> dict[str, Figure]:
    """How often, and by how much, one curve lies above the other."""
    wins, gaps = [], []
    for one, other in zip(results[ours], results[theirs], strict=True):
        low, high = common_range([[mode.macs for mode in trained.modes.values()] for trained in (one, other)])
        costs = operating_points(low, high)
        gap = at(curve(list(one.modes.values())), costs) - at(curve(list(other.modes.values())), costs)
        wins.append(float((gap > 0).mean()))
        gaps.append(100 * float(gap.mean()))
    share, share_error = over_seeds(wins)
    gap_mean, gap_error = over_seeds(gaps)
    span = f"{costs[0] / 1e6:.2f} to {costs[-1] / 1e6:.2f} MMACs"
    how = f"share of {len(costs)} operating points, {span}, ± {share_error:.3f} over seeds"
    name = f"{ours} above {theirs}"
    return {
        name: reported(share, "", how) if goal is None else at_least(share, goal, "", how),
        f"{name}, mean": reported(gap_mean, "points", f"mean over the operating points, ± {gap_error:.2f} over seeds"),
    }


def _static(results: Results) -> dict[str, Figure]:
    """WeNet's curve against small networks, each trained alone at its width, at their own costs."""
    gaps = []
    for seed, wenet in enumerate(results["wenet"]):
        line = curve(list(wenet.modes.values()))
        alone = [results[f"static width {level}"][seed] for level in WIDTH_LEVELS]
        small = [mode for trained in alone for mode in trained.modes.values() if mode.macs >= line[0][0]]
        costs = np.array([float(mode.macs) for mode in small])
        gaps.append(100 * float((at(line, costs) - np.array([mode.test or 0.0 for mode in small])).mean()))
    mean, error = over_seeds(gaps)
    how = f"mean over {len(small)} networks of their own width within WeNet's range, ± {error:.2f} over seeds"
    return {"wenet above static small networks, mean": reported(mean, "points", how)}


def _ceiling(results: Results, folder: Path, seeds: Sequence[int]) -> dict[str, Figure]:
    """The uniform modes against networks that were trained for one of them alone."""
    figures = {}
    below: list[list[float]] = []
    for groups in GROUPS:
        found = [_paired(folder, seed, f"independent 1/{groups}", "wenet", f"1/{groups}") for seed in seeds]
        below.append([gap for gap, _ in found])
        mean, error = over_seeds(below[-1])
        images = math.sqrt(float(np.mean(np.square([one for _, one in found]))) / len(found))
        how = f"trained alone by labels less the mode, ± {error:.2f} over seeds, ± {images:.2f} paired over images"
        figures[f"independent above wenet, 1/{groups}"] = reported(mean, "points", how)
    mean, error = over_seeds(np.mean(below, axis=0).tolist())
    joint = [_joint_error(folder, seed) for seed in seeds]
    how = (
        f"mean over five uniform modes on {_test_images(folder, seeds[0])} test images a seed, ± {error:.2f} over "
        f"seeds, ± {math.sqrt(float(np.mean(np.square(joint))) / len(joint)):.2f} paired over test images"
    )
    return {"independent above wenet, mean": at_most(mean, 0.5, "points", how), **figures}


def _ablations(results: Results, folder: Path, seeds: Sequence[int]) -> dict[str, Figure]:
    """What each part gives: the mean of five uniform modes with it, less without it."""
    pairs = {
        "shuffle": ("wenet", "without shuffle"),
        "distillation by the average": ("wenet", "without distillation"),
        "s = 4 rather than 20 in equal time": ("wenet", "s = 20"),
        "target rather than uniform sampling": ("wenet", "uniform sampling"),
        "progressive rather than uniform sampling": ("progressive sampling", "uniform sampling"),
    }
    figures = {}
    for name, (ours, theirs) in pairs.items():
        gaps = {mode: [_paired(folder, seed, ours, theirs, mode)[0] for seed in seeds] for mode in UNIFORM}
        mean, error = over_seeds(np.mean(list(gaps.values()), axis=0).tolist())
        each = ", ".join(f"{mode} {float(np.mean(values)):+.2f}" for mode, values in gaps.items())
        figures[name] = reported(mean, "points", f"mean over five uniform modes ({each}), ± {error:.2f} over seeds")
    few, many = ([one.seconds for one in results[name]] for name in ("wenet", "s = 20"))
    figures["s = 20: processor time"] = reported(
        float(np.mean(many) / np.mean(few)),
        "of s = 4",
        f"{np.mean(many):.0f} s for {results['s = 20'][0].images} images",
    )
    return figures


def _levels(results: Results) -> dict[str, Figure]:
    """How accurate the modes are at all, so that a gap can be judged."""
    figures = {}
    for name in ("wenet", "us-net", "us-net, shared affine", "narrow wenet", "narrow us-net"):
        last = max(int(mode[2:]) for mode in results[name][0].modes if mode.startswith("1/"))
        for mode in UNIFORM if name.endswith("wenet") else ["1/1", f"1/{last}"]:
            found: list[Mode] = [trained.modes[mode] for trained in results[name]]
            mean, error = over_seeds([100 * (one.test or 0.0) for one in found])
            what = mode if name.endswith("wenet") else ("full width" if mode == "1/1" else "narrowest")
            figures[f"{name} {what}"] = reported(
                mean, "%", f"{found[0].macs / 1e6:.2f} MMACs, ± {error:.2f} over seeds"
            )
    return figures


def _paired(folder: Path, seed: int, ours: str, theirs: str, mode: str) -> tuple[float, float]:
    right = [right_answers(place(folder, name, seed))[mode] for name in (ours, theirs)]
    return paired(right[0], right[1])


def _joint_error(folder: Path, seed: int) -> float:
    """Standard error of the mean gap to the ceiling over the test images of one seed, which all modes share."""
    wenet = right_answers(place(folder, "wenet", seed))
    gaps = [
        right_answers(place(folder, f"independent {mode}", seed))[mode].astype(np.float64) - wenet[mode]
        for mode in UNIFORM
    ]
    mean = np.mean(gaps, axis=0)
    return 100 * float(mean.std(ddof=1)) / math.sqrt(len(mean))


def _test_images(folder: Path, seed: int) -> int:
    return len(right_answers(place(folder, "wenet", seed))["1/1"])


if __name__ == "__main__":
    run("accuracy", QUESTION, measure, needs_bundle=False)
