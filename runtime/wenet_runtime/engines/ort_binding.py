"""An ONNX Runtime session whose inputs and outputs stay where the device computes, in buffers that are used again.

It works with any device that ONNX Runtime can copy to, "cpu" too, which is how most of it is tested.
"""

import contextlib
import logging
import threading
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.base import Tensors
from wenet_runtime.engines.ort_session import FAILURES, onnxruntime
from wenet_runtime.errors import EngineError

KEPT = 8  # batch sizes of one mode that have buffers, and graphs, at a time
MOST_CAPTURES = 64  # of one session: a captured graph stays in its session, also when its buffers have gone
GRAPH_ID = "gpu_graph_id"  # of a run, since ONNX Runtime 1.18; 0 is reserved
NO_GRAPH = "-1"  # neither capture nor replay

_LOG = logging.getLogger(__name__)

Signature = Tuple[Tuple[str, str, Tuple[int, ...]], ...]


class CaptureGate:
    """Keeps whatever else touches the device from going on while a thread captures a CUDA graph.

    ONNX Runtime captures in CUDA's global mode, where an allocation by any thread spoils the capture. So a
    capture starts only when nothing else goes on, and the others wait for its end, some runs long. Nobody waits
    for a chance to capture: who finds the device in use runs without, and captures another time.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._others = 0
        self._capturing = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Use the device beside others, once no capture goes on."""
        with self._changed:
            while self._capturing:
                self._changed.wait()
            self._others += 1
        try:
            yield
        finally:
            with self._changed:
                self._others -= 1

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Use the device alone. Gives False, at once, where it is in use."""
        with self._changed:
            granted = not self._capturing and not self._others
            self._capturing = self._capturing or granted
        try:
            yield granted
        finally:
            if granted:
                with self._changed:
                    self._capturing = False
                    self._changed.notify_all()


class Buffers:
    """The inputs and outputs of one session for inputs of one signature, at addresses that never change.

    Args:
        session: the session.
        device: where the buffers lie, as ONNX Runtime names it.
        inputs, outputs: values of the sizes and types that the buffers get.
        graph_id: what its captured graph is called; never used twice in a session.
    """

    def __init__(
        self, session: "onnxruntime.InferenceSession", device: str, inputs: Tensors, outputs: Tensors, graph_id: int
    ) -> None:
        self.graph_id = graph_id
        self._binding = session.io_binding()
        self._inputs = {name: _empty_like(value, device) for name, value in inputs.items()}
        self._outputs = {name: _empty_like(value, device) for name, value in outputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._captured = threading.local()

    @property
    def captured(self) -> bool:
        """Whether this thread has captured a graph of it: a session keeps a thread's graphs apart from others'."""
        return getattr(self._captured, "done", False)

    def run(
        self, session: "onnxruntime.InferenceSession", inputs: Tensors, options: "onnxruntime.RunOptions"
    ) -> Dict[str, NDArray[Any]]:
        """Copy the inputs in, run, copy the outputs out."""
        for name, buffer in self._inputs.items():
            buffer.update_inplace(np.ascontiguousarray(inputs[name]))  # some versions read any other layout as this one
        # A copy from ordinary memory may return before it has arrived, and the session's stream waits for no other.
        self._binding.synchronize_inputs()
        session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()
        # Copied: what some version gives may be the buffer itself, which the next run overwrites.
        return {name: np.array(buffer.numpy()) for name, buffer in self._outputs.items()}

    def mark_captured(self) -> None:
        """This thread has captured its graph."""
        self._captured.done = True


class BoundEngine:
    """One mode as an ONNX Runtime session with buffers on a device for each batch size that occurs.

    Args:
        open_session: opens the session, with CUDA graphs or without. Called again, without, when a capture fails.
        name: of the mode, for messages.
        device: where buffers lie, as ONNX Runtime names it.
        graphs: whether the session captures and replays CUDA graphs.
        gate: what all engines on the device share.
        kept: how many batch sizes have buffers at a time; the least recently used go first.
    """

    def __init__(
        self,
        open_session: "Callable[[bool], onnxruntime.InferenceSession]",
        name: str,
        device: str,
        *,
        graphs: bool,
        gate: CaptureGate,
        kept: int = KEPT,
    ) -> None:
        self._open_session = open_session
        self._name = name
        self._device = device
        self._graphs = graphs
        self._gate = gate
        self._kept = kept
        self._buffers: OrderedDict[Signature, Buffers] = OrderedDict()  # least recently used first
        self._captures = 0
        self._next_id = 1
        with gate.shared():
            self._session: Any = open_session(graphs)
        self._outputs: List[str] = [output.name for output in self._session.get_outputs()]

    def infer(self, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run one batch; see `Engine.infer`.

        The first batch of a size runs without buffers: the session checks it and says what its answers look like.
        """
        if self._session is None:
            raise EngineError("this engine is closed")
        signature = signature_of(inputs)
        try:
            buffers = self._buffers.get(signature)
            if buffers is None:
                return self._first(inputs, signature)
            self._buffers.move_to_end(signature)
            return self._again(buffers, inputs)
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def _first(self, inputs: Tensors, signature: Signature) -> Dict[str, NDArray[Any]]:
        with self._gate.shared():
            values = self._session.run(self._outputs, inputs, run_options(NO_GRAPH if self._graphs else None))
            answers = dict(zip(self._outputs, values))
            if all(value.size for value in (*inputs.values(), *answers.values())):
                while len(self._buffers) >= self._kept:
                    self._forget(self._buffers.popitem(last=False)[1])
                self._buffers[signature] = Buffers(self._session, self._device, inputs, answers, self._next_id)
                self._next_id += 1
        return answers

    def _again(self, buffers: Buffers, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        if self._graphs and not buffers.captured and self._captures < MOST_CAPTURES:
            with self._gate.alone() as alone:
                if alone:
                    return self._capture(buffers, inputs)
        with self._gate.shared():
            graph_id = str(buffers.graph_id) if buffers.captured else NO_GRAPH
            return buffers.run(self._session, inputs, run_options(graph_id if self._graphs else None))

    def _capture(self, buffers: Buffers, inputs: Tensors) -> Dict[str, NDArray[Any]]:
        """Run once more, which warms up, captures and replays; where that fails, go on without graphs.

        A capture that broke off leaves its session unusable, so that it is opened again.
        """
        self._captures += 1
        try:
            answers = buffers.run(self._session, inputs, run_options(str(buffers.graph_id)))
        except FAILURES as error:
            _LOG.warning("mode '%s' runs without CUDA graphs, because it cannot be captured: %s", self._name, error)
            self.close()  # for good, unless it can be opened again
            self._graphs = False
            self._session = self._open_session(False)
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs)))
        buffers.mark_captured()
        return answers

    def _forget(self, buffers: Buffers) -> None:
        release = getattr(self._session, "release_captured_graph", None)  # some versions can
        if self._graphs and release is not None:
            release(buffers.graph_id)

    def close(self) -> None:
        """Drop the buffers, then the session."""
        self._buffers.clear()
        self._session = None


def signature_of(inputs: Tensors) -> Signature:
    """What buffers must agree in to be used for these inputs."""
    return tuple((name, value.dtype.str, value.shape) for name, value in sorted(inputs.items()))


def run_options(graph_id: Optional[str]) -> "Optional[onnxruntime.RunOptions]":
    """Options of a run that captures or replays this graph; None where a session knows no graphs."""
    if graph_id is None:
        return None
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(GRAPH_ID, graph_id)
    return options


def _empty_like(value: NDArray[Any], device: str) -> "onnxruntime.OrtValue":
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(value.shape), value.dtype.type, device)
