"""The doubles refuse misuse: every case here is caught with the checks on and passes unseen with them off.

What the real library answers with False and a line in its log stands in `test_double_refusals`.
"""

import contextlib
import threading
from typing import Any, Callable, Dict

import numpy as np
import pytest

from tests.doubles.board import ORIN_NANO
from tests.doubles.install import install
from tests.doubles.memory import Misuse
from tests.runtime.double_rig import SHAPE, Rig

Case = Callable[[Rig], Any]
CASES: Dict[str, Case] = {}
WITHOUT_MEMORY = set()


def case(says: str, *, own: bool = True) -> Callable[[Case], Case]:
    """Register a misuse under what the complaint must say."""

    def register(function: Case) -> Case:
        CASES[f"{function.__name__}|{says}"] = function
        if not own:
            WITHOUT_MEMORY.add(function.__name__)
        return function

    return register


@case("run past the end")
def an_output_buffer_too_small_for_the_shape(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    rig.small = rig.drv.mem_alloc(4)  # type: ignore[attr-defined]
    rig.execute(y=int(rig.small))  # type: ignore[attr-defined]


@case("run past the end")
def a_copy_larger_than_the_device_memory(rig: Rig) -> None:
    rig.drv.memcpy_htod(rig.device_out, rig.x)


@case("run past the end")
def a_copy_back_larger_than_the_device_memory(rig: Rig) -> None:
    rig.drv.memcpy_dtoh(np.empty(1000, np.float32), rig.device_out)


@case("was not written")
def an_input_that_was_copied_only_in_part(rig: Rig) -> None:
    rig.set_shape()
    rig.drv.memcpy_htod(rig.device_in, rig.x[:1])
    rig.execute()
    rig.stream.synchronize()


@case("holds float64")
def an_input_of_another_type(rig: Rig) -> None:
    rig.set_shape((1, *SHAPE))
    rig.drv.memcpy_htod(rig.device_in, rig.x[:1].astype(np.float64))
    rig.execute()
    rig.stream.synchronize()


@case("takes float32 for int32")
def an_output_taken_for_another_type(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    rig.execute()
    rig.drv.memcpy_dtoh(np.empty((2, 5), np.int32), rig.device_out)


@case("was freed")
def execution_on_freed_memory(rig: Rig) -> None:
    rig.set_shape()
    rig.drv.memcpy_htod(rig.device_in, rig.x)
    address = int(rig.device_out)
    rig.device_out.free()
    rig.device_out = rig.drv.mem_alloc(40)
    rig.execute(y=address)


@case("was freed")
def a_copy_to_freed_memory(rig: Rig) -> None:
    address = int(rig.device_in)
    rig.device_in.free()
    rig.device_in = rig.drv.mem_alloc(4)
    rig.drv.memcpy_htod(address, rig.x)


@case("freed while in use")
def memory_freed_before_the_copy_into_it_was_waited_for(rig: Rig) -> None:
    rig.send()
    rig.device_in.free()
    rig.device_in = rig.drv.mem_alloc(4)


@case("freed while in use")
def an_engine_dropped_while_it_runs(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    rig.execute()
    rig.context = rig.engine = None


@case("freed while in use", own=False)
def the_device_memory_block_freed_while_in_use(rig: Rig) -> None:
    block = rig.drv.mem_alloc(rig.memory_size)
    rig.set_memory(int(block))
    rig.set_shape()
    rig.send()
    rig.execute()
    block.free()


@case("was freed", own=False)
def execution_with_a_freed_device_memory_block(rig: Rig) -> None:
    block = rig.drv.mem_alloc(rig.memory_size)
    rig.set_memory(int(block))
    rig.set_shape()
    rig.send()
    block.free()
    rig.execute()


@case("races with")
def two_streams_that_share_an_input(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    rig.other = rig.drv.Stream()  # type: ignore[attr-defined]
    rig.execute(stream=rig.other.handle)  # type: ignore[attr-defined]


@case("races with", own=False)
def two_contexts_that_share_device_memory_at_once(rig: Rig) -> None:
    rig.drv.memcpy_htod(rig.device_in, rig.x)
    rig.block = rig.drv.mem_alloc(rig.memory_size)  # type: ignore[attr-defined]
    rig.more = rig.drv.mem_alloc(40)  # type: ignore[attr-defined]
    rig.twin, rig.other = rig.runtime.deserialize_cuda_engine(rig.plan), rig.drv.Stream()  # type: ignore[attr-defined]
    rig.second = rig.twin.create_execution_context_without_device_memory()  # type: ignore[attr-defined]
    for context in (rig.context, rig.second):  # type: ignore[attr-defined]
        rig.set_memory(int(rig.block), context)  # type: ignore[attr-defined]
        rig.set_shape(context=context)
    rig.execute()
    rig.execute(context=rig.second, stream=rig.other.handle, y=int(rig.more))  # type: ignore[attr-defined]


@case("run past the end", own=False)
def device_memory_smaller_than_the_engine_needs(rig: Rig) -> None:
    rig.block = rig.drv.mem_alloc(rig.memory_size - 1)  # type: ignore[attr-defined]
    rig.set_memory(int(rig.block))  # type: ignore[attr-defined]


@case("is not aligned", own=False)
def device_memory_that_is_not_aligned(rig: Rig) -> None:
    rig.block = rig.drv.mem_alloc(rig.memory_size + 128)  # type: ignore[attr-defined]
    rig.set_memory(int(rig.block) + 128)  # type: ignore[attr-defined]


@case("has its own")
def device_memory_for_a_context_that_has_its_own(rig: Rig) -> None:
    rig.block = rig.drv.mem_alloc(rig.memory_size)  # type: ignore[attr-defined]
    rig.set_memory(int(rig.block))  # type: ignore[attr-defined]


@case("changed while the context runs".replace("changed", "is changed"), own=False)
def device_memory_changed_while_the_context_runs(rig: Rig) -> None:
    rig.block = rig.drv.mem_alloc(rig.memory_size)  # type: ignore[attr-defined]
    rig.set_memory(int(rig.block))  # type: ignore[attr-defined]
    rig.set_shape()
    rig.send()
    rig.execute()
    rig.set_memory(int(rig.block))  # type: ignore[attr-defined]


@case("overlap")
def an_output_on_top_of_the_input(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    rig.execute(y=int(rig.device_in))


@case("changed before the copy was waited for")
def an_input_overwritten_before_its_copy(rig: Rig) -> None:
    rig.send()
    rig.host_in[:] = 0
    rig.stream.synchronize()


@case("changed before the execution was waited for")
def a_mapped_input_overwritten_before_the_execution(rig: Rig) -> None:
    rig.mapped = rig.drv.pagelocked_empty(  # type: ignore[attr-defined]
        rig.x.shape, np.float32, mem_flags=rig.drv.host_alloc_flags.DEVICEMAP
    )
    rig.mapped[:] = rig.x  # type: ignore[attr-defined]
    rig.set_shape()
    rig.execute(x=rig.mapped.base.get_device_pointer())  # type: ignore[attr-defined]
    rig.mapped[:] = 0  # type: ignore[attr-defined]
    rig.stream.synchronize()


@case("not page-locked")
def an_asynchronous_copy_from_pageable_memory(rig: Rig) -> None:
    rig.drv.memcpy_htod_async(rig.device_in, rig.x, rig.stream)


@case("not page-locked")
def an_asynchronous_copy_into_pageable_memory(rig: Rig) -> None:
    rig.drv.memcpy_dtoh_async(np.empty((2, 5), np.float32), rig.device_out, rig.stream)


@case("used after it was freed")
def page_locked_memory_used_after_it_was_freed(rig: Rig) -> None:
    array = rig.drv.pagelocked_empty(rig.x.shape, np.float32)
    array.base.free()
    rig.drv.memcpy_htod_async(rig.device_in, array, rig.stream)


@case("was destroyed")
def a_destroyed_stream(rig: Rig) -> None:
    rig.set_shape()
    rig.drv.memcpy_htod(rig.device_in, rig.x)
    stream = rig.drv.Stream()
    handle = stream.handle
    del stream
    rig.execute(stream=handle)


@case("belongs to another context")
def a_stream_of_another_context(rig: Rig) -> None:
    rig.set_shape()
    rig.drv.memcpy_htod(rig.device_in, rig.x)
    other = rig.drv.Device(0).make_context()
    stream = rig.drv.Stream()
    other.pop()
    try:
        rig.execute(stream=stream.handle)
    finally:
        other.push()
        del stream
        other.detach()


@case("belongs to another context")
def memory_of_another_context(rig: Rig) -> None:
    other = rig.drv.Device(0).make_context()
    memory = rig.drv.mem_alloc(1000)
    other.pop()
    try:
        rig.drv.memcpy_htod(memory, rig.x[0, 0])
    finally:
        other.push()
        memory.free()
        other.detach()


@case("in another CUDA context")
def execution_under_another_context_than_the_engines(rig: Rig) -> None:
    rig.set_shape()
    other = rig.drv.Device(0).make_context()
    stream = rig.drv.Stream()
    try:
        rig.context.set_optimization_profile_async(0, stream.handle)
    finally:
        del stream
        other.detach()


@case("pycuda leaks it")
def memory_freed_on_a_thread_without_its_context(rig: Rig) -> None:
    memory, found = rig.drv.mem_alloc(4), []

    def free() -> None:
        try:
            memory.free()
        except Misuse as error:
            found.append(error)

    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    if found:
        raise found[0]


@case("after its context")
def memory_freed_after_its_context(rig: Rig) -> None:
    other = rig.drv.Device(0).make_context()
    memory = rig.drv.mem_alloc(4)
    other.detach()
    memory.free()


@case("parsed into twice")
def a_network_parsed_into_twice(rig: Rig) -> None:
    from tests.runtime.double_rig import small_model

    builder = rig.trt.Builder(rig.logger)
    network = builder.create_network(1)
    for _ in range(2):
        rig.trt.OnnxParser(network, rig.logger).parse(small_model())


@case("of another builder")
def a_configuration_of_another_builder(rig: Rig) -> None:
    one, other = rig.trt.Builder(rig.logger), rig.trt.Builder(rig.logger)
    one.build_serialized_network(one.create_network(1), other.create_builder_config())


@case("the logger raised")
def a_logger_that_raises(rig: Rig) -> None:
    class Broken(rig.trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            rig.trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            raise ValueError("no")

    rig.trt.Runtime(Broken()).deserialize_cuda_engine(b"not a plan")


@case("has no output 7")
def an_output_type_for_an_output_that_a_layer_lacks(rig: Rig) -> None:
    from tests.runtime.double_rig import small_model

    network = rig.trt.Builder(rig.logger).create_network(1)
    rig.trt.OnnxParser(network, rig.logger).parse(small_model())
    network.get_layer(0).set_output_type(7, rig.trt.DataType.FLOAT)


def attempt(monkeypatch: pytest.MonkeyPatch, version: str, name: str, *, checks: bool) -> "list[str]":
    """What was complained of."""
    double = install(monkeypatch, version, board=ORIN_NANO, checks=checks)
    function = CASES[name]
    rig = Rig(double, own=function.__name__ not in WITHOUT_MEMORY)
    try:
        function(rig)
    except Misuse:
        assert checks
    assert double.gpu is not None
    return double.gpu.misuses


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", ["8.2.1", "10.3.0"])
def test_misuse_is_caught(monkeypatch: pytest.MonkeyPatch, version: str, name: str) -> None:
    complaints = attempt(monkeypatch, version, name, checks=True)
    assert complaints, "nothing was noticed"
    assert name.partition("|")[2] in complaints[0]


@pytest.mark.parametrize("name", CASES)
def test_without_the_checks_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # NumPy or ONNX Runtime stumbles where real memory would be overrun.
    with contextlib.suppress(ValueError, IndexError, TypeError, RuntimeError):
        assert attempt(monkeypatch, "8.2.1", name, checks=False) == []


def test_misuse_that_is_swallowed_is_raised_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    double = install(monkeypatch, "8.2.1")
    rig = Rig(double)
    with pytest.raises(Misuse):
        rig.drv.memcpy_htod(rig.device_out, rig.x)
    rig.close()
    with pytest.raises(Misuse, match="run past the end"):
        double.assert_all_freed()


def test_what_is_used_rightly_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    double = install(monkeypatch, "8.2.1")
    rig = Rig(double)
    rig.set_shape()
    rig.send()
    assert rig.execute()
    assert np.isfinite(rig.receive()).all()
    rig.close()
    double.assert_all_freed()
