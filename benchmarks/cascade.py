"""How much time does the confidence cascade save at a certified loss, and what does an attack on it cost?"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy import BASE
from benchmarks.common import ROOT, Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.escalation_streams import Terms, attacked
from benchmarks.trained import FEW
from wenet_runtime.bundle import Bundle, Mode, Rule
from wenet_runtime.cascade import Cascade, merged, rows_of
from wenet_runtime.engines.ort import OrtBackend
from wenet_trainer.cascade.answers import Engines, answers_of, batches, opened, times_ms
from wenet_trainer.cascade.calibrate import PILOT, Answers, Goal, calibrate, certify, losses, planned, rules_of
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, input_shape, normalise
from wenet_trainer.data.digits import Digits
from wenet_trainer.data.generated import Generated
from wenet_trainer.evaluate import wilson
from wenet_trainer.explore.images import FINAL_IMAGES, calibration
from wenet_trainer.explore.precision import open_variant, prepare, right
from wenet_trainer.export import write_modes
from wenet_trainer.options import Options
from wenet_trainer.topology import describe
from wenet_trainer.train import train
from wenet_trainer.uniform import uniform_modes

QUESTION = "How much time does the confidence cascade save at a certified loss, and what does an attack on it cost?"
# Wider than the accuracy benchmark's network, whose inferences are so short that calling the engine is most of them.
NETWORK = replace(BASE, model_arguments={"classes": 24, "width": 64, "depth": 3}, learning_rate=5e-3)
QUICK = replace(BASE, data=FEW, epochs=1, batch=32)
HELD_OUT, QUICK_HELD_OUT = "benchmarks.cascade:HeldOutGenerated", "benchmarks.trained:FewGenerated"
OTHER_SEEDS = 1_000  # of images that no training draws
GOAL = Goal(epsilon=0.003, delta=0.05)
STUDIES: Sequence[tuple[str, Sequence[str]]] = (("fp32", ()), ("fp32 and int8", ("int8",)))
SAVED = 0.25


@dataclass(frozen=True)
class HeldOutGenerated(Generated):
    """Enough images to calibrate on, and others to judge the result by."""

    validation_images: int = 24_000
    test_images: int = 60_000


def measure(arguments: Arguments) -> Measured:
    """Train what is not in `out/cascade` yet, calibrate, judge on other images, attack."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="wenet-cascade-") as made:
        recipe, folder = (QUICK, Path(made) / "network") if arguments.quick else (NETWORK, ROOT / "out/cascade/network")
        checkpoint = train(replace(recipe, seed=arguments.seed), folder, options=Options(validate_images=0))
        figures: dict[str, Figure] = {}
        samples: dict[str, Any] = {"recipe": checkpoint.recipe.to_json(), "goal": asdict(GOAL)}
        terms = None
        for name, precisions in STUDIES[: 1 if arguments.quick else None]:
            bundle = _bundle(checkpoint, Path(made) / name.replace(" ", "-"), precisions)
            found, taken, used = _study(bundle, arguments)
            figures |= {f"{key} ({name})": figure for key, figure in found.items()}
            samples[name] = taken
            terms = terms or used
        streams, sent = attacked(terms or Terms(0.3, 0.3), 2_000 if arguments.quick else 1_000_000, arguments.seed)
        figures |= streams
        samples["streams"] = sent
    if not arguments.quick and arguments.bundle.is_dir():
        samples["digits, reported only"] = _digits(Bundle(arguments.bundle), arguments.seed)
    return figures, samples


def _bundle(checkpoint: Checkpoint, path: Path, precisions: Sequence[str]) -> Bundle:
    """The uniform modes in fp32 and in other precisions."""
    net, source = checkpoint.network(), open_source(checkpoint.recipe.data, checkpoint.recipe.seed)
    modes = uniform_modes(net, source, quiet=True)
    supernet, shown = describe(net, input_shape(source)), calibration(source)
    images, backend = source.validation().first(FINAL_IMAGES), OrtBackend(None, 1)
    variants: list[Mode] = []
    for precision in precisions:
        for mode in modes:
            engine = open_variant(supernet, prepare(net, supernet, mode.groups, precision, shown), backend)
            correct = int(right(engine, images, source.preprocess).sum())
            engine.close()
            accuracy = wilson(correct, len(images))
            variants.append(replace(mode, id=f"{mode.id}-{precision}", precision=precision, accuracy=accuracy))
    write_modes(checkpoint, net, [*modes, *variants], path, quiet=True)
    return Bundle(path)


