"""The builder: checks a network against a configuration and writes a plan."""

from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from tests.doubles.tensorrt_double.library import Library, wants
from tests.doubles.tensorrt_double.plan import Plan, TensorPlan, pack
from tests.doubles.tensorrt_double.strict import StrictObject

OBEYED = ("OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS", "STRICT_TYPES")
Profile = Dict[str, Tuple[Tuple[int, ...], ...]]


class Builder(StrictObject):
    """Made with a logger, on the current device."""

    _library: Library

    def __init__(self, logger: Any) -> None:
        self._logger = wants(logger, self._library.classes["ILogger"], "Builder")
        self._library.gpu.runtime_context()

    @property
    def platform_has_fast_fp16(self) -> bool:
        return self._library.gpu.board.fast_fp16

    @property
    def platform_has_fast_int8(self) -> bool:
        return self._library.gpu.board.fast_int8

    @property
    def platform_has_tf32(self) -> bool:
        return self._library.gpu.board.compute_capability >= (8, 0)

    @property
    def num_DLA_cores(self) -> int:
        return 0

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def max_threads(self) -> int:
        return 1

    def reset(self) -> None:
        """Nothing to forget."""

    def create_network(self, flags: int = 0) -> Any:
        if isinstance(flags, bool) or not isinstance(flags, int):
            raise TypeError("Builder.create_network: incompatible function arguments: flags is an int, 1 << int(flag)")
        return self._library.make("INetworkDefinition", self, flags)

    def create_builder_config(self) -> Any:
        return self._library.make("IBuilderConfig", self)

    def create_optimization_profile(self) -> Any:
        return self._library.make("IOptimizationProfile")

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return not list(objections(self._library, network, config))

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        wants(network, self._library.classes["INetworkDefinition"], "Builder.build_serialized_network")
        wants(config, self._library.classes["IBuilderConfig"], "Builder.build_serialized_network")
        if network._builder is not self or config._builder is not self:
            self._library.gpu.misuse("a network or configuration of another builder")
        for severity, text in warnings_of(self._library, config):
            self._library.log(self._logger, severity, text)
        found = list(objections(self._library, network, config))
        for text in found:
            self._library.error(self._logger, text)
        if found:
            return None
        plan, model = compose(self._library, network, config)
        if config._cache is not None:
            config._cache._entries |= set(plan.layers)
        self._library.built.append({"plan": plan, "workspace_bytes": config._workspace, "pinned": pinned(network)})
        return self._library.classes["IHostMemory"](pack(plan, model))


def warnings_of(library: Library, config: Any) -> Iterator[Tuple[str, str]]:
    """What TensorRT says and goes on."""
    names, board = config._names(), library.gpu.board
    if "FP16" in names and not board.fast_fp16:
        yield "WARNING", "Half2 support requested on hardware without native FP16 support, performance will be poor"
    if "INT8" in names and not board.fast_int8:
        yield "WARNING", "INT8 was asked for on a device without fast INT8"


