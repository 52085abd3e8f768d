"""How much of the best known frontier of trained networks does each search find? With measured layer tables."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.accuracy import BASE
from benchmarks.common import ROOT, Arguments, Figure, Measured, run
from benchmarks.searching import TABLE, TABLE_LONG, study
from benchmarks.trained import FEW
from wenet_runtime.meters.none import NoMeter
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.evaluator import Evaluator
from wenet_trainer.explore.images import calibration
from wenet_trainer.explore.problem import Problem
from wenet_trainer.explore.routes import by_table
from wenet_trainer.options import Options
from wenet_trainer.progress import tqdm
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe
from wenet_trainer.train import train

QUESTION = "How much of the best known frontier of trained networks does each search find?"
IMAGES, CALIBRATION = 500, 256  # every method is judged by the accuracies that it went by
LONG = 1_000
WITHOUT = ("evolve_2000",)  # the long run, which begins with all fronts, tells more
# Name → what is trained, and what one knob moves.
TRAINED = {
    "demo": (Recipe(), "layer"),
    "accuracy_benchmark": (BASE, "layer"),
    "sixteen_blocks": (replace(BASE, model_arguments={"classes": 24, "width": 16, "depth": 16}), "block"),
}
INTERACTING = ("sixteen_blocks",)  # strongly: sums predict its best mixtures 40 points too high
QUICK = {"quick": (replace(BASE, data=FEW, epochs=1, batch=32), "layer")}


def measure(arguments: Arguments) -> Measured:
    """Train what is not in `out/searching` yet, and search; what is evaluated is kept there, too."""
    torch.set_num_threads(1)
    if arguments.quick:
        with tempfile.TemporaryDirectory(prefix="wenet-searching-") as made:
            recipe, granularity = QUICK["quick"]
            return _study("quick", recipe, granularity, Path(made), arguments.seed, images=64, long=0)
    figures: dict[str, Figure] = {}
    samples: dict[str, object] = {}
    for name, (recipe, granularity) in TRAINED.items():
        folder = ROOT / "out/searching" / name
        found, taken = _study(name, recipe, granularity, folder, arguments.seed, images=IMAGES, long=LONG)
        figures |= found
        samples[name] = taken
    return figures, samples


def _study(name: str, recipe: Recipe, granularity: str, folder: Path, seed: int, *, images: int, long: int) -> Measured:
    checkpoint = train(replace(recipe, seed=seed), folder, options=Options(validate_images=0))
    source = open_source(checkpoint.recipe.data, checkpoint.recipe.seed)
    net, shown = checkpoint.network(), calibration(source)[:CALIBRATION]
    space = SearchSpace.of(net, granularity)
    with tqdm(desc="accuracies", unit=" configurations") as bar:
        evaluator = Evaluator(
            net,
            source.validation().first(images),
            source.preprocess,
            shown,
            journal=folder / "accuracies.jsonl",
            identity={"weights": checkpoint.weights_sha256(), "calibration": str(len(shown))},
            progress=bar.update,
        )
        bench = Bench(describe(net, input_shape(source)), shown[:1].numpy(), folder, NoMeter(), threads=1, seed=seed)
        table = bench.table(lambda done, total: None)
        bench.close()
        route = by_table(table, "here")

        def problem(evaluations: int, seed: int) -> Problem:
            return Problem(
                space=space,
                accuracies=evaluator.accuracies,
                cost=route.cost,
                latency=route.latency,
                evaluations=evaluations,
                seed=seed,
            )

        reference = (1.1 * table.full_ms, 1 / len(source.labels))
        goal_of = TABLE_LONG if name in INTERACTING else TABLE
        figures, samples = study(problem, name, reference, goal_of=goal_of, seed=seed, long=long, without=WITHOUT)
    return figures, {**samples, "knobs": len(space.knobs), "full_ms": table.full_ms, "table_error": table.error.median}


if __name__ == "__main__":
    run("searching_trained", QUESTION, measure, needs_bundle=False)