def _study(bundle: Bundle, arguments: Arguments) -> tuple[dict[str, Figure], dict[str, Any], Terms | None]:
    """Calibrate a bundle, and judge its rules on other images, with times of real cascaded inferences."""
    data, seed = (QUICK_HELD_OUT if arguments.quick else HELD_OUT), OTHER_SEEDS + arguments.seed
    started, source = time.monotonic(), open_source(data, seed)
    views = source.validation(), source.test()
    with opened(bundle) as engines:
        times = times_ms(bundle, engines)
        (calibrating, data_sha256), (test, _) = (answers_of(bundle, engines, batches([one], 0, None)) for one in views)
        pairs = calibrate(calibrating, times, GOAL)
        rules = rules_of(pairs, GOAL, len(views[0]), data_sha256)
        shown = views[1].first(40 if arguments.quick else 3_000)
        taken = [_timed(bundle, engines, rule, shown) for rule in rules]
    figures: dict[str, Figure] = {}
    terms = None
    judged = []
    for rule, timed in zip(rules, taken, strict=True):
        one = _judged(rule, test)
        judged.append({**one, **timed, "rule": asdict(rule)})
        if rule.then == bundle.modes[0].id:
            terms = Terms(rule.escalated, timed["first_ms"] / timed["then_ms"])
            figures |= _figures(rule, one, timed)
        else:
            name, points = f"{rule.first} before {rule.then}", f"{100 * one['loss']:.2f} points lost on test images"
            figures[f"time saved, {name}"] = reported(timed["saved"], f"of {rule.then}'s", points)
    none = at_least(0.0, SAVED, "", "no rule was certified for the most accurate mode")
    samples = {
        "times_ms": times,
        "pairs": [asdict(pair) for pair in pairs],
        "rules": judged,
        "every pair": _every_pair(calibrating, test),
        "auroc": {name: _auroc(one) for name, one in test.items()},
        "accuracy": {name: float(one.right.mean()) for name, one in test.items()},
        "images": {"calibrating": len(views[0]), "test": len(views[1])},
        "seconds": time.monotonic() - started,
    }
    return {"time saved": none, **figures}, samples, terms


def _figures(rule: Rule, one: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, Figure]:
    name = f"{rule.first} before {rule.then}"
    how = f"{name}, certified on {rule.images} images (epsilon {rule.epsilon}, delta {rule.delta})"
    timed = (
        f"{name}, one image at a time, {taken['images']} test images in turns with {rule.then} alone, margin included"
    )
    points = f"{name}, {one['images']} other images, ± {100 * one['loss_error']:.3f} standard error"
    return {
        "time saved": at_least(taken["saved"], SAVED, f"of {rule.then}'s", timed),
        "loss on test images": at_most(100 * one["loss"], 100 * rule.epsilon, "points", points),
        "loss on test images, upper 95 %": reported(
            100 * (one["loss"] + 1.645 * one["loss_error"]), "points", f"{points}; one-sided"
        ),
        "escalated": reported(one["escalated"], "", f"{name}, of test images; {rule.escalated:.3f} when certified"),
        "threshold": reported(rule.threshold, "of margin", how),
        "AUROC": reported(one["auroc"], "", f"of {rule.first}'s margin, for its failures on the test images"),
    }


def _judged(rule: Rule, test: Mapping[str, Answers]) -> dict[str, float]:
    first, then = test[rule.first], test[rule.then]
    lost = losses(first, then, rule.threshold)
    return {
        "images": len(lost),
        "loss": float(lost.mean()),
        "loss_error": float(lost.std()) / sqrt(len(lost)),
        "escalated": float((~(first.margins >= rule.threshold)).mean()),
        "auroc": _auroc(first),
    }