def objections(library: Library, network: Any, config: Any) -> Iterator[str]:
    """Why a build fails."""
    names = config._names()
    if network._model is None or not network._outs:
        yield "Network must have at least one output"
        return
    kinds = {layer._kind for layer in network._layers}
    strong = library.version >= (10,) and network._flags >> 1 & 1
    if strong and {"FP16", "INT8"} & set(names):
        yield "a strongly typed network takes no precision flags"
    if not strong and "QUANTIZE" in kinds and "INT8" not in names:
        yield "the network quantises, and the INT8 flag is not set"
    if not strong and "INT8" in names and "QUANTIZE" not in kinds:
        yield "INT8 was asked for with neither a calibrator nor QuantizeLinear nodes"
    if not strong and "FP16" not in names:
        if any(tensor._label == "HALF" for tensor in network._tensors.values()):
            yield "the network has half-precision tensors, and the FP16 flag is not set"
        half = library.dtype("HALF")
        if any(half in (layer._precision, *layer._types.values()) for layer in network._layers):
            yield "fp16 is set for a layer, and the FP16 flag is not set"
    for layer in network._layers:
        made = [network._tensors[name]._label for name in layer._outputs if name in network._tensors]
        if layer._precision is not None and not set(made) <= {"FLOAT", "HALF"}:
            yield f"{layer._name}: cannot use precision {layer._precision._label} for a layer that makes {made}"
    free = [one for one in network._ins if -1 in one._shape]
    if free and not config._profiles:
        yield "Network has dynamic or shape inputs, but no optimization profile has been defined."
    for index, profile in enumerate(config._profiles):
        for name in profile._shapes:
            if name not in {one._name for one in network._ins}:
                yield f"profile {index} names {name}, which is no input"
        for one in network._ins:
            shapes = profile._shapes.get(one._name)
            if shapes is None:
                if one in free:
                    yield f"profile {index} says nothing of the dynamic input {one._name}"
                continue
            for shape in shapes:
                if len(shape) != len(one._shape) or any(b not in (-1, a) for a, b in zip(shape, one._shape)):
                    yield f"profile {index} gives {one._name} the shape {shape}, and the network {one._shape}"


def pinned(network: Any) -> Dict[str, str]:
    """The layers whose precision is wished, and which."""
    return {layer._name: layer._precision._label for layer in network._layers if layer._precision is not None}


def profiles_of(network: Any, config: Any) -> List[Profile]:
    """Every profile's shapes for every input; fixed inputs have the network's."""
    fixed = {one._name: (tuple(one._shape),) * 3 for one in network._ins if -1 not in one._shape}
    return [{**fixed, **one._shapes} for one in config._profiles] or [fixed]


def compose(library: Library, network: Any, config: Any) -> Tuple[Plan, bytes]:
    """The plan of a network that nothing is wrong with."""
    names = config._names()
    model = onnx.ModelProto()
    model.CopyFrom(network._model)
    for one, tensor in zip(model.graph.input, network._ins):
        for at, size in enumerate(tensor._shape):
            if size != -1:
                one.type.tensor_type.shape.dim[at].dim_value = size
    wishes = pinned(network) if set(names) & set(OBEYED) else {}
    if "FP16" in names:
        round_to_half(model, {layer._outputs[0] for layer in network._layers if wishes.get(layer._name) == "FLOAT"})
    profiles = profiles_of(network, config)
    largest = sum(int(np.prod(shapes[2], dtype=np.int64)) for shapes in profiles[-1].values())
    tensors = [
        TensorPlan(one._name, one._label, tuple(one._shape), one in network._ins)
        for one in network._ins + network._outs
    ]
    weights = sum(len(one.raw_data) or 4 * len(one.float_data) for one in model.graph.initializer)
    plan = Plan(
        library.text, library.gpu.board.name, library.gpu.board.compute_capability, network._title, tuple(tensors),
        tuple(profiles), names, tuple(layer._name for layer in network._layers),
        device_memory_bytes=-(-4 * largest * (1 + len(network._layers) % 7) // 512) * 512, weight_bytes=weights,
    )  # fmt: skip
    return plan, model.SerializeToString()


def round_to_half(model: onnx.ModelProto, exempt: "set[str]") -> None:
    """Weights as half precision has them; sums stay in single precision, as a GPU's may."""
    kept = {name for node in model.graph.node if node.output[0] in exempt for name in node.input}
    for one in model.graph.initializer:
        if one.data_type == onnx.TensorProto.FLOAT and one.name not in kept:
            with np.errstate(over="ignore"):
                rounded = numpy_helper.to_array(one).astype(np.float16).astype(np.float32)
            one.CopyFrom(numpy_helper.from_array(rounded, one.name))


def session_of(model: bytes) -> Any:
    """The model under ONNX Runtime, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    found: Optional[Any] = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return found
