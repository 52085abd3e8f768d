"""How much of the best known frontier of a trained network does each search find? With a measured layer table."""

import tempfile
from pathlib import Path

import torch

from benchmarks.accuracy import BASE, place
from benchmarks.arms import Arm
from benchmarks.common import ROOT, Arguments, Measured, run
from benchmarks.searching import TABLE, study
from benchmarks.trained import FEW, run_arm
from wenet_runtime.meters.none import NoMeter
from wenet_trainer.checkpoint import read_checkpoint
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.evaluator import Evaluator
from wenet_trainer.explore.images import calibration
from wenet_trainer.explore.problem import Problem
from wenet_trainer.explore.routes import by_table
from wenet_trainer.progress import tqdm
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe

QUESTION = "How much of the best known frontier of a trained network does each search find?"
IMAGES, CALIBRATION = 1_000, 256  # every method is judged by the accuracies that it went by
LONG = 1_000
QUICK = Recipe(data=FEW, model="small_resnet", model_arguments=BASE.model_arguments, epochs=1, batch=32)


def measure(arguments: Arguments) -> Measured:
    """The accuracy benchmark's WeNet, trained if it is not there; what is evaluated is kept in `out/searching`."""
    torch.set_num_threads(1)
    if arguments.quick:
        with tempfile.TemporaryDirectory(prefix="wenet-searching-") as folder:
            return _study(QUICK, Path(folder) / "trained", Path(folder), arguments.seed, images=64, long=0)
    trained = place(ROOT / "out/accuracy", "wenet", arguments.seed)
    return _study(BASE, trained, ROOT / "out/searching", arguments.seed, images=IMAGES, long=LONG)


def _study(recipe: Recipe, trained: Path, folder: Path, seed: int, *, images: int, long: int) -> Measured:
    run_arm(Arm("wenet", recipe, hull=True).seeded(seed), trained)
    checkpoint = read_checkpoint(trained)
    source = open_source(checkpoint.recipe.data, checkpoint.recipe.seed)
    net, shown = checkpoint.network(), calibration(source)[:CALIBRATION]
    space = SearchSpace.of(net, "layer")
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
        figures, samples = study(problem, "trained", reference, goal_of=TABLE, seed=seed, long=long)
    return figures, {**samples, "knobs": len(space.knobs), "full_ms": table.full_ms}


if __name__ == "__main__":
    run("searching_trained", QUESTION, measure, needs_bundle=False)