def _auroc(answers: Answers) -> float:
    """How often a right answer has the greater margin than a wrong one."""
    from sklearn.metrics import roc_auc_score

    if answers.right.all() or not answers.right.any():
        return 0.5  # a margin tells nothing where there is nothing to tell
    return float(roc_auc_score(answers.right, answers.margins))


def _every_pair(calibrating: Mapping[str, Answers], test: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """What a certificate of all pairs at once would give each; the time is for the reader to put in."""
    pairs = list(permutations(calibrating, 2))
    images = len(next(iter(calibrating.values())).right)
    pilot, rest = np.split(np.arange(images), [images // PILOT])
    found = []
    for first, then in pairs:
        alpha, shown = GOAL.delta / len(pairs), (calibrating[first], calibrating[then])
        steps = planned(shown[0].part(pilot), shown[1].part(pilot), images - images // PILOT, alpha)
        threshold = certify(shown[0].part(rest), shown[1].part(rest), steps, GOAL.epsilon, alpha)
        one: dict[str, Any] = {"first": first, "then": then, "threshold": threshold}
        if threshold is not None:
            one["escalated"] = float((~(test[first].margins >= threshold)).mean())
            one["loss"] = float(losses(test[first], test[then], threshold).mean())
        found.append(one)
    return found


def _timed(bundle: Bundle, engines: Engines, rule: Rule, images: Images) -> dict[str, float]:
    """Real inferences, image by image: the cascade and the second mode alone, in turns."""
    cascade = Cascade.of(replace(bundle.manifest, cascade=(rule,)))
    preprocess, spec = bundle.manifest.preprocess, bundle.manifest.inputs[0]
    assert preprocess is not None
    first, then = engines[rule.first], engines[rule.then]
    inputs = normalise(images.pixels, preprocess).numpy()
    alone, both, quick, escalations = [], [], [], 0
    for row in range(len(inputs)):
        given = {spec.name: inputs[row : row + 1]}
        started = time.perf_counter()
        then.infer(given)
        alone.append(time.perf_counter() - started)
        started = time.perf_counter()
        outputs = first.infer(given)
        quick.append(time.perf_counter() - started)
        escalated = cascade.escalates(rule, outputs)
        if escalated.any():
            merged(outputs, then.infer(rows_of(given, escalated)), escalated)
            escalations += 1
        both.append(time.perf_counter() - started)
    return {
        "images": len(inputs),
        "then_ms": 1e3 * float(np.median(alone)),
        "first_ms": 1e3 * float(np.median(quick)),
        "cascade_mean_ms": 1e3 * float(np.mean(both)),
        "then_mean_ms": 1e3 * float(np.mean(alone)),
        "saved": 1 - float(np.mean(both)) / float(np.mean(alone)),
        "timed_escalated": escalations / len(inputs),
    }


def _digits(bundle: Bundle, seed: int) -> dict[str, Any]:
    """The demo's bundle has too few images for a certificate: thresholds that look good on some, shown others."""
    source = Digits(seed)
    if tuple(bundle.manifest.labels) != source.labels:
        return {"left out": "the bundle given is not the demo's"}
    with opened(bundle) as engines:
        chosen, test = (
            answers_of(bundle, engines, batches([view], 0, None))[0] for view in (source.validation(), source.test())
        )
    found = []
    for first, then in permutations(chosen, 2):
        looks = [step.threshold for step in planned(chosen[first], chosen[then], 1, 0.05)]
        good = [one for one in looks if losses(chosen[first], chosen[then], one).mean() <= GOAL.epsilon]
        lost = losses(test[first], test[then], good[-1])
        escalated = float((~(test[first].margins >= good[-1])).mean())
        found.append({
            "first": first, "then": then, "threshold": good[-1], "loss": float(lost.mean()),
            "loss_error": float(lost.std()) / sqrt(len(lost)), "escalated": escalated,
        })  # fmt: skip
    return {"originals": [len(next(iter(one.values())).right) for one in (chosen, test)], "pairs": found}


if __name__ == "__main__":
    run("cascade", QUESTION, measure, needs_bundle=False)
