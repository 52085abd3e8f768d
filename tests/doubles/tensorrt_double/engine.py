"""The engine: a loaded plan, by numbered bindings and by named tensors."""

import weakref
from typing import Any, List, Optional, Tuple

import numpy as np

from tests.doubles.memory import Block, Misuse
from tests.doubles.tensorrt_double.builder import session_of
from tests.doubles.tensorrt_double.library import NUMPY, Library, wants
from tests.doubles.tensorrt_double.plan import Plan, TensorPlan
from tests.doubles.tensorrt_double.strict import StrictObject


def close(library: Library, block: Block) -> None:
    """An engine or context is gone, and its memory with it; nothing may be raised here."""
    if not block.freed:
        try:
            library.gpu.free(block)
        except Misuse:  # noted: it was still at work
            block.freed = True


class ICudaEngine(StrictObject):
    """A loaded plan. Contexts keep it alive."""

    _library: Library

    def _start(self, runtime: Any, plan: Plan, model: bytes, block: Block, data: bytes) -> None:
        self._runtime, self._plan, self._block, self._data = runtime, plan, block, data
        self._logger = runtime._logger
        self._session = session_of(model)
        self._cuda = block.context
        self._users: dict[int, weakref.ref[Any]] = {}
        self._shapes: dict[Tuple[Any, ...], List[Tuple[int, ...]]] = {}
        weakref.finalize(self, close, self._library, block).atexit = False

    def _output_shapes(self, shapes: Tuple[Tuple[int, ...], ...]) -> List[Tuple[int, ...]]:
        """What the outputs' shapes are for given inputs' shapes: found once by running on zeros."""
        if shapes not in self._shapes:
            feeds = {one.name: np.zeros(shape, NUMPY[one.label]) for one, shape in zip(self._plan.inputs, shapes)}
            self._shapes[shapes] = [one.shape for one in self._session.run(None, feeds)]
        return self._shapes[shapes]

    # What every version has.

    @property
    def name(self) -> str:
        return self._plan.name

    @property
    def num_layers(self) -> int:
        return len(self._plan.layers)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan.profiles)

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return False

    @property
    def refittable(self) -> bool:
        return "REFIT" in self._plan.flags

    def serialize(self) -> Any:
        return self._library.classes["IHostMemory"](self._data)

    @property
    def device_memory_size(self) -> int:
        return self._plan.device_memory_bytes

    @property
    def device_memory_size_v2(self) -> int:
        return self._plan.device_memory_bytes

    def get_device_memory_size_for_profile(self, profile_index: int) -> int:
        return self._plan.device_memory_bytes

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return self._plan.device_memory_bytes

    def create_execution_context(self, strategy: Any = None) -> Any:
        label = "STATIC"
        if strategy is not None:
            wanted = self._library.classes.get("ExecutionContextAllocationStrategy")
            label = wants(strategy, wanted, "ICudaEngine.create_execution_context")._label
        if label == "USER_MANAGED":
            return self._made(1, own=False)
        return self._made(max(self._plan.device_memory_bytes, 1), own=True)

    def _made(self, size: int, *, own: bool) -> Any:
        """A context with memory of its own, or with little more than its name."""
        memory = self._library.gpu.memory
        block = memory.allocate(size, kind="device", context=self._cuda, owner="an execution context")
        if block is None:
            self._library.error(self._logger, "Requested amount of GPU memory could not be allocated: out of memory")
            return None
        return self._library.make("IExecutionContext", self, block, own)

    def create_execution_context_without_device_memory(self) -> Any:
        return self._made(1, own=False)

    # Bindings: numbers, as many for each profile as there are tensors.

    def _binding(self, binding: Any, what: str) -> Optional[Tuple[int, TensorPlan]]:
        """A binding's profile and tensor; None, and an error in the log, if there is none."""
        index = self._index(binding) if isinstance(binding, str) else binding
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"{what}: incompatible function arguments, not {type(binding).__name__}")
        if not 0 <= index < self._count():
            self._library.error(self._logger, f"{what}: {binding!r} is no binding of this engine")
            return None
        return index // len(self._plan.tensors), self._plan.tensors[index % len(self._plan.tensors)]

    def _count(self) -> int:
        return len(self._plan.tensors) * len(self._plan.profiles)

    def _title(self, index: int) -> str:
        profile, at = divmod(index, len(self._plan.tensors))
        return self._plan.tensors[at].name + (f" [profile {profile}]" if profile else "")

    def _index(self, name: str) -> int:
        names = [self._title(index) for index in range(self._count())]
        return names.index(name) if name in names else -1

    @property
    def num_bindings(self) -> int:
        return self._count()

    def __len__(self) -> int:
        return self._count() if self._library.version < (10,) else len(self._plan.tensors)

    def get_binding_name(self, index: int) -> Optional[str]:
        return None if self._binding(index, "get_binding_name") is None else self._title(index)

    def get_binding_index(self, name: str) -> int:
        return self._index(wants(name, str, "get_binding_index"))

    def binding_is_input(self, index: Any) -> bool:
        found = self._binding(index, "binding_is_input")
        return found is not None and found[1].is_input

    def get_binding_shape(self, index: Any) -> Any:
        found = self._binding(index, "get_binding_shape")
        return self._library.dims(() if found is None else found[1].shape)

    def get_binding_dtype(self, index: Any) -> Any:
        found = self._binding(index, "get_binding_dtype")
        return self._library.dtype("FLOAT" if found is None else found[1].label)

    def get_binding_bytes_per_component(self, index: int) -> int:
        found = self._binding(index, "get_binding_bytes_per_component")
        return 0 if found is None else int(np.dtype(NUMPY[found[1].label]).itemsize)

    def is_shape_binding(self, binding: int) -> bool:
        return False

    def is_execution_binding(self, binding: int) -> bool:
        return True

    def get_location(self, index: Any) -> Any:
        return self._library.classes["TensorLocation"].__members__["DEVICE"]

    @property
    def max_batch_size(self) -> int:
        return 1

    def get_profile_shape(self, profile_index: int, binding: Any) -> List[Any]:
        found = self._binding(binding, "get_profile_shape")
        return self._profile_shapes(profile_index, None if found is None else found[1])

    def _profile_shapes(self, profile_index: int, tensor: Optional[TensorPlan]) -> List[Any]:
        profiles = self._plan.profiles
        if tensor is None or not tensor.is_input or not 0 <= profile_index < len(profiles):
            self._library.error(self._logger, f"no shapes of an input in profile {profile_index}")
            return [self._library.dims(()) for _ in range(3)]
        return [self._library.dims(shape) for shape in profiles[profile_index][tensor.name]]

    # Tensors: names.

    def _tensor(self, name: Any, what: str) -> Optional[TensorPlan]:
        wants(name, str, what)
        found = next((one for one in self._plan.tensors if one.name == name), None)
        if found is None:
            self._library.error(self._logger, f"{what}: {name!r} is no input or output of this engine")
        return found

    @property
    def num_io_tensors(self) -> int:
        return len(self._plan.tensors)

    def get_tensor_name(self, index: int) -> Optional[str]:
        if not 0 <= index < len(self._plan.tensors):
            self._library.error(self._logger, f"get_tensor_name: no tensor {index}")
            return None
        return self._plan.tensors[index].name

    def get_tensor_mode(self, name: str) -> Any:
        found = self._tensor(name, "get_tensor_mode")
        label = "NONE" if found is None else "INPUT" if found.is_input else "OUTPUT"
        return self._library.classes["TensorIOMode"].__members__[label]

    def get_tensor_shape(self, name: str) -> Any:
        found = self._tensor(name, "get_tensor_shape")
        return self._library.dims(() if found is None else found.shape)

    def get_tensor_dtype(self, name: str) -> Any:
        found = self._tensor(name, "get_tensor_dtype")
        return self._library.dtype("FLOAT" if found is None else found.label)

    def get_tensor_location(self, name: str) -> Any:
        return self._library.classes["TensorLocation"].__members__["DEVICE"]

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        found = self._tensor(name, "get_tensor_bytes_per_component")
        return -1 if found is None else int(np.dtype(NUMPY[found.label]).itemsize)

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> List[Any]:
        return self._profile_shapes(profile_index, self._tensor(name, "get_tensor_profile_shape"))
