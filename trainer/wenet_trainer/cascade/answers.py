"""What a bundle's modes answer to held-out images, and how long they take: as they are served, in ONNX Runtime."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Preprocess
from wenet_runtime.cascade import margin
from wenet_runtime.engines.base import Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import quickest_ms, sample
from wenet_trainer.cascade.calibrate import Answers
from wenet_trainer.cascade.errors import CalibrationError
from wenet_trainer.data.base import Images, View, normalise
from wenet_trainer.explore.precision import Variant, open_variant

BATCH = 32
ROUNDS = 200  # interleaved runs behind a time

Engines = Mapping[str, Engine]


@contextmanager
def opened(bundle: Bundle, threads: int = 1) -> Iterator[Engines]:
    """Every mode of a bundle by its id, built and loaded as it is served on this machine.

    Args:
        bundle: the bundle.
        threads: of one inference.

    Raises:
        EngineError: a mode cannot be built.
    """
    supernet, backend = Supernet.of(bundle), OrtBackend(None, threads)
    plan = Plan(supernet, partial(quickest_ms, backend))
    with ExitStack() as stack:
        engines = {}
        for mode in bundle.modes:
            variant = Variant(mode.groups, mode.precision, bundle.statistics(mode))
            engines[mode.id] = stack.enter_context(closing(open_variant(supernet, variant, backend, plan)))
        yield engines


def times_ms(bundle: Bundle, engines: Engines, rounds: int = ROUNDS) -> dict[str, float]:
    """The median time of one image by mode id, all modes in turns."""
    spec = bundle.manifest.inputs[0]
    image = np.random.default_rng(0).normal(size=(1, *spec.shape[1:])).astype(np.float32)
    samples = sample(engines, {spec.name: image}, rounds=rounds, primed=1)
    return {name: float(np.median(values)) for name, values in samples.items()}


def batches(views: Sequence[View], skip: int, most: int | None) -> Iterator[Images]:
    """Images a few at a time, one for each original: views of the same one are no independent images.

    Args:
        views: read one after the other.
        skip: images at the start of the first that are left out.
        most: images at most; None takes all.
    """
    left = most
    for view, start in zip(views, [skip, *[0] * len(views)], strict=False):
        seen: set[int] = set()
        for begin in range(start, len(view), BATCH):
            images = view.load(slice(begin, min(begin + BATCH, len(view))))
            if images.origins is not None:
                fresh = [row for row, origin in enumerate(images.origins.tolist()) if _new(origin, seen)]
                images = images.load(fresh)
            if left is not None:
                images = images.first(left)
                left -= len(images)
            if len(images):
                yield images
            if left == 0:
                return


def answers_of(
    bundle: Bundle,
    engines: Engines,
    images: Iterable[Images],
    progress: Callable[[int], None] = lambda images: None,
) -> tuple[dict[str, Answers], str]:
    """What every mode answers.

    Args:
        bundle: says how an image becomes an input.
        engines: its modes by id; they stay open.
        images: in batches.
        progress: told how many images were answered since the last time.

    Returns:
        Answers by mode id, and the SHA-256 of all pixels and labels.

    Raises:
        CalibrationError: the bundle is not made for such images, or there are none.
    """
    manifest = bundle.manifest
    if manifest.preprocess is None:
        raise CalibrationError("the bundle does not say how an image becomes its input: it cannot be calibrated here")
    digest = hashlib.sha256()
    margins: dict[str, list[NDArray[np.float64]]] = {name: [] for name in engines}
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in engines}
    for batch in images:
        _check(batch, manifest.preprocess, manifest.outputs[0].shape[-1])
        digest.update(np.ascontiguousarray(batch.pixels).data)
        digest.update(np.ascontiguousarray(batch.labels).data)
        inputs = {manifest.inputs[0].name: normalise(batch.pixels, manifest.preprocess).numpy()}
        for name, engine in engines.items():
            scores = engine.infer(inputs)[manifest.outputs[0].name]
            margins[name].append(margin(scores))
            right[name].append(scores.argmax(axis=1) == batch.labels)
        progress(len(batch))
    if not any(margins.values()):
        raise CalibrationError("there are no images to calibrate on: name a split that has some, or skip fewer")
    found = {name: Answers(np.concatenate(margins[name]), np.concatenate(right[name])) for name in engines}
    return found, digest.hexdigest()


def _check(images: Images, preprocess: Preprocess, classes: int) -> None:
    if images.pixels.shape[1] != len(preprocess.mean):
        raise CalibrationError(
            f"the images have {images.pixels.shape[1]} channels, the bundle's {len(preprocess.mean)}: "
            "name the data source that the network was trained for"
        )
    if images.labels.min() < 0 or images.labels.max() >= classes:
        raise CalibrationError(
            f"the images have labels from {images.labels.min()} to {images.labels.max()}, the bundle knows {classes}: "
            "name the data source that the network was trained for"
        )


def _new(origin: int, seen: set[int]) -> bool:
    fresh = origin not in seen
    seen.add(origin)
    return fresh
