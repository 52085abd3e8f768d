"""The runtime: makes engines of plans of its own version and device."""

from typing import Any

from tests.doubles.tensorrt_double.library import Library, wants, wants_buffer
from tests.doubles.tensorrt_double.plan import unpack
from tests.doubles.tensorrt_double.strict import StrictObject


class Runtime(StrictObject):
    """Makes engines of plans."""

    _library: Library

    def __init__(self, logger: Any) -> None:
        self._logger = wants(logger, self._library.classes["ILogger"], "Runtime")

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def max_threads(self) -> int:
        return 1

    @property
    def num_DLA_cores(self) -> int:
        return 0

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        data = wants_buffer(serialized_engine, "Runtime.deserialize_cuda_engine")
        library, board = self._library, self._library.gpu.board
        found = unpack(data)
        if found is None:
            library.error(self._logger, "Serialization Error: magic tag does not match, or the plan is cut short")
            return None
        plan, model = found
        if plan.version != library.text:
            text = f"Version tag does not match: the plan is of TensorRT {plan.version}, this is {library.text}"
            library.error(self._logger, f"Serialization Error: {text}")
            return None
        if plan.compute_capability != board.compute_capability:
            text = f"the plan was generated for compute {plan.compute_capability}, this is {board.compute_capability}"
            library.error(self._logger, f"The engine plan file is not compatible with this device: {text}")
            return None
        if plan.board != board.name:
            library.log(self._logger, "WARNING", "Using an engine plan file across different models of devices")
        context = library.gpu.runtime_context()
        block = library.gpu.memory.allocate(
            max(plan.weight_bytes, 1), kind="device", context=context, owner="an engine"
        )
        if block is None:
            library.error(self._logger, "Requested amount of GPU memory could not be allocated: out of memory")
            return None
        return library.make("ICudaEngine", self, plan, model, block, data)
