"""Which emission of a dense layer in groups is quickest: a grouped convolution, batched products, one dense product?"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from benchmarks.common import Arguments, Figure, Measured, reported, run
from wenet_runtime.engines.base import Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import block_diagonal
from wenet_runtime.profiler import load_graph, sample

QUESTION = "Which emission of a dense layer in groups is quickest under ONNX Runtime, one thread?"
SIZES = (512, 1024, 4096)
LEVELS = (2, 4, 8, 16)
BATCHES = (1, 8)
ROUNDS = 41
EXACT = 1e-5

Array = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A square dense layer in groups: full weight (size, size), bias (size,)."""

    weight: Array
    bias: Array
    groups: int

    @property
    def size(self) -> int:
        """Inputs, and outputs."""
        return len(self.bias)

    def blocks(self) -> Array:
        """(groups, in / groups, out / groups): what each group's inputs are multiplied by."""
        enabled = block_diagonal(self.weight, self.groups)
        return enabled.reshape(self.groups, -1, enabled.shape[1]).transpose(0, 2, 1)


# Nodes from "x" to "y", with a ReLU at the end as networks have it, and their numbers.
Emission = tuple[list[NodeProto], dict[str, Array]]


def convolution(layer: Layer) -> Emission:
    """A grouped 1×1 convolution on an image of one position."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node("Conv", ["image", "w", "b"], ["sum"], group=layer.groups, kernel_shape=[1, 1]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("Flatten", ["positive"], ["y"], axis=1),
    ]
    weight = block_diagonal(layer.weight, layer.groups)[..., None, None]
    return nodes, {"shape": np.array([0, layer.size, 1, 1]), "w": weight, "b": layer.bias}


def batched(layer: Layer) -> Emission:
    """(groups, N, in / groups) times (groups, in / groups, out / groups), with the rows transposed before and after."""
    nodes = [
        helper.make_node("Reshape", ["x", "parts"], ["split"]),
        helper.make_node("Transpose", ["split"], ["there"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["there", "w"], ["product"]),
        helper.make_node("Transpose", ["product"], ["back"], perm=[1, 0, 2]),
        *_bias_and_relu("back"),
    ]
    return nodes, {"parts": np.array([0, layer.groups, -1]), **_rows(layer), "w": layer.blocks()}


def broadcast(layer: Layer) -> Emission:
    """(N, groups, 1, in / groups) times the same weights: nothing is transposed, but each row is a product."""
    nodes = [
        helper.make_node("Reshape", ["x", "parts"], ["split"]),
        helper.make_node("MatMul", ["split", "w"], ["product"]),
        *_bias_and_relu("product"),
    ]
    return nodes, {"parts": np.array([0, layer.groups, 1, -1]), **_rows(layer), "w": layer.blocks()}


def split(layer: Layer) -> Emission:
    """A product for each group between a Split and a Concat."""
    numbers: dict[str, Array] = {}
    products = []
    for group, (block, bias) in enumerate(zip(layer.blocks(), np.split(layer.bias, layer.groups))):
        names = [f"x{group}", f"w{group}", f"b{group}"]
        numbers[names[1]], numbers[names[2]] = block.T, bias
        products.append(helper.make_node("Gemm", names, [f"y{group}"], transB=1))
    parts, made = ([f"{name}{group}" for group in range(layer.groups)] for name in "xy")
    nodes = [helper.make_node("Split", ["x"], parts, axis=1), *products]
    nodes += [helper.make_node("Concat", made, ["sum"], axis=1), helper.make_node("Relu", ["sum"], ["y"])]
    return nodes, numbers


def dense(layer: Layer) -> Emission:
    """One product with zeros between the blocks."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["sum"], transB=1), helper.make_node("Relu", ["sum"], ["y"])]
    return nodes, {"w": block_diagonal(layer.weight, layer.groups, 1), "b": layer.bias}


FORMS: Mapping[str, Callable[[Layer], Emission]] = {
    "conv": convolution,
    "batched": batched,
    "broadcast": broadcast,
    "split": split,
    "dense": dense,
}
FULL = {"full": dense, "full as conv": convolution}  # the same layer in one group


def measure(arguments: Arguments) -> Measured:
    """All forms of one layer are timed interleaved, beside the full layer."""
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    random = np.random.default_rng(arguments.seed)
    rounds = 3 if arguments.quick else ROUNDS
    for size in SIZES[:1] if arguments.quick else SIZES:
        weight = random.normal(0, size**-0.5, (size, size)).astype(np.float32)
        bias = random.normal(size=size).astype(np.float32)
        for groups in LEVELS[-1:] if arguments.quick else LEVELS:
            layer = Layer(weight, bias, groups)
            with ExitStack() as opened:
                engines = {
                    name: opened.enter_context(closing(_engine(name, layer, form))) for name, form in FORMS.items()
                }
                for name, form in FULL.items():
                    engines[name] = opened.enter_context(closing(_engine(name, Layer(weight, bias, 1), form)))
                for rows in BATCHES:
                    x = random.normal(size=(rows, size)).astype(np.float32)
                    _check(engines, layer, x)
                    taken = sample(engines, {"x": x}, rounds=rounds)
                    what = f"{size} in {groups} groups, {rows} rows"
                    samples[what] = {name: (times * 1e3).round(2).tolist() for name, times in taken.items()}
                    how = f"median of {rounds} interleaved runs; {size} inputs and outputs, bias, ReLU"
                    for name, times in taken.items():
                        figures[f"{what}: {name}"] = reported(float(np.median(times)) * 1e3, "us", how)
    return {**_summary(figures), **figures}, samples


def _summary(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Each form's time over the quickest form's, over all layers of so many rows."""
    found: dict[str, Figure] = {}
    for rows in BATCHES:
        layers = sorted({name.split(": ")[0] for name in figures if f" {rows} rows: " in name})
        quickest = [min(figures[f"{layer}: {form}"].value for form in FORMS) for layer in layers]
        for form in FORMS:
            ratios = [figures[f"{layer}: {form}"].value / least for layer, least in zip(layers, quickest)]
            mean = float(np.exp(np.mean(np.log(ratios))))
            how = f"geometric mean over {len(layers)} layers; at most {max(ratios):.2f}"
            found[f"{form} over the quickest, {rows} rows"] = reported(mean, "x", how)
    return found


def _engine(name: str, layer: Layer, form: Callable[[Layer], Emission]) -> Engine:
    nodes, numbers = form(layer)
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}{number}"
    x, y = (helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", layer.size]) for tensor in "xy")
    return load_graph(OrtBackend(), Graph(nodes, numbers, [x], [y]), name)


def _check(engines: Mapping[str, Engine], layer: Layer, x: Array) -> None:
    """Every form answers as NumPy does on the masked weight; the full layer must not."""
    masked = block_diagonal(layer.weight, layer.groups, 1)
    expected = np.maximum(x @ masked.T + layer.bias, 0)
    for name, engine in engines.items():
        deviation = np.abs(engine.infer({"x": x})["y"] - expected).max() / expected.max()
        if (deviation <= EXACT) is (name in FULL):
            raise RuntimeError(f"{name} deviates by {deviation:.2e} from the layer in {layer.groups} groups")


def _bias_and_relu(product: str) -> list[NodeProto]:
    return [
        helper.make_node("Reshape", [product, "rows"], ["sum"]),
        helper.make_node("Add", ["sum", "b"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["y"]),
    ]


def _rows(layer: Layer) -> dict[str, Array]:
    return {"rows": np.array([0, layer.size]), "b": layer.bias}


if __name__ == "__main__":
    run("grouped_gemm", QUESTION, measure, needs_bundle=False)
