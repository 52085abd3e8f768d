"""What do modes cost on an NVIDIA GPU: latency, energy, and switching?

Run it on a machine with an NVIDIA GPU, torch with CUDA, numpy, onnx and nvidia-ml-py; also onnxruntime-gpu, without
onnxruntime beside it, for engine ort-cuda. It writes one JSON object:

    PYTHONPATH=runtime:trainer:. python3 -m benchmarks.gpu_modes --quick --out benchmarks/results/gpu_modes.json

`--quick` should take under 5 minutes: fewer rounds, and energy only of three of ResNet-50's modes in one batch size.
Without, a network takes about 7 minutes, and as long again for ort-cuda; `--network` chooses one. Without a GPU it
says so and writes nothing.
"""

import argparse
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.common import Arguments, Figure, Measured, at_most, reported, run
from benchmarks.gpu_energy import measure as measure_energy
from benchmarks.gpu_graphs import GraphedModule, device, frozen
from benchmarks.gpu_summary import compared, energy_figures, sentences
from benchmarks.networks import make_torch, uniform
from wenet_runtime.engines.base import Backend, Engine, Tensors
from wenet_runtime.errors import EngineError, MeterError
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.meters.base import Meter
from wenet_runtime.meters.nvml import NvmlMeter
from wenet_runtime.profiler import load_graph, sample
from wenet_trainer.supernet import set_active
from wenet_trainer.topology import INPUT, OUTPUT, describe

QUESTION = "What do modes cost on an NVIDIA GPU: latency, energy, switching?"
NETWORKS = ("resnet50", "mobilenet_v2")
SHAPE = (3, 224, 224)
MODES = {"full": 1, "1/2": 2, "1/4": 4, "1/8": 8, "1/16": 16}
BATCHES = (1, 8, 32)
ENERGY_BATCHES = (1, 32)
ENERGY_MODES_QUICK = ("full", "1/4", "1/16")
ROUNDS, ROUNDS_QUICK = 500, 100  # latency
WARMUP = 10
BLOCKS, BLOCKS_QUICK = 200, 20  # switching
ENERGY_ROUNDS = 6  # windows of each mode: with fewer, no pairing of them says anything at 95 %
TORCH = "trainer's modules (fp16, channels-last, CUDA graph)"
ORT = "ort-cuda (fp16, CUDA graph)"

Engines = dict[str, Engine]  # by mode


def measure(arguments: Arguments) -> Measured:
    """Every network and batch size in turn; the modes of one engine are timed interleaved.

    Raises:
        SystemExit: there is no NVIDIA GPU, or torch cannot use it.
    """
    require_gpu()
    torch.backends.cudnn.benchmark = True
    bench = _Bench(arguments)
    try:
        for name in arguments.own.get("network") or NETWORKS:
            bench.network(name)
    finally:
        bench.close()
    return {**bench.figures}, {**bench.samples, "verdicts": sentences(bench.figures)}


def require_gpu() -> None:
    """Exit with a message where nothing can be measured."""
    if not torch.cuda.is_available():
        raise SystemExit(
            f"no NVIDIA GPU: torch {torch.__version__} sees no CUDA device here, so there is nothing to measure. "
            "Run this on a machine with one, with a torch that was built for CUDA"
        )


