"""A test double of the `tensorrt` module: a version's names, ONNX Runtime underneath, strict. See `tests.doubles`."""

import types
from typing import Any, Dict, Optional

import numpy as np

from tests.doubles.board import Board
from tests.doubles.gpu import Gpu
from tests.doubles.tensorrt_double import basics, builder, config, context, engine, network, parser, runtime
from tests.doubles.tensorrt_double.enums import is_enumeration, make_enumeration
from tests.doubles.tensorrt_double.library import NUMPY, Library
from tests.doubles.tensorrt_double.names import MODULE_NAMES, numbers, read_names
from tests.doubles.tensorrt_double.strict import Touched, narrow

IMPLEMENTED: Dict[str, type] = {
    "ILogger": basics.ILogger,
    "Logger": basics.Logger,
    "Dims": basics.Dims,
    "ITensor": network.ITensor,
    "ILayer": network.ILayer,
    "INetworkDefinition": network.INetworkDefinition,
    "OnnxParser": parser.OnnxParser,
    "ParserError": parser.ParserError,
    "IOptimizationProfile": config.IOptimizationProfile,
    "ITimingCache": config.ITimingCache,
    "IBuilderConfig": config.IBuilderConfig,
    "Builder": builder.Builder,
    "Runtime": runtime.Runtime,
    "ICudaEngine": engine.ICudaEngine,
    "IExecutionContext": context.IExecutionContext,
}
FULL_VERSIONS = {"8.2.1": "8.2.1.8", "8.4.1": "8.4.1.5", "8.5.2": "8.5.2.2"}
NO_BOARD = Board("", (0, 0), integrated=False, fast_fp16=False, fast_int8=False, memory_bytes=0)
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class StrictModule(types.ModuleType):
    """A module that notes which of its names were read."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") or name == "__version__":
            super().__getattribute__("_touched").add(("tensorrt", name))
        return value


def make_tensorrt(version: str, *, gpu: Optional[Gpu]) -> types.ModuleType:
    """The module `tensorrt` of one version.

    Args:
        version: one whose names are recorded.
        gpu: the device; None is a machine without one, where builders and runtimes cannot be made.
    """
    listed, module_names = read_names(version)
    touched: Touched = set()
    nowhere = gpu if gpu is not None else Gpu(NO_BOARD)
    library = Library(numbers(version), version, nowhere, touched)
    names: Dict[str, Any] = {}
    severity = make_enumeration("Severity", listed.get("Severity", SEVERITIES), touched)
    severities = {"Severity": severity, **severity.__members__}
    for name, members in listed.items():
        if name in ("IHostMemory", "Severity"):
            continue
        if is_enumeration(members):
            names[name] = make_enumeration(name, members, touched)
        elif name != "Logger":
            found = IMPLEMENTED.get(name)
            if gpu is None and name in ("Builder", "Runtime"):
                found = Deviceless
            names[name] = narrow(
                name,
                [*members, *severities] if name == "ILogger" else members,
                found,
                touched=touched,
                _library=library,
            )
    for label, one in severities.items():
        type.__setattr__(names["ILogger"], label, one)
    names["Logger"] = narrow(
        "Logger", listed["Logger"], basics.Logger, touched=touched, base=names["ILogger"], _library=library
    )
    names["IHostMemory"] = basics.host_memory_class(library, frozenset(listed["IHostMemory"]))
    library.classes = names
    module = StrictModule("tensorrt")
    module.__dict__.update(_touched=touched, _library=library, **names, **module_level(library, module_names))
    return module


def module_level(library: Library, listed: Dict[str, str]) -> Dict[str, Any]:
    """Functions and constants of the module itself, which every version has, and later types where they are listed."""
    found: Dict[str, Any] = {
        "__version__": listed.get("__version__", FULL_VERSIONS.get(library.text, library.text)),
        "nptype": lambda trt_type: NUMPY[trt_type._label],
        "volume": lambda iterable: int(np.prod(list(iterable), dtype=np.int64)) if list(iterable) else 0,
        "init_libnvinfer_plugins": lambda logger, namespace: True,
        "get_nv_onnx_parser_version": lambda: (
            library.version[0] * 10000 + library.version[1] * 100 + library.version[2]
        ),
    }
    members = library.classes["DataType"].__members__
    constants = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "bool": "BOOL"}
    later = {"uint8": "UINT8", "int64": "INT64", "bfloat16": "BF16", "fp8": "FP8", "int4": "INT4"}
    constants.update({key: label for key, label in later.items() if key in listed})
    found.update({key: members[label] for key, label in constants.items()})
    for name in MODULE_NAMES - set(found):
        found[name] = absent_function(name)
    return found


def absent_function(name: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"the double of TensorRT does not do {name}")

    return refuse


class Deviceless:
    """A builder or runtime where there is no device."""

    def __init__(self, logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")
