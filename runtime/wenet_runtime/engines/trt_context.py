"""TensorRT's two interfaces to run an engine, behind one: numbered bindings (8.2, 8.4) and named tensors (8.5 on)."""

import ctypes
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Protocol, Tuple

import numpy as np

from wenet_runtime.errors import EngineError

# TensorRT's own `nptype` fails beside numpy 1.24 and later in the versions that Jetsons have. A version knows some.
DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT64": np.int64,
}


@dataclass(frozen=True)
class Tensor:
    """One input or output of an engine: its type and the shape of one row."""

    name: str
    is_input: bool
    dtype: "np.dtype[Any]"
    row: Tuple[int, ...]


class Context(Protocol):
    """An engine ready to run in one optimisation profile. One context of a backend runs at a time."""

    def use_memory(self, address: int, size: int) -> None:
        """Compute in this memory from now on."""
        ...

    def enqueue(self, rows: int, addresses: Mapping[str, int]) -> bool:
        """Ask for one run on the stream. Whether TensorRT takes it; it tells its logger why not.

        Args:
            rows: of the batch, within the profile.
            addresses: where every tensor lies for the GPU.
        """
        ...


def tensors_of(trt: Any, engine: Any) -> List[Tensor]:
    """An engine's inputs and outputs. Raises `EngineError` for one that has more open sizes than the batch."""
    types = {getattr(trt.DataType, name): np.dtype(one) for name, one in DTYPES.items() if hasattr(trt.DataType, name)}
    found: List[Tensor] = []
    if has_names(engine):
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found.append(_tensor(name, is_input, types, engine.get_tensor_dtype(name), engine.get_tensor_shape(name)))
    else:
        for index in range(_bindings_a_profile(engine)):
            name, is_input = engine.get_binding_name(index), engine.binding_is_input(index)
            dtype, shape = engine.get_binding_dtype(index), engine.get_binding_shape(index)
            found.append(_tensor(name, is_input, types, dtype, shape))
    return found


def _tensor(name: str, is_input: bool, types: Mapping[Any, "np.dtype[Any]"], dtype: Any, shape: Any) -> Tensor:
    if dtype not in types:
        raise EngineError(f"tensor '{name}' is of TensorRT's type {dtype}, which NumPy lacks: export the bundle again")
    row = tuple(int(size) for size in shape)[1:]
    if any(size < 0 for size in row):
        raise EngineError(f"tensor '{name}' has open sizes (rows, {row}): only the batch's may be open")
    return Tensor(name, bool(is_input), types[dtype], row)


def has_names(engine: Any) -> bool:
    """Whether this TensorRT knows an engine's tensors by name."""
    return hasattr(engine, "num_io_tensors")


def memory_of(engine: Any) -> int:
    """Bytes that any context of an engine needs to compute in."""
    name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
    return int(getattr(engine, name))


def open_context(trt: Any, engine: Any, *, profile: int, tensors: List[Tensor], stream: int) -> Context:
    """Make a context that has no memory of its own; it works once it was told which to use.

    Raises:
        EngineError: TensorRT makes none.
    """
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is not None:
        context = engine.create_execution_context(strategies.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        raise EngineError("TensorRT makes no execution context")
    if has_names(engine):
        return NamedContext(context, profile, tensors, stream)
    return BindingContext(context, profile, tensors, stream, engine)


class NamedContext:
    """A context of TensorRT 8.5 and later."""

    def __init__(self, context: Any, profile: int, tensors: List[Tensor], stream: int) -> None:
        self._context = context
        self._profile = _Profile(context, profile, stream)
        self._inputs = [tensor for tensor in tensors if tensor.is_input]
        self._stream = stream
        self._rows = 0
        self._addresses: Dict[str, int] = {}

    def use_memory(self, address: int, size: int) -> None:
        """See `Context.use_memory`."""
        self._profile.select()
        _set_memory(self._context, address, size)

    def enqueue(self, rows: int, addresses: Mapping[str, int]) -> bool:
        """See `Context.enqueue`."""
        if rows != self._rows:
            self._rows = 0
            for tensor in self._inputs:
                if not self._context.set_input_shape(tensor.name, (rows, *tensor.row)):
                    return False
            self._rows = rows
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    return False
                self._addresses[name] = address
        return bool(self._context.execute_async_v3(self._stream))


class BindingContext:
    """A context of TensorRT 8.2 and 8.4: each profile has its own bindings, one profile's behind the other's."""

    def __init__(self, context: Any, profile: int, tensors: List[Tensor], stream: int, engine: Any) -> None:
        self._context = context
        self._profile = _Profile(context, profile, stream)
        self._stream = stream
        self._rows = 0
        self._places = {tensor.name: profile * len(tensors) + at for at, tensor in enumerate(tensors)}
        self._inputs = [tensor for tensor in tensors if tensor.is_input]
        self._bindings = [0] * int(engine.num_bindings)

    def use_memory(self, address: int, size: int) -> None:
        """See `Context.use_memory`."""
        self._profile.select()
        _set_memory(self._context, address, size)

    def enqueue(self, rows: int, addresses: Mapping[str, int]) -> bool:
        """See `Context.enqueue`."""
        if rows != self._rows:
            self._rows = 0
            for tensor in self._inputs:
                if not self._context.set_binding_shape(self._places[tensor.name], (rows, *tensor.row)):
                    return False
            self._rows = rows
        for name, address in addresses.items():
            self._bindings[self._places[name]] = address
        return bool(self._context.execute_async_v2(self._bindings, self._stream))


class _Profile:
    """Selects a context's profile once, before its memory is set: what a change of profile does to that is not told."""

    def __init__(self, context: Any, profile: int, stream: int) -> None:
        self._context = context
        self._profile = profile
        self._stream = stream
        self._selected = False

    def select(self) -> None:
        if self._selected:
            return
        if not self._context.set_optimization_profile_async(self._profile, self._stream):
            raise EngineError(f"TensorRT does not take optimisation profile {self._profile}")
        self._selected = True


def _bindings_a_profile(engine: Any) -> int:
    return int(engine.num_bindings) // int(engine.num_optimization_profiles)


def _set_memory(context: Any, address: int, size: int) -> None:
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
        return
    try:
        context.device_memory = address
    except TypeError:  # 8.2 and 8.4 take a pointer of C, which Python carries in a capsule
        context.device_memory = _capsule(address)


def _capsule(address: int) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)