class _Bench:
    """What was measured so far, and what it is measured with."""

    def __init__(self, arguments: Arguments) -> None:
        self._quick = arguments.quick
        self._seed = arguments.seed
        self.figures: dict[str, Figure] = {}
        self.samples: dict[str, Any] = {"gpu": device(), "left_out": {}}
        self._meter = self._or_left_out("energy", NvmlMeter, MeterError)
        self._ort = self._or_left_out(ORT, open_ort_cuda, EngineError)

    def _or_left_out(self, what: str, make: Callable[[], Any], error: type[Exception]) -> Any:
        try:
            return make()
        except (error, ImportError) as found:
            self.samples["left_out"][what] = str(found)
            return None

    def network(self, name: str) -> None:
        """Everything about one network."""
        net = make_torch(name, self._seed)
        supernet = describe(net, SHAPE)
        for rows in BATCHES:
            images = np.random.default_rng(self._seed).normal(size=(rows, *SHAPE)).astype(np.float32)
            for engine in (TORCH, ORT) if self._ort is not None else (TORCH,):
                what = f"{name}, batch {rows}, {engine}"
                try:
                    self._engine(what, net, supernet, images)
                except Exception as error:  # noqa: BLE001 - time on a GPU is short: it costs no more than its own figures
                    self.samples["left_out"][what] = f"{type(error).__name__}: {error}"

    def _engine(self, what: str, net: nn.Module, supernet: Supernet, images: NDArray[Any]) -> None:
        with ExitStack() as opened:
            engines: dict[str, Engine] = {}
            for mode, level in MODES.items():
                one = self._opened(what, mode, net, supernet, uniform(supernet, level), images)
                engines[mode] = opened.enter_context(closing(one))
            self._measured(what, engines, {INPUT: images}, len(images))

    def _opened(
        self, what: str, mode: str, net: nn.Module, supernet: Supernet, groups: Mapping[str, int], images: NDArray[Any]
    ) -> Any:
        """A mode as an engine, once its answers are near those of the trainer's network on the CPU."""
        if TORCH in what:
            engine: Any = GraphedModule(frozen(net, groups, torch.from_numpy(images[:1])), torch.from_numpy(images))
            engine.infer({})
            answers = engine.answers().numpy()
        else:
            engine = load_graph(self._ort, lower(supernet, groups, precision="fp16"), mode, "fp16")
            answers = engine.infer({INPUT: images})[OUTPUT]
        wanted = reference(net, groups, images[:1])
        off = float(np.abs(answers[:1] - wanted).max() / np.abs(wanted).max())
        how = "largest difference of an answer from the trainer's network in float on the CPU"
        self.figures[f"{what}: {mode}, deviation"] = at_most(off, PRECISIONS["fp16"], "of the largest", how)
        return engine

    def _measured(self, what: str, engines: Engines, inputs: Tensors, rows: int) -> None:
        self._latency(what, engines, inputs)
        if rows == BATCHES[0]:
            self._switching(what, engines, inputs)
        if self._meter is None:
            return
        if not self._quick and rows in ENERGY_BATCHES:
            self._energy(what, engines, inputs, rows, self._meter)
        elif self._quick and what == f"{NETWORKS[0]}, batch {ENERGY_BATCHES[-1]}, {TORCH}":
            few = {mode: engines[mode] for mode in ENERGY_MODES_QUICK}
            self._energy(what, few, inputs, rows, self._meter)

    def _latency(self, what: str, engines: Engines, inputs: Tensors) -> None:
        rounds = ROUNDS_QUICK if self._quick else ROUNDS
        taken = sample(engines, inputs, rounds=rounds, warmup=WARMUP, primed=1, seed=self._seed)
        how = f"median of {rounds} interleaved runs of a batch, each after another of its own mode, await included"
        for mode, times in taken.items():
            self.figures[f"{what}: {mode}, p50"] = reported(float(np.median(times)), "ms", how)
            self.figures[f"{what}: {mode}, p99"] = reported(float(np.percentile(times, 99)), "ms", "p99 of the same")
        self.figures |= compared(f"latency, {what}", taken, "paired by round", {"less": "faster", "more": "slower"})
        self.samples[f"{what}: latency_ms"] = {mode: times.round(4).tolist() for mode, times in taken.items()}

    def _switching(self, what: str, engines: Engines, inputs: Tensors) -> None:
        first, *_, last = engines
        pair, blocks = {one: engines[one] for one in (first, last)}, BLOCKS_QUICK if self._quick else BLOCKS
        alternating, staying = switching(pair, inputs, blocks=blocks, seed=self._seed)
        added_us = (float(np.median(alternating)) - float(np.median(staying))) * 1e3
        how = (
            f"medians of {len(alternating)} runs of {first} and {last} in turns minus {len(staying)} staying, no pause"
        )
        self.figures[f"{what}: a switch adds"] = reported(added_us, "us", how)
        self.samples[f"{what}: switching_ms"] = {"alternating": alternating, "staying": staying}

    def _energy(self, what: str, engines: Engines, inputs: Tensors, rows: int, meter: Meter) -> None:
        try:
            found = measure_energy(engines, inputs, meter, rounds=ENERGY_ROUNDS, seed=self._seed)
        except MeterError as error:
            self.samples["left_out"][f"energy, {what}"] = str(error)
            return
        self.figures |= energy_figures(what, found, rows)
        self.samples[f"{what}: energy"] = {
            "whole_mj_a_batch": {mode: one.tolist() for mode, one in found.whole_mj.items()},
            "above_idle_mj_a_batch": {mode: one.tolist() for mode, one in found.above_idle_mj.items()},
            "watts": {mode: one.tolist() for mode, one in found.watts.items()},
            "idle_w": found.idle_w,
            "runs": found.runs,
            "gpu": device(),
        }

    def close(self) -> None:
        """Close the meter and the backend."""
        for one in (self._meter, self._ort):
            if one is not None:
                one.close()


def switching(
    pair: Mapping[str, Engine], inputs: Tensors, *, blocks: int, seed: int
) -> tuple[list[float], list[float]]:
    """(alternating, staying) milliseconds over the same two modes, without a pause between runs.

    Blocks of twenty: A B A B … against ten A then ten B (the switch to each is left out), in random order, so
    that drift of the machine falls on both.
    """
    order = random.Random(seed)
    names = list(pair)
    alternating: list[float] = []
    staying: list[float] = []

    def timed(name: str) -> float:
        start_s = time.perf_counter()
        pair[name].infer(inputs)
        return (time.perf_counter() - start_s) * 1e3

    for kind in order.sample(["alternate", "stay"] * blocks, 2 * blocks):
        if kind == "alternate":
            alternating += [timed(names[turn % 2]) for turn in range(20)]
        else:
            for name in names:
                staying += [timed(name) for _ in range(11)][1:]
    return alternating, staying


def reference(net: nn.Module, groups: Mapping[str, int], images: NDArray[Any]) -> NDArray[Any]:
    """What the trainer's network answers in float on the CPU."""
    set_active(net, groups)
    with torch.inference_mode():
        answers: NDArray[Any] = net(torch.from_numpy(images)).numpy()
    return answers


def open_ort_cuda() -> Backend:
    """The runtime's engine, where its provider loads. Raises `EngineError`, or `ImportError` without ONNX Runtime."""
    from wenet_runtime.engines.ort_cuda import OrtCudaBackend

    return OrtCudaBackend()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark takes."""
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only this network; may be repeated")


if __name__ == "__main__":
    run("gpu_modes", QUESTION, measure, needs_bundle=False, flags=add_flags)
