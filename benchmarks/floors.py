"""What a mode could take at best: by its arithmetic alone (limit A), and by the layers it may change (floor B)."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
from onnx import NodeProto

from wenet_runtime.engines.base import Tensors
from wenet_runtime.engines.ort import OrtBackend, OrtEngine
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet
from wenet_runtime.profiler import load_graph

RUNS = 20
_FUSED = ("Relu", "Clip", "Add", "Sigmoid")


class _ProfiledOrt(OrtBackend):
    """ONNX Runtime as the daemon runs it, writing down what each kernel took."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _options(self, threads: int | None = None) -> "onnxruntime.SessionOptions":
        options = super()._options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / "profile")
        return options


def kernel_times_ms(graph: Graph, inputs: Tensors, *, runs: int = RUNS) -> dict[str, tuple[str, float]]:
    """Each kernel's operator and median time under ONNX Runtime's own profiler, by the kernel's name."""
    with TemporaryDirectory() as folder:
        engine = load_graph(_ProfiledOrt(Path(folder)), graph, "profiled")
        for _ in range(runs):
            engine.infer(inputs)
        assert isinstance(engine, OrtEngine)
        events: list[Any] = json.loads(Path(engine._session.end_profiling()).read_text())
    times: dict[str, tuple[str, list[float]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
            times.setdefault(name, (event["args"]["op_name"], []))[1].append(event["dur"] / 1e3)
    return {name: (operator, median(taken)) for name, (operator, taken) in times.items()}


def by_operator(times_ms: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    """Milliseconds of each kind of operator, most first."""
    total: dict[str, float] = {}
    for operator, taken in times_ms.values():
        total[operator] = total.get(operator, 0.0) + taken
    return {operator: round(taken, 4) for operator, taken in sorted(total.items(), key=lambda item: -item[1])}


def floor_ms(
    full: Graph, times_ms: Mapping[str, tuple[str, float]], supernet: Supernet, groups: Mapping[str, int]
) -> float:
    """Floor B: the full network's time in what weight-enabling leaves alone, plus each layer's own over its groups.

    Args:
        full: the full network, lowered.
        times_ms: its kernels' times.
        supernet: names the weight-enabled layers.
        groups: the configuration.
    """
    touched: dict[str, int] = {}
    for layer in supernet.layers:
        for name in _names(full, full.node(layer.node)):
            touched[name] = groups[layer.name]
    missing = [layer.name for layer in supernet.layers if not _names(full, full.node(layer.node)) & set(times_ms)]
    if missing:
        raise ValueError(f"the profile has no kernel of layers {missing}: did the engine name them otherwise?")
    return sum(taken / touched.get(name, 1) for name, (_, taken) in times_ms.items())


def _names(graph: Graph, node: NodeProto) -> set[str]:
    """What the engine may call the kernel of a layer: by its node, or by what it makes with what it took in."""
    names = {node.name, node.output[0]}
    readers = graph.consumers(node.output[0])
    while len(readers) == 1 and readers[0].op_type in _FUSED:
        names.add(readers[0].output[0])
        if readers[0].op_type == "Add" and graph.consumers(readers[0].output[0]) == []:
            break
        readers = graph.consumers(readers[0].output[0])
    return names
