"""What the servers of `serving` serve: bundles for ours, and the same networks as ONNX files for the others."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save

from benchmarks.bundles import write
from benchmarks.load_bench import five_modes
from benchmarks.networks import make
from benchmarks.peers.base import Served
from benchmarks.peers.wenet import MODEL_NAME
from wenet_runtime.bundle import (
    FORMAT,
    FORMAT_VERSION,
    GOLDEN,
    TOPOLOGY,
    WEIGHTS,
    Accuracy,
    Bundle,
    Layer,
    Manifest,
    Mode,
    Preprocess,
    TensorSpec,
)
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.device import this_device
from wenet_runtime.device_graph import lowered
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_runtime.tuner import Tuner

INPUT, OUTPUT = "input", "logits"
GROUPS = (1, 16)
SLOW, FAST = "slow", "fast"
CHANNELS, PIXELS = 256, 32  # of a layer of the slow network: 0.6 G multiply-accumulates
NORMALISED = Preprocess("RGB", 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Subject:
    """A bundle, its modes as ONNX files, and a request's tensor.

    Attributes:
        bundle: what ours serves.
        files: ONNX, by mode, as ours emits it on this device with its measured plan.
        cache: of ours.
        content: bytes of a tensor.
    """

    bundle: Bundle
    files: Mapping[str, Path]
    cache: Path
    content: bytes

    def served(self, modes: Sequence[str], *, limit_ms: float | None = None) -> Served:
        """What the others serve: these modes, the second one where the first number of a tensor is above 0.5."""
        manifest = self.bundle.manifest
        return Served(
            models=tuple(str(self.files[mode]) for mode in modes),
            input=manifest.inputs[0].name,
            shape=(1, *manifest.inputs[0].shape[1:]),
            outputs=manifest.outputs[0].shape[1],
            limit_ms=limit_ms,
        )


def transport(folder: Path, pixels: int) -> Subject:
    """A network that does next to nothing with 3 × pixels × pixels numbers, and answers four."""
    nodes = [
        helper.make_node("GlobalAveragePool", [INPUT], ["mean"], name="pool"),
        helper.make_node("Conv", ["mean", "head.weight"], ["four"], name="head", kernel_shape=[1, 1]),
        helper.make_node("Flatten", ["four"], [OUTPUT], name="flatten", axis=1),
    ]
    weights = {"head.weight": np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)}
    layers = (Layer("head", "conv", "head", "head.weight", None, 3, 4, (1,)),)
    supernet = _supernet(nodes, weights, layers, pixels)
    modes = {"only": {"head": 1}}
    preprocess = NORMALISED if pixels == NORMALISED.height else None
    return _subject(folder, lambda path: _write(path, supernet, modes, preprocess=preprocess), modes)


def slow_and_fast(folder: Path, slow_ms: float) -> Subject:
    """A network of equal layers, of so many that its full mode takes about `slow_ms` here; the other a sixteenth."""
    depth = max(1, round(slow_ms / _layer_ms()))
    draw = np.random.default_rng(0)
    nodes, layers, weights, last = [], [], {}, INPUT
    for number, inputs in enumerate([3, *[CHANNELS] * depth]):
        name = f"layer{number}"
        scale = (9 * inputs) ** -0.5
        weights[f"{name}.weight"] = draw.normal(0, scale, (CHANNELS, inputs, 3, 3)).astype(np.float32)
        # Without it a sixteenth of each layer's weights would let the numbers fade to subnormal ones, which are slow.
        weights[f"{name}.bias"] = draw.normal(0, 0.5, CHANNELS).astype(np.float32)
        names = [last, f"{name}.weight", f"{name}.bias"]
        nodes.append(
            helper.make_node("Conv", names, [f"{name}.out"], name=name, group=1, kernel_shape=[3, 3], pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"{name}.out"], [f"{name}.relu"], name=f"{name}.relu"))
        last = f"{name}.relu"
        if inputs != 3:
            layers.append(Layer(name, "conv", name, f"{name}.weight", f"{name}.bias", CHANNELS, CHANNELS, GROUPS))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["mean"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["mean"], [OUTPUT], name="flatten", axis=1))
    supernet = _supernet(nodes, weights, tuple(layers), PIXELS)
    modes = {SLOW: {one.name: 1 for one in layers}, FAST: {one.name: 16 for one in layers}}
    return _subject(folder, lambda path: _write(path, supernet, modes), modes)


def sub_network(folder: Path, *, quick: bool) -> Subject:
    """MobileNet-V2 for 224 pixels (64 if it shall be quick) with random weights, every layer at four groups."""
    mode = "g4"

    def made(path: Path) -> None:
        wide = write(path.with_suffix(".eight"), make("mobilenet_v2", 0, 64 if quick else 224), own_statistics=False)
        modes = tuple(one for one in wide.modes if one.id == mode)
        files = {name: (wide.path / name).read_bytes() for name in wide.manifest.files}
        write_bundle(path, dataclasses.replace(wide.manifest, model=MODEL_NAME, modes=modes), files)
        shutil.rmtree(wide.path)

    return _subject(folder, made, (mode,))


def five(folder: Path) -> Subject:
    """ResNet-50's five uniform modes for 128 pixels with random weights."""

    def made(path: Path) -> None:
        bundle = five_modes(path.with_suffix(".five"), 0)
        files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
        write_bundle(path, dataclasses.replace(bundle.manifest, model=MODEL_NAME), files)
        shutil.rmtree(bundle.path)
        shutil.rmtree(path.with_suffix(".eight"), ignore_errors=True)

    return _subject(folder, made, ("g1", "g2", "g4", "g8", "g16"))


