"""Builds TensorRT engines out of ONNX models: profiles, precisions, the timing cache."""

import fnmatch
import re
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.trt_files import Recipe
from wenet_runtime.errors import EngineError

# Kinds of layers that compute numbers, and so have a precision of their own; a version knows some of them.
COMPUTING = (
    *("CONVOLUTION", "FULLY_CONNECTED", "DECONVOLUTION", "MATRIX_MULTIPLY", "ACTIVATION", "POOLING", "ELEMENTWISE"),
    *("UNARY", "SCALE", "REDUCE", "SOFTMAX", "NORMALIZATION", "PARAMETRIC_RELU", "LRN"),
)
NAMED = 5  # layers named in an error

Rows = Tuple[int, int, int]


class Timings:
    """What the builder measured of single layers before, so that another mode's like layers need not be measured.

    Args:
        read: gives what was kept, or None.
        write: keeps it.
    """

    def __init__(self, read: Callable[[], Optional[NDArray[np.uint8]]], write: Callable[[bytes], None]) -> None:
        self._read = read
        self._write = write

    def give(self, config: Any) -> None:
        """Let a build use and extend what is known. A cache of another device or version is left out."""
        known = self._read()
        if known is not None:
            cache = config.create_timing_cache(known.tobytes())
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def take(self, config: Any) -> None:
        """Keep what is known after a build."""
        cache = config.get_timing_cache()
        serialized = None if cache is None else cache.serialize()
        if serialized is not None:
            self._write(bytes(serialized))


def build_plan(
    trt: Any,
    builder: Any,
    logger: Any,
    onnx: bytes,
    recipe: Recipe,
    *,
    timings: Timings,
    aliases: Mapping[str, str],
) -> NDArray[np.uint8]:
    """Build one engine: seconds to minutes.

    Args:
        trt: TensorRT.
        builder, logger: of this process.
        onnx: the network, opset 13.
        recipe: how.
        timings: of layers like these.
        aliases: another name that a layer is known by, by its node's.

    Returns:
        (nbytes,) the engine as TensorRT serialises it.

    Raises:
        EngineError: TensorRT does not take the network, or a pattern names no layer; says why as far as the parser
            says it.
    """
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise EngineError(f"its parser does not take the network ({errors or 'no reason given'})")
    config = builder.create_builder_config()
    _limit_workspace(trt, config, recipe.workspace_bytes)
    for rows in _profiles(recipe.most_rows):
        config.add_optimization_profile(_profile(builder, network, rows))
    # Where a layer stays in fp32 it shall be fp32: TF32 keeps ten bits of a number.
    config.clear_flag(trt.BuilderFlag.TF32)
    if recipe.fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if recipe.int8:
        config.set_flag(trt.BuilderFlag.INT8)
    if recipe.fp32_layers and (recipe.fp16 or recipe.int8):
        _keep_in_fp32(trt, network, recipe.fp32_layers, aliases)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    timings.give(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError("its builder finds no engine")
    timings.take(config)
    return np.frombuffer(bytes(plan), np.uint8)


def _network_flags(trt: Any) -> int:
    """Sizes in the network count the batch: to be asked for up to 8.6, always so from 10 on."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _limit_workspace(trt: Any, config: Any, nbytes: int) -> None:
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, nbytes)
    else:
        config.max_workspace_size = nbytes


def _profiles(most_rows: int) -> List[Rows]:
    """(least, best, most) rows of each profile. One row has its own, which TensorRT makes as quick as it can."""
    return [(1, 1, 1)] + ([(1, most_rows, most_rows)] if most_rows > 1 else [])


def _profile(builder: Any, network: Any, rows: Rows) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        row = [int(size) for size in tensor.shape][1:]
        profile.set_shape(tensor.name, *((count, *row) for count in rows))
    return profile


def _keep_in_fp32(trt: Any, network: Any, patterns: Sequence[str], aliases: Mapping[str, str]) -> None:
    """Constrain the layers that the patterns name. Raises `EngineError` for a pattern that names none."""
    kinds = {getattr(trt.LayerType, name) for name in COMPUTING if hasattr(trt.LayerType, name)}
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    unused, known = list(patterns), []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type not in kinds:
            continue
        # Sizes and comparisons are computed by the same kinds of layers, and a build with one of them in fp32 fails.
        if any(layer.get_output(output).dtype not in floats for output in range(layer.num_outputs)):
            continue
        names = names_of(layer.name, aliases)
        known.append(names[-1])
        fitting = [pattern for pattern in patterns if any(fnmatch.fnmatchcase(name, pattern) for name in names)]
        if fitting:
            unused = [pattern for pattern in unused if pattern not in fitting]
            layer.precision = trt.DataType.FLOAT
            for output in range(layer.num_outputs):
                layer.set_output_type(output, trt.DataType.FLOAT)
    if unused:
        raise EngineError(
            f"--fp32-layers names '{unused[0]}', and no layer that computes is called so; there are "
            f"{', '.join(dict.fromkeys(known[:NAMED]))}{' …' if len(known) > NAMED else ''}"
        )


def names_of(layer: str, aliases: Mapping[str, str]) -> List[str]:
    """The names that a layer of TensorRT goes by: its own, its node's, the bundle's.

    Several layers made of one node are told apart by a number at the end.
    """
    node = re.sub(r"_\d+$", "", layer)
    return list(dict.fromkeys((layer, node, aliases.get(layer, layer), aliases.get(node, node))))
