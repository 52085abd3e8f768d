"""Measures what modes cost on this device: latency distribution, and energy when a meter answers."""

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Accuracy, Mode
from wenet_runtime.engines.base import Backend, Engine, Tensors
from wenet_runtime.errors import EngineError
from wenet_runtime.meters.base import Meter
from wenet_runtime.profile import Profile, profile_of

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph  # imports onnx

READINGS = 20  # of a meter, within which an energy is measured: the first and the last count by what held then


def sample(
    engines: Mapping[str, Engine],
    inputs: Tensors,
    *,
    rounds: int,
    warmup: int = 3,
    primed: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dict[str, NDArray[Any]]:
    """Time engines interleaved, so that drift of the machine falls on all of them alike.

    Args:
        engines: by name.
        inputs: what every run gets.
        rounds: runs of each engine; each round runs all of them in a new random order.
        warmup: runs of each engine before anything is counted.
        primed: runs before each one that counts: without, an engine finds the caches full of the others' numbers,
            which doubles the time of a small network among many.
        progress: told (rounds done, rounds in all).

    Returns:
        By name, (rounds,) milliseconds in the order they were taken; sample k of every engine
        belongs to the same round, so ratios may be taken pairwise.
    """
    order = np.random.default_rng(seed)
    names = list(engines)
    for engine in engines.values():
        for _ in range(warmup):
            engine.infer(inputs)
    samples = {name: np.empty(rounds) for name in names}
    for done in range(rounds):
        for position in order.permutation(len(names)):
            engine = engines[names[position]]
            for _ in range(primed):
                engine.infer(inputs)
            start = time.perf_counter()
            engine.infer(inputs)
            samples[names[position]][done] = (time.perf_counter() - start) * 1e3
        progress(done + 1, rounds)
    return samples


def quickest_ms(
    backend: Backend, graphs: "Sequence[Graph]", *, rounds: int = 15, precision: str = "fp32"
) -> List[float]:
    """The least time of each of several networks on this device, in turns: other work only ever adds to it.

    Args:
        backend: builds and loads them.
        graphs: networks of the same inputs, whose sizes are known but for the batch.
        rounds: runs of each.
        precision: what an engine computes them in.

    Returns:
        (len(graphs),) milliseconds.
    """
    try:
        inputs = graphs[0].one_row(np.random.default_rng(0))
    except ValueError as error:
        raise EngineError(f"this network cannot be tried: {error}") from None
    with ExitStack() as opened:
        engines: Dict[str, Engine] = {}
        for number, graph in enumerate(graphs):
            engine = load_graph(backend, graph, f"network {number}", precision)
            engines[str(number)] = opened.enter_context(closing(engine))
        samples = sample(engines, inputs, rounds=rounds, warmup=1)
    return [float(samples[name].min()) for name in engines]


def load_graph(backend: Backend, graph: "Graph", name: str, precision: str = "fp32") -> Engine:
    """Build and load a network that is no mode of a bundle, to try it.

    Args:
        backend: builds and loads it.
        graph: the network; building may change what is left of its shuffles.
        name: stands in errors.
        precision: what an engine computes it in.
    """
    unknown = Accuracy(0.0, 0.0, 1.0, 0)
    artifact = backend.build(graph, name)
    return backend.load(Mode(name, {}, precision, unknown, 0, 0, "tried"), lambda: artifact)


def measure(
    engines: Mapping[str, Engine],
    inputs: Tensors,
    *,
    rounds: int,
    warmup: int = 3,
    meter: Optional[Meter] = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dict[str, Profile]:
    """Profile engines interleaved; see `sample` and `summarise`."""
    samples = sample(engines, inputs, rounds=rounds, warmup=warmup, progress=progress)
    return summarise(samples, engines, inputs, meter=meter)


def summarise(
    samples_ms: Mapping[str, NDArray[Any]],
    engines: Mapping[str, Engine],
    inputs: Tensors,
    *,
    meter: Optional[Meter] = None,
) -> Dict[str, Profile]:
    """Profiles per row. With a meter, energy is measured here in back-to-back runs for as long as the meter takes for
    enough readings, because one run is shorter than what a meter resolves.

    Args:
        samples_ms: (rounds,) of each engine, by its name.
        engines: they.
        inputs: what every run got.
        meter: a source of energy.
    """
    rows = next(iter(inputs.values())).shape[0]
    least_s = 0.0 if meter is None else READINGS * (meter.state().interval_s or 0.0)
    profiles: Dict[str, Profile] = {}
    for name, engine in engines.items():
        taken = samples_ms[name]
        energy = energy_mj(engine, inputs, meter, runs=max(3, len(taken) // 10), least_s=least_s)
        profiles[name] = profile_of(
            taken / rows,
            [energy / rows] if energy is not None else None,
            meter.source if meter is not None else "none",
        )
    return profiles


def batch_medians(
    engines: Mapping[str, Engine],
    inputs: Tensors,
    sizes: Sequence[int],
    *,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dict[str, Dict[int, float]]:
    """The median time of whole batches, all engines interleaved for each size.

    Args:
        engines: by name.
        inputs: any number of rows, which are repeated to the batch's size.
        sizes: rows of a batch.
        rounds: runs of each engine with each size.
        progress: told (sizes done, sizes in all).

    Returns:
        By name, milliseconds by the batch's rows.
    """
    medians: Dict[str, Dict[int, float]] = {name: {} for name in engines}
    for done, size in enumerate(sizes):
        progress(done, len(sizes))
        batch = {name: np.resize(value, (size, *value.shape[1:])) for name, value in inputs.items()}
        for name, taken in sample(engines, batch, rounds=rounds, warmup=1).items():
            medians[name][size] = float(np.median(taken))
    progress(len(sizes), len(sizes))
    return medians


def energy_mj(
    engine: Engine, inputs: Tensors, meter: Optional[Meter], *, runs: int, least_s: float = 0.0
) -> Optional[float]:
    """The mean energy of one of many back-to-back runs, mJ; None when the meter does not know.

    Args:
        engine: what runs; not once where there is no meter.
        inputs: what every run gets.
        meter: a source of energy, if there is one.
        runs: how many at least.
        least_s: how long at least, so that a meter can resolve it.
    """
    if meter is None or meter.source == "none":
        return None  # it would run for nothing
    start, done = time.monotonic(), 0
    while done < runs or time.monotonic() - start < least_s:
        engine.infer(inputs)
        done += 1
    energy = meter.energy_mj(start, time.monotonic())
    return None if energy is None else energy / done
