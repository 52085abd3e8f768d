"""The execution context: shapes, addresses, device memory, and running on a stream."""

import ctypes
import weakref
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from tests.doubles.memory import Block
from tests.doubles.tensorrt_double.engine import close
from tests.doubles.tensorrt_double.execution import execution
from tests.doubles.tensorrt_double.library import NUMPY, Library, wants, wants_integer
from tests.doubles.tensorrt_double.plan import TensorPlan
from tests.doubles.tensorrt_double.strict import StrictObject

ALIGNMENT = 256
Shape = Tuple[int, ...]


class IExecutionContext(StrictObject):
    """One way to run an engine. Used by one thread at a time."""

    _library: Library

    def _start(self, engine: Any, block: Block, own: bool) -> None:
        self._engine, self._block, self._own, self._title = engine, block, own, "Unnamed Execution Context 0"
        self._memory: Optional[Tuple[int, int]] = None  # address and size, when they come from outside
        self._shapes: Dict[str, Shape] = {}
        self._addresses: Dict[str, int] = {}
        self._profile = -1
        weakref.finalize(self, close, self._library, block).atexit = False
        free = [index for index in range(len(engine._plan.profiles)) if self._may_take(index)]
        if free and free[0] == 0:
            self._take(0)

    # Profiles.

    def _may_take(self, index: int) -> bool:
        """Before 10, two contexts of one engine need two profiles if shapes are free."""
        fixed = all(-1 not in one.shape for one in self._engine._plan.inputs)
        user = self._engine._users.get(index, lambda: None)()
        return fixed or self._library.version >= (10,) or user is None or user is self

    def _take(self, index: int) -> None:
        self._engine._users = {key: one for key, one in self._engine._users.items() if one() is not self}
        self._engine._users[index] = weakref.ref(self)
        self._profile = index
        self._shapes = {one.name: one.shape for one in self._engine._plan.inputs if -1 not in one.shape}

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._stream(stream_handle, "set_optimization_profile_async")
        if not 0 <= profile_index < len(self._engine._plan.profiles) or not self._may_take(profile_index):
            self._fail(f"profile {profile_index} does not exist or is chosen by another context")
            raise RuntimeError("Error in set optimization profile async.")
        self._take(profile_index)
        return True

    # Shapes.

    def _fail(self, text: str) -> bool:
        self._library.error(self._engine._logger, f"IExecutionContext: {text}")
        return False

    def _set_shape(self, tensor: Optional[TensorPlan], shape: Any) -> bool:
        wanted = tuple(int(one) for one in shape)
        if tensor is None or not tensor.is_input:
            return self._fail(f"a shape is set for {None if tensor is None else tensor.name!r}, which is no input")
        if self._profile < 0:
            return self._fail("no optimization profile is set")
        low, _, high = self._engine._plan.profiles[self._profile][tensor.name]
        if len(wanted) != len(low) or any(not a <= b <= c for a, b, c in zip(low, wanted, high)):
            return self._fail(f"{tensor.name} cannot have the shape {wanted}: the profile allows {low} to {high}")
        self._shapes[tensor.name] = wanted
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        return self._set_shape(self._engine._tensor(name, "set_input_shape"), shape)

    def set_binding_shape(self, binding: int, shape: Any) -> bool:
        found = self._engine._binding(wants(binding, int, "set_binding_shape"), "set_binding_shape")
        if found is not None and found[0] != self._profile:
            return self._fail(f"binding {binding} belongs to profile {found[0]}, and {self._profile} is active")
        return self._set_shape(None if found is None else found[1], shape)

    def _resolved(self, tensor: Optional[TensorPlan]) -> Shape:
        if tensor is None:
            return ()
        if tensor.is_input:
            return self._shapes.get(tensor.name, tensor.shape)
        if not self._complete():
            return tensor.shape
        return self._outputs()[tensor.name]

    def _complete(self) -> bool:
        return self._profile >= 0 and all(one.name in self._shapes for one in self._engine._plan.inputs)

    def _outputs(self) -> Dict[str, Shape]:
        plan = self._engine._plan
        shapes = self._engine._output_shapes(tuple(self._shapes[one.name] for one in plan.inputs))
        return dict(zip((one.name for one in plan.tensors if not one.is_input), shapes))

    def get_tensor_shape(self, name: str) -> Any:
        return self._library.dims(self._resolved(self._engine._tensor(name, "get_tensor_shape")))

    def get_binding_shape(self, binding: int) -> Any:
        found = self._engine._binding(wants(binding, int, "get_binding_shape"), "get_binding_shape")
        return self._library.dims(self._resolved(None if found is None else found[1]))

    @property
    def all_binding_shapes_specified(self) -> bool:
        return self._complete()

    @property
    def all_shape_inputs_specified(self) -> bool:
        return True

    def infer_shapes(self) -> List[str]:
        return [one.name for one in self._engine._plan.inputs if one.name not in self._shapes]

    # Memory.

    def set_tensor_address(self, name: str, memory: int) -> bool:
        address = wants_integer(memory, "set_tensor_address")
        if self._engine._tensor(name, "set_tensor_address") is None:
            return False
        self._addresses[name] = address
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def _set_device_memory(self, value: Any) -> None:
        if self._library.version < (8, 5):
            if type(value).__name__ != "PyCapsule":
                raise TypeError(
                    "IExecutionContext.device_memory: incompatible function arguments: a PyCapsule is wanted"
                )
            pointer, title = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_GetName
            title.restype, title.argtypes = ctypes.c_char_p, [ctypes.py_object]
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            address = int(pointer(value, title(value)) or 0)
        else:
            address = wants_integer(value, "IExecutionContext.device_memory")
        self._take_memory(address, self._engine._plan.device_memory_bytes)

    device_memory = property(None, _set_device_memory)

    def set_device_memory(self, memory: int, size: int) -> None:
        size = wants_integer(size, "IExecutionContext.set_device_memory")
        if size < self._engine._plan.device_memory_bytes:
            self._fail(f"{size} bytes of device memory, and {self._engine._plan.device_memory_bytes} are needed")
            return
        self._take_memory(wants_integer(memory, "IExecutionContext.set_device_memory"), size)

    def _take_memory(self, address: int, size: int) -> None:
        gpu = self._library.gpu
        if self._own:
            gpu.misuse("device memory is set on a context that has its own")
        if address % ALIGNMENT:
            gpu.misuse(f"device memory at {address:#x} is not aligned to {ALIGNMENT} bytes")
        mine = (self._block.address, self._block.address + 1)
        if any(mine in work.writes for work in gpu.pending()):
            gpu.misuse("device memory is changed while the context runs")
        gpu.resolve(address, size, "device memory", self._engine._cuda)
        self._memory = (address, size)

    def update_device_memory_size_for_shapes(self) -> int:
        return int(self._engine._plan.device_memory_bytes)

    # Running.

    def _stream(self, handle: int, what: str) -> Any:
        gpu = self._library.gpu
        context = gpu.runtime_context()
        if context is not self._engine._cuda:
            gpu.misuse(f"{what}: the engine was made in another CUDA context than the current one")
        return gpu.stream(wants_integer(handle, what), what, context)

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = self._stream(stream_handle, "execute_async_v3")
        return self._enqueue([self._addresses.get(one.name, 0) for one in self._engine._plan.tensors], stream)

    def execute_async_v2(self, bindings: Sequence[int], stream_handle: int, input_consumed: Any = None) -> bool:
        stream = self._stream(stream_handle, "execute_async_v2")
        return self._enqueue(self._of_profile(bindings, "execute_async_v2"), stream)

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        stream = self._stream(0, "execute_v2")
        done = self._enqueue(self._of_profile(bindings, "execute_v2"), stream)
        self._library.gpu.synchronise(stream)
        return done

    def _of_profile(self, bindings: Sequence[int], what: str) -> List[int]:
        """The addresses that belong to the profile in use."""
        wants(bindings, (list, tuple), what)  # type: ignore[arg-type]
        addresses = [wants_integer(one, what) for one in bindings]
        count = len(self._engine._plan.tensors)
        needed = count if self._library.version >= (10,) else self._engine._count()
        if len(addresses) != needed:
            self._library.gpu.fault(f"{what}: {len(addresses)} bindings, and the engine has {needed}")
        start = max(self._profile, 0) * count if needed > count else 0
        return addresses[start : start + count]

    def _enqueue(self, addresses: List[int], stream: Any) -> bool:
        engine, gpu = self._engine, self._library.gpu
        if self._profile < 0:
            return self._fail("no optimization profile is set")
        if not self._complete():
            return self._fail(f"not all dimensions are specified: {', '.join(IExecutionContext.infer_shapes(self))}")
        for tensor, address in zip(engine._plan.tensors, addresses):
            if not address:
                return self._fail(f"no address is set for {tensor.name}")
        if not self._own and self._memory is None and engine._plan.device_memory_bytes:
            return self._fail("no device memory is set on a context that was made without")
        places = [self._place(tensor, address) for tensor, address in zip(engine._plan.tensors, addresses)]
        ranges = [(address, address + size) for (_, _, size, _), address in zip(places, addresses)]
        scratch = [(self._block.address, self._block.address + self._block.size)]
        if not self._own and self._memory is not None:
            gpu.resolve(*self._memory, "device memory", engine._cuda)
            scratch = [scratch[0], (self._memory[0], self._memory[0] + self._memory[1])]
        inputs = [one for one, tensor in zip(ranges, engine._plan.tensors) if tensor.is_input]
        outputs = [one for one, tensor in zip(ranges, engine._plan.tensors) if not tensor.is_input]
        self._check_apart([*ranges, *scratch[1:]])
        weights = (engine._block.address, engine._block.address + engine._block.size)
        run = execution(self._library, engine, places, [self._memory] if len(scratch) > 1 else [])
        gpu.enqueue(
            stream, f"execution of {engine._plan.name}", run, reads=[*inputs, weights], writes=[*outputs, *scratch]
        )
        return True

    def _place(self, tensor: TensorPlan, address: int) -> Tuple[TensorPlan, Shape, int, int]:
        """A tensor's shape, bytes and address, which must hold it."""
        shape = self._resolved(tensor)
        size = int(np.prod(shape, dtype=np.int64)) * int(np.dtype(NUMPY[tensor.label]).itemsize)
        self._library.gpu.resolve(address, size, f"tensor {tensor.name}", self._engine._cuda)
        return tensor, shape, size, address

    def _check_apart(self, ranges: List[Tuple[int, int]]) -> None:
        ordered = sorted(one for one in ranges if one[0] < one[1])
        for (_, end), (start, _) in zip(ordered, ordered[1:]):
            if start < end:
                self._library.gpu.misuse("tensors or device memory of one execution overlap")

    # The rest.

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def name(self) -> str:
        return self._title

    @name.setter
    def name(self, value: str) -> None:
        self._title = value

    @property
    def debug_sync(self) -> bool:
        return False

    @property
    def enqueue_emits_profile(self) -> bool:
        return True
