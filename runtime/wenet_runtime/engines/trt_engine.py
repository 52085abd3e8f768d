"""One mode as a TensorRT engine: batches pass through shared memory, one row in a profile of its own."""

import contextlib
import threading
import weakref
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.base import Tensors
from wenet_runtime.engines.cuda import Gpu, transfer
from wenet_runtime.engines.trt_context import Context, Tensor, memory_of, open_context, tensors_of
from wenet_runtime.engines.trt_logger import Messages
from wenet_runtime.engines.trt_memory import Block, Passages
from wenet_runtime.errors import EngineError

# What a binding raises for what it does not take.
FAILURES = (RuntimeError, ValueError, TypeError, MemoryError)


class Bench:
    """What the engines of one backend share: the GPU, one lock, and memory that belongs to whichever runs.

    Args:
        gpu: where they run.
        trt: TensorRT.
        messages: what TensorRT says of failures.
    """

    def __init__(self, gpu: Gpu, trt: Any, messages: Messages) -> None:
        self.gpu = gpu
        self.trt = trt
        self.messages = messages
        # The engine's thread and the one that loads and checks modes both run engines, in the same memory.
        self.lock = threading.Lock()
        self.block = Block(gpu)
        ways = transfer(integrated=gpu.integrated, compute_capability=gpu.compute_capability)
        self.inputs = Passages(gpu, ways.inputs)
        self.outputs = Passages(gpu, ways.outputs)
        self.engines: weakref.WeakSet[TrtEngine] = weakref.WeakSet()

    def close_engines(self) -> None:
        """Close the engines that are still open."""
        for engine in list(self.engines):
            engine.close()

    def close(self) -> None:
        """Give back what engines shared; they are closed. The GPU stays open."""
        with self.lock, self.gpu.current():
            self.inputs.close()
            self.outputs.close()
            self.block.close()


class TrtEngine:
    """One mode. Made on any thread; runs are one at a time over all engines of a bench.

    Args:
        bench: what it shares with others.
        engine: TensorRT's, with one profile for one row and perhaps another for up to `most_rows`.
        most_rows: of one run; larger batches run in pieces.

    Raises:
        EngineError: TensorRT makes no context for it.
    """

    def __init__(self, bench: Bench, engine: Any, *, most_rows: int) -> None:
        self._bench = bench
        self._engine: Any = engine
        self._most_rows = most_rows
        self._tensors: List[Tensor] = tensors_of(bench.trt, engine)
        self._inputs = {tensor.name: tensor for tensor in self._tensors if tensor.is_input}
        self._outputs = {tensor.name: tensor for tensor in self._tensors if not tensor.is_input}
        self._memory = memory_of(engine)
        self._contexts: Dict[int, _Placed] = {0: self._open(0)}
        bench.engines.add(self)

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run one batch; see `Engine.infer`."""
        with self._bench.lock:
            if self._engine is None:
                raise EngineError("this engine is closed")
            rows = self._rows(inputs)
            results = {name: np.empty((rows, *one.row), one.dtype) for name, one in self._outputs.items()}
            moment = self._bench.messages.now()
            with self._explained(moment), self._bench.gpu.current():
                for start in range(0, rows, self._most_rows):
                    part = slice(start, min(start + self._most_rows, rows))
                    self._run(
                        {name: inputs[name][part] for name in self._inputs},
                        {name: value[part] for name, value in results.items()},
                    )
            return results

    def _run(self, inputs: Tensors, results: Tensors) -> None:
        rows = int(next(iter(inputs.values())).shape[0])
        bench = self._bench
        arriving = {name: bench.inputs.of(name, value.nbytes) for name, value in inputs.items()}
        leaving = {name: bench.outputs.of(name, value.nbytes) for name, value in results.items()}
        profile = 0 if rows == 1 else 1
        if profile not in self._contexts:  # not before a batch comes: each takes memory
            self._contexts[profile] = self._open(profile)
        bench.block.ensure(self._memory)
        context = self._contexts[profile].at(bench.block)
        addresses = {name: passage.address for name, passage in (*arriving.items(), *leaving.items())}
        try:
            for name, passage in arriving.items():
                passage.write(inputs[name])
            if not context.enqueue(rows, addresses):
                raise EngineError("it does not run this batch")
            for name, passage in leaving.items():
                passage.read(results[name])
        except BaseException:
            # What was asked for before may still read the memory that the next run writes to.
            with contextlib.suppress(EngineError):
                bench.gpu.synchronize()
            raise
        bench.gpu.synchronize()
        for name, passage in leaving.items():
            passage.finish(results[name])

    def _open(self, profile: int) -> "_Placed":
        bench = self._bench
        context = open_context(bench.trt, self._engine, profile=profile, tensors=self._tensors, stream=bench.gpu.stream)
        return _Placed(context)

    def _rows(self, inputs: Tensors) -> int:
        """How many rows every input has. Shapes are checked here, since bytes would be copied whatever they mean."""
        if set(inputs) != set(self._inputs):
            raise EngineError(f"TensorRT failed: given are {sorted(inputs)}, the mode reads {sorted(self._inputs)}")
        counts = set()
        for name, tensor in self._inputs.items():
            value = inputs[name]
            if value.ndim != len(tensor.row) + 1 or value.shape[1:] != tensor.row or value.dtype != tensor.dtype:
                raise EngineError(
                    f"TensorRT failed: '{name}' is {value.dtype} {value.shape}, the mode reads {tensor.dtype} "
                    f"(rows, {', '.join(map(str, tensor.row))})"
                )
            counts.add(int(value.shape[0]))
        if len(counts) != 1 or 0 in counts:
            raise EngineError(f"TensorRT failed: the inputs have {sorted(counts)} rows, and all must have as many")
        return counts.pop()

    @contextlib.contextmanager
    def _explained(self, moment: int) -> Iterator[None]:
        """Say of a failure what TensorRT said of it."""
        try:
            yield
        except (EngineError, *FAILURES) as error:
            raise EngineError(f"TensorRT failed: {error}{self._bench.messages.since(moment)}") from error

    def close(self) -> None:
        """Free the contexts, then the engine they belong to."""
        with self._bench.lock:
            if self._engine is None:
                return
            with self._bench.gpu.current():
                self._contexts.clear()
                self._engine = None


class _Placed:
    """A context and the memory it was told to use last."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._where: Optional[Tuple[int, int]] = None

    def at(self, block: Block) -> Context:
        """The context, computing in the block where it is now."""
        where = (block.address, block.size)
        if where != self._where:
            self._where = None
            self._context.use_memory(*where)
            self._where = where
        return self._context