def _supernet(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray[np.float32]],
    layers: tuple[Layer, ...],
    pixels: int,
) -> Supernet:
    outputs = 4 if len(layers) == 1 and layers[0].out_channels == 4 else CHANNELS
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, pixels, pixels])]
    inputs += [helper.make_tensor_value_info(one, TensorProto.FLOAT, list(weights[one].shape)) for one in weights]
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", outputs])
    graph = helper.make_graph(list(nodes), "topology", inputs, [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    onnx.checker.check_model(model)
    return Supernet(
        topology=model.SerializeToString(),
        inputs=(TensorSpec(INPUT, "FP32", (-1, 3, pixels, pixels)),),
        layers=layers,
        norms=(),
        shuffles=(),
        weights=weights,
    )


def _write(
    path: Path, supernet: Supernet, modes: Mapping[str, Mapping[str, int]], preprocess: Preprocess | None = None
) -> None:
    image = np.random.default_rng(1).uniform(-0.5, 0.5, (1, *supernet.inputs[0].shape[1:])).astype(np.float32)
    golden = {f"input.{INPUT}": image}
    for mode, groups in modes.items():
        engine = OrtBackend().load_bytes(materialize(supernet, groups, {}), name=mode)
        golden[f"{mode}.{OUTPUT}"] = engine.infer({INPUT: image})[OUTPUT]
        engine.close()
    found = [
        Mode(mode, groups, "fp32", Accuracy(0.9 - 0.1 * number, 0.0, 1.0, 1), 100 - number, 1, "made up", None)
        for number, (mode, groups) in enumerate(modes.items())
    ]
    outputs = next(value for name, value in golden.items() if name.endswith(f".{OUTPUT}")).shape[1]
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        model=MODEL_NAME,
        inputs=supernet.inputs,
        outputs=(TensorSpec(OUTPUT, "FP32", (-1, outputs)),),
        preprocess=preprocess,
        labels=(),
        max_batch=1,
        layers=supernet.layers,
        norms=(),
        shuffles=(),
        modes=tuple(found),
    )
    files = {TOPOLOGY: supernet.topology, WEIGHTS: save(dict(supernet.weights)), GOLDEN: save(golden)}
    write_bundle(path, manifest, files)


def _subject(
    folder: Path, write_to: Callable[[Path], None], modes: Sequence[str] | Mapping[str, Mapping[str, int]]
) -> Subject:
    """Bundle, cache and ONNX files in a folder, made where they are not there yet."""
    bundle_path, cache = folder / "bundle", folder / "cache"
    if not bundle_path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        partial = folder / "partial"
        write_to(partial)
        partial.rename(bundle_path)
    bundle = Bundle(bundle_path)
    backend = OrtBackend()
    tuner = Tuner(cache, this_device(backend.name, backend.version, 1), backend)
    files: dict[str, Path] = {}
    for mode_id in modes:
        files[mode_id] = folder / f"{mode_id}.onnx"
        if not files[mode_id].exists():
            mode, supernet = bundle.mode(mode_id), Supernet.of(bundle)
            statistics = bundle.statistics(mode)
            graph = lowered(backend, supernet, mode, statistics, tuner.emitted(supernet, mode, statistics))
            files[mode_id].write_bytes(graph.to_bytes())
    image = np.random.default_rng(2).uniform(-0.5, 0.5, (1, *bundle.manifest.inputs[0].shape[1:]))
    return Subject(bundle, files, cache, image.astype(np.float32).tobytes())


def _layer_ms() -> float:
    """What one layer of the slow network takes here."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, PIXELS, PIXELS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Conv", ["a", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    graph = helper.make_graph(nodes, "two", [x], [y], [onnx.numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    engine = OrtBackend().load_bytes(model.SerializeToString(), name="two layers")
    image = {"x": np.zeros((1, CHANNELS, PIXELS, PIXELS), np.float32)}
    times = []
    for _ in range(15):
        start = time.perf_counter()
        engine.infer(image)
        times.append((time.perf_counter() - start) * 1e3)
    engine.close()
    return min(times) / 2  # the least, so that no other work on the machine makes the network too small
