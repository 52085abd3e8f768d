"""Loggers, shapes, memory that TensorRT hands out."""

from typing import Any, Iterator, Tuple

from tests.doubles.tensorrt_double.library import Library, wants
from tests.doubles.tensorrt_double.strict import StrictObject


class ILogger(StrictObject):
    """To be derived from; its own `log` is abstract."""

    _must_initialise = True
    _library: Library

    def __init__(self) -> None:
        self._initialised = True

    def log(self, severity: Any, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


class Logger(StrictObject):
    """The library's own, which prints. The double keeps the lines in `_lines` instead."""

    _library: Library

    def __init__(self, min_severity: Any = None) -> None:
        self._initialised = True
        self._lines: list[Tuple[str, str]] = []
        self._minimum = self._library.severity("WARNING")
        if min_severity is not None:
            self.min_severity = min_severity

    @property
    def min_severity(self) -> Any:
        return self._minimum

    @min_severity.setter
    def min_severity(self, value: Any) -> None:
        self._minimum = wants(value, type(self._library.severity("ERROR")), "Logger.min_severity")

    def log(self, severity: Any, msg: str) -> None:
        if severity <= self._minimum:
            self._lines.append((str(severity), msg))


class Dims(StrictObject):
    """A shape: a sequence, but no tuple."""

    _library: Library
    MAX_DIMS = 8

    def __init__(self, shape: Any = ()) -> None:
        self._shape = [int(one) for one in shape]
        if len(self._shape) > 8:
            raise ValueError("The maximum number of dimensions is 8")

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        found = self._shape[index]
        return tuple(found) if isinstance(found, list) else found

    def __setitem__(self, index: int, value: int) -> None:
        self._shape[index] = int(value)

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Dims, StrictObject, tuple, list)) and list(other) == self._shape  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return str(tuple(self._shape))

    __repr__ = __str__


class HostBytes(bytes):
    """The buffer of `IHostMemory`: what is not a buffer's is taken away from bytes."""

    def _no(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("object of type 'tensorrt.tensorrt.IHostMemory' is a buffer and nothing else")

    __len__ = __iter__ = __getitem__ = __add__ = __contains__ = __mul__ = __mod__ = __lt__ = __gt__ = _no

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name in type(self)._listed:  # type: ignore[attr-defined]
            return object.__getattribute__(self, name)
        raise AttributeError(f"'tensorrt.tensorrt.IHostMemory' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"'tensorrt.tensorrt.IHostMemory' object has no attribute '{name}' that can be set")


def host_memory_class(library: Library, listed: "frozenset[str]") -> Any:
    """`IHostMemory`: bytes underneath, because only C can otherwise make a buffer on Python 3.8."""

    def nbytes(self: HostBytes) -> int:
        library.touched.add(("IHostMemory", "nbytes"))
        return bytes.__len__(self)

    def dtype(self: HostBytes) -> Any:
        return library.dtype("INT8")

    body = {"nbytes": property(nbytes), "dtype": property(dtype), "_listed": listed, "__module__": "tensorrt.tensorrt"}
    return type("IHostMemory", (HostBytes,), body)
