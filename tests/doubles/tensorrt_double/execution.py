"""One queued run of an engine, done when its stream is waited for."""

from typing import Any, Dict

import numpy as np

from tests.doubles.memory import POISON
from tests.doubles.tensorrt_double.library import NUMPY, Library


def execution(library: Library, engine: Any, places: Any, memory: Any) -> Any:
    """What runs when the stream is waited for. It keeps no engine or context alive: real work does not either."""
    gpu, session, cuda = library.gpu, engine._session, engine._cuda
    before: Dict[str, Any] = {}
    for tensor, _, size, address in places:
        block, offset = gpu.resolve(address, size, f"tensor {tensor.name}", cuda)
        if block.kind == "mapped":
            if tensor.is_input:
                before[tensor.name] = block.bytes[offset : offset + size].copy()
            else:
                block.bytes[offset : offset + size] = POISON

    def run() -> None:
        feeds = {}
        for one in memory:
            gpu.resolve(*one, "device memory", cuda)
        for tensor, shape, size, address in places:
            block, offset = gpu.resolve(address, size, f"tensor {tensor.name}", cuda)
            if not tensor.is_input:
                continue
            data, dtype = block.bytes[offset : offset + size], np.dtype(NUMPY[tensor.label])
            if not block.is_written(offset, size):
                gpu.misuse(f"input {tensor.name} was not written, or not all of its {size} bytes")
            for known in block.types(offset, size):
                if known != dtype:
                    gpu.misuse(f"input {tensor.name} holds {known}, and the engine reads {dtype}")
            if tensor.name in before and not np.array_equal(before[tensor.name], data):
                gpu.misuse(f"input {tensor.name}, in mapped memory, changed before the execution was waited for")
            feeds[tensor.name] = data.copy().view(dtype).reshape(shape)
        outputs = iter(session.run(None, feeds))
        for tensor, _, size, address in places:
            if not tensor.is_input:
                block, offset = gpu.resolve(address, size, f"tensor {tensor.name}", cuda)
                value = np.ascontiguousarray(next(outputs))
                block.write(offset, value.reshape(-1).view(np.uint8), value.dtype)

    return run
