"""One configuration run in different ways, each as an engine, so that all are timed by one loop."""

import copy
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wenet_runtime.engines.base import Engine, Tensors
from wenet_runtime.engines.openvino import OpenVinoBackend
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.precision import dense_emission
from wenet_runtime.lowering.ranges import as_statistics, observe
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.profiler import load_graph
from wenet_trainer.supernet import set_active
from wenet_trainer.topology import INPUT, OUTPUT

COMPILED = ("1/1", "1/16")  # what torch.compile is shown on


class TorchEngine:
    """A torch supernet in evaluation mode, switched to one configuration."""

    def __init__(self, net: nn.Module, groups: Mapping[str, int], *, compiled: bool = False) -> None:
        own = copy.deepcopy(net)
        set_active(own, groups)
        self._forward: Any = torch.compile(own) if compiled else own

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        with torch.inference_mode():
            answer: NDArray[Any] = self._forward(torch.from_numpy(inputs[INPUT])).numpy()
        return {OUTPUT: answer}

    def close(self) -> None:
        """Let go of the network."""
        self._forward = None


def naive(supernet: Supernet, groups: Mapping[str, int], name: str) -> Engine:
    """The usual export under ONNX Runtime: every shuffle an operator, batch norms left to the engine."""
    return OrtBackend().load_bytes(lower(supernet, groups, fold=False).to_bytes(), name=name)


def rivals(
    net: nn.Module, supernet: Supernet, inputs: Tensors, configurations: Mapping[str, Mapping[str, int]], *, quick: bool
) -> Iterable[tuple[str, Engine]]:
    """Other ways to run the same sub-networks, by name.

    Args:
        net: the torch supernet.
        supernet: the same as the runtime reads it.
        inputs: what int8's ranges are observed on; any input will do for its speed.
        configurations: groups of each, by name.
        quick: leave out `torch.compile`, for which a compiler works half a minute each.
    """
    torch.set_num_threads(1)
    openvino = OpenVinoBackend()
    for name, groups in configurations.items():
        yield f"{name}, torch eager", TorchEngine(net, groups)
        if not quick and name in COMPILED:
            yield f"{name}, torch.compile", TorchEngine(net, groups, compiled=True)
        plain = lower(supernet, groups, fold=False).to_bytes()
        yield f"{name}, OpenVINO naive", openvino.load_bytes(plain, name=name)
        yield f"{name}, OpenVINO lowered", load_graph(openvino, lower(supernet, groups), name)
        dense = dense_emission(supernet.layers, groups)
        yield f"{name}, OpenVINO bf16", load_graph(openvino, lower(supernet, groups), name, "bf16")
        if dense:
            graph = lower(supernet, groups, emitted=dense)
            yield f"{name}, OpenVINO bf16 dense", load_graph(openvino, graph, name, "bf16")
        for kind, emitted in (("", {}), (" dense", dense)):
            if emitted or not kind:
                for label, backend in (("int8", OrtBackend()), ("OpenVINO int8", openvino)):
                    graph = _int8(supernet, groups, emitted, inputs)
                    yield f"{name}, {label}{kind}", load_graph(backend, graph, name, "int8")


def _int8(supernet: Supernet, groups: Mapping[str, int], emitted: Mapping[str, int], inputs: Tensors) -> Graph:
    def run(model: bytes, batch: Tensors) -> Tensors:
        engine = OrtBackend().load_bytes(model, name="ranges")
        try:
            return engine.infer(batch)
        finally:
            engine.close()

    ranges = as_statistics(observe(lower(supernet, groups, emitted=emitted), run, [inputs]))
    return lower(supernet, groups, ranges, emitted=emitted, precision="int8")


def interleaved(
    engines: Mapping[str, Engine], inputs: Tensors, *, rounds: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of every engine, (rounds,) each, in a new random order every round.

    On its turn an engine runs twice and the second run counts: what others left in the processor's caches is
    not its own.
    """
    order = np.random.default_rng(seed)
    names = list(engines)
    taken = {name: np.empty(rounds) for name in names}
    for done in range(rounds):
        for at in order.permutation(len(names)):
            engine = engines[names[at]]
            engine.infer(inputs)
            start = time.perf_counter()
            engine.infer(inputs)
            taken[names[at]][done] = (time.perf_counter() - start) * 1e3
    return taken


def deviation(found: Tensors, expected: Tensors) -> float:
    """max|Δ| / max|expected| over the answers."""
    return max(
        float(np.abs(found[name] - value).max()) / float(np.abs(value).max()) for name, value in expected.items()
    )
