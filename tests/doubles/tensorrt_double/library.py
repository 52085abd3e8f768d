"""What the classes of one version share: the version, the device, each other."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from tests.doubles.gpu import Gpu
from tests.doubles.tensorrt_double.strict import Touched

# ONNX element types to TensorRT's data types.
ELEMENTS = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF", 16: "BF16"}
NUMPY = {
    "FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "BOOL": np.bool_, "UINT8": np.uint8,
    "INT64": np.int64,
}  # fmt: skip


@dataclass(eq=False)
class Library:
    """One version of TensorRT on one device."""

    version: Tuple[int, ...]
    text: str
    gpu: Gpu
    touched: Touched
    classes: Dict[str, Any] = field(default_factory=dict)
    built: List[Dict[str, Any]] = field(default_factory=list)

    def make(self, name: str, *args: Any) -> Any:
        """An object that only the library itself can make."""
        cls = self.classes[name]
        made = object.__new__(cls)
        made._start(*args)
        return made

    def dims(self, shape: Any) -> Any:
        return self.classes["Dims"](tuple(int(one) for one in shape))

    def dtype(self, label: str) -> Any:
        return self.classes["DataType"].__members__[label]

    def severity(self, label: str) -> Any:
        return self.classes["ILogger"].__dict__["Severity"].__members__[label]

    def log(self, logger: Any, severity: str, text: str) -> None:
        """Tell the logger. What it raises would end a real process."""
        try:
            object.__getattribute__(logger, "log")(self.severity(severity), text)  # not touched by who is tested
        except Exception as error:  # noqa: BLE001 - whatever it is, C++ would call std::terminate
            self.gpu.misuse(f"the logger raised {error!r}: that would end a real process")

    def error(self, logger: Any, text: str) -> None:
        self.log(logger, "ERROR", text)


def wants_integer(value: Any, what: str) -> int:
    """An address or handle as pybind11 takes one."""
    if isinstance(value, (bool, float)) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{what}: incompatible function arguments, an int is wanted, not {type(value).__name__}")
    number = int(value)
    if number < 0:
        raise TypeError(f"{what}: incompatible function arguments, {number} is negative")
    return number


def wants_buffer(value: Any, what: str) -> bytes:
    """Bytes as pybind11 takes a py::buffer."""
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise TypeError(f"{what}: incompatible function arguments, not {type(value).__name__}") from None


def wants(value: Any, cls: Optional[type], what: str) -> Any:
    """An object of a class of the library."""
    if cls is None or not isinstance(value, cls):
        raise TypeError(f"{what}: incompatible function arguments, not {type(value).__name__}")
    return value
