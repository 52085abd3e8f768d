"""The CUDA doubles: streams, events, copies, pycuda's and cuda-python's own ways."""

import ctypes
import threading
from typing import Any, Iterator

import numpy as np
import pytest

from tests.doubles.board import DISCRETE, NANO, ORIN_NANO
from tests.doubles.install import Double, install
from tests.doubles.memory import Misuse
from tests.runtime.double_rig import Rig


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(monkeypatch, "8.2.1", board=NANO)


@pytest.fixture
def rig(double: Double) -> Iterator[Rig]:
    one = Rig(double)
    yield one
    one.close()
    double.assert_all_freed()


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> Any:
    double = install(monkeypatch, "10.3.0", board=ORIN_NANO, cuda="cuda-python")
    from cuda import cudart as found

    found.double = double
    return found


def good(answer: Any) -> Any:
    """What a call of cuda-python gives beside its error."""
    assert int(answer[0]) == 0
    return answer[1] if len(answer) == 2 else answer[1:]


# Streams and events of pycuda.


def test_an_event_orders_two_streams(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    event, other = rig.drv.Event().record(rig.stream), rig.drv.Stream()
    assert not event.query()
    other.wait_for_event(event)
    assert rig.execute(stream=other.handle)
    other.synchronize()
    assert event.query()
    assert np.isfinite(rig.receive()).all()
    del other


def test_an_event_orders_nothing_that_came_after_it(rig: Rig) -> None:
    rig.set_shape()
    event, other = rig.drv.Event().record(rig.stream), rig.drv.Stream()
    rig.send()
    other.wait_for_event(event)
    with pytest.raises(Misuse, match="races with"):
        rig.execute(stream=other.handle)
    rig.double.gpu.misuses.clear()  # type: ignore[union-attr]
    del other


def test_waiting_for_an_event_runs_what_came_before_it_only(rig: Rig) -> None:
    rig.send()
    event = rig.drv.Event().record(rig.stream)
    rig.set_shape()
    rig.execute()
    event.synchronize()
    assert event.query()
    assert not rig.stream.is_done()
    rig.stream.synchronize()
    assert rig.stream.is_done()


def test_the_double_measures_no_time(rig: Rig) -> None:
    with pytest.raises(NotImplementedError, match="measures no time"):
        rig.drv.Event().time_since(rig.drv.Event())


def test_the_default_stream_waits_for_the_others(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    assert rig.context.execute_v2([int(rig.device_in), int(rig.device_out)])
    back = np.empty((2, 5), np.float32)
    rig.drv.memcpy_dtoh(back, rig.device_out)
    assert np.isfinite(back).all()


def test_synchronising_the_context_runs_everything(rig: Rig) -> None:
    rig.send()
    rig.drv.Context.synchronize()
    assert rig.stream.is_done()


# Copies.


def test_copies_on_the_device_and_memset(rig: Rig) -> None:
    one, two = rig.drv.mem_alloc(8), rig.drv.mem_alloc(8)
    rig.drv.memset_d8(one, 1, 8)
    rig.drv.memcpy_dtod(two, one, 8)
    back = np.empty(8, np.uint8)
    rig.drv.memcpy_dtoh(back, two)
    assert (back == 1).all()
    rig.drv.memset_d8_async(one, 2, 8, rig.stream)
    rig.drv.memcpy_dtod_async(two, one, 8, rig.stream)
    rig.stream.synchronize()
    rig.drv.memcpy_dtoh(back, int(two))
    assert (back == 2).all()
    one.free()
    two.free()


def test_a_copy_needs_contiguous_and_writable_memory(rig: Rig) -> None:
    with pytest.raises(ValueError, match="not C-contiguous"):
        rig.drv.memcpy_htod(rig.device_in, np.ones((4, 4), np.float32).T[:2])
    with pytest.raises(BufferError):
        rig.drv.memcpy_dtoh(bytes(4), rig.device_out)
    with pytest.raises(TypeError):
        rig.drv.memcpy_htod("here", rig.x)


def test_page_locked_arrays_are_arrays_whose_base_owns_them(rig: Rig) -> None:
    array = rig.drv.pagelocked_zeros((2, 3), np.float16, mem_flags=rig.drv.host_alloc_flags.DEVICEMAP)
    assert (array.shape, array.dtype, float(array.sum())) == ((2, 3), np.float16, 0.0)
    assert array.base.get_flags() == rig.drv.host_alloc_flags.DEVICEMAP
    assert array.base.get_device_pointer() != array.ctypes.data
    view = array[1:]
    del array
    assert rig.double.gpu is not None
    assert any(block.owner == "page-locked host memory" for block in rig.double.gpu.memory.live)
    del view


# pycuda's device and contexts.


def test_the_device_is_the_board(rig: Rig) -> None:
    device = rig.drv.Device(0)
    assert rig.drv.Device.count() == 1
    assert device.name() == NANO.name
    assert device.compute_capability() == (5, 3)
    assert device.total_memory() == NANO.memory_bytes
    assert device.get_attribute(rig.drv.device_attribute.INTEGRATED) == 1
    with pytest.raises(rig.drv.LogicError):
        rig.drv.Device(1)
    with pytest.raises(NotImplementedError):
        device.get_attribute(7)


def test_popping_more_than_was_pushed_is_an_error(rig: Rig) -> None:
    rig.drv.Context.pop()
    with pytest.raises(rig.drv.LogicError):
        rig.drv.Context.pop()
    rig.cuda.push()


def test_the_primary_context_lives_as_long_as_somebody_retains_it(double: Double) -> None:
    rig = Rig(double)
    other = rig.drv.Device(0).retain_primary_context()
    other.detach()
    rig.set_shape()
    rig.send()
    assert rig.execute()
    rig.close()
    with pytest.raises(rig.drv.LogicError):
        rig.cuda.detach()
    with pytest.raises(rig.drv.LogicError):
        rig.cuda.push()
    double.assert_all_freed()


def test_another_thread_works_once_the_context_is_pushed_there(rig: Rig) -> None:
    found = []

    def run() -> None:
        rig.cuda.push()
        rig.set_shape()
        rig.send()
        rig.execute()
        found.append(np.isfinite(rig.receive()).all())
        rig.drv.Context.pop()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [True]


# cuda-python.


def test_cuda_python_describes_the_device(cudart: Any) -> None:
    assert good(cudart.cudaGetDeviceCount()) == 1
    assert good(cudart.cudaGetDevice()) == 0
    properties = good(cudart.cudaGetDeviceProperties(0))
    assert (properties.name, properties.major, properties.minor) == (b"Orin", 8, 7)
    assert good(cudart.cudaDeviceGetAttribute(cudart.cudaDeviceAttr.cudaDevAttrIntegrated, 0)) == 1
    assert good(cudart.cudaMemGetInfo()) == (ORIN_NANO.memory_bytes, ORIN_NANO.memory_bytes)
    assert good(cudart.cudaGetErrorName(cudart.cudaError_t.cudaErrorNoDevice)) == b"cudaErrorNoDevice"
    assert cudart.cudaSetDevice(1)[0] == cudart.cudaError_t.cudaErrorInvalidDevice
    assert good(cudart.cudaSetDevice(0)) == ()


def test_cuda_python_tells_of_a_machine_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.3.0", board=None, cuda="cuda-python")
    from cuda import cudart

    assert cudart.cudaGetDeviceCount() == (cudart.cudaError_t.cudaErrorInsufficientDriver, 0)


def test_cuda_python_answers_with_errors_rather_than_raising(cudart: Any) -> None:
    error = cudart.cudaError_t
    assert cudart.cudaMalloc(ORIN_NANO.memory_bytes + 1) == (error.cudaErrorMemoryAllocation, 0)
    assert cudart.cudaHostAlloc(ORIN_NANO.memory_bytes + 1, 0) == (error.cudaErrorMemoryAllocation, 0)
    pinned = good(cudart.cudaMallocHost(8))
    assert cudart.cudaHostGetDevicePointer(pinned, 0) == (error.cudaErrorInvalidValue, 0)
    good(cudart.cudaFreeHost(pinned))
    good(cudart.cudaFree(0))
    cudart.double.assert_all_freed()


def test_cuda_python_copies_every_way(cudart: Any) -> None:
    kind = cudart.cudaMemcpyKind
    one, two = good(cudart.cudaMalloc(8)), good(cudart.cudaMalloc(8))
    numbers = np.arange(8, dtype=np.uint8)
    back = np.zeros_like(numbers)
    good(cudart.cudaMemcpy(one, numbers.ctypes.data, 8, kind.cudaMemcpyHostToDevice))
    good(cudart.cudaMemcpy(two, one, 8, kind.cudaMemcpyDeviceToDevice))
    good(cudart.cudaMemcpy(back.ctypes.data, two, 8, kind.cudaMemcpyDeviceToHost))
    np.testing.assert_array_equal(back, numbers)
    stream, event = good(cudart.cudaStreamCreate()), good(cudart.cudaEventCreate())
    other = good(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
    good(cudart.cudaMemsetAsync(one, 7, 8, stream))
    good(cudart.cudaEventRecord(event, stream))
    good(cudart.cudaStreamWaitEvent(other, event, 0))
    good(cudart.cudaMemcpyAsync(two, one, 8, kind.cudaMemcpyDeviceToDevice, other))
    good(cudart.cudaEventSynchronize(event))
    good(cudart.cudaDeviceSynchronize())
    good(cudart.cudaMemcpy(back.ctypes.data, two, 8, kind.cudaMemcpyDeviceToHost))
    assert (back == 7).all()
    with pytest.raises(TypeError):
        cudart.cudaMemcpy(two, one, 8, 3)
    good(cudart.cudaEventDestroy(event))
    for each in (one, two):
        good(cudart.cudaFree(each))
    for each in (stream, other):
        good(cudart.cudaStreamDestroy(each))
    cudart.double.assert_all_freed()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda rt, address: rt.cudaFree(address + 4), "cudaMalloc did not give"),
        (lambda rt, address: (rt.cudaFree(address), rt.cudaFree(address)), "freed twice"),
        (lambda rt, address: rt.cudaFreeHost(address), "cudaHostAlloc did not give"),
        (lambda rt, address: [rt.cudaStreamDestroy(one) for one in [rt.cudaStreamCreate()[1]] * 2], "was destroyed"),
        (lambda rt, address: rt.cudaMemcpyAsync(address, unpinned(), 8, rt.cudaMemcpyKind(1), None), "not page-locked"),
    ],
)
def test_cuda_python_used_wrongly_is_caught(cudart: Any, how: Any, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        how(cudart, good(cudart.cudaMalloc(8)))
    with pytest.raises(Misuse, match=says):
        cudart.double.assert_all_freed()


KEPT = (ctypes.c_uint8 * 8)()


def unpinned() -> int:
    return ctypes.addressof(KEPT)


def test_boards_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    for board in (NANO, DISCRETE):
        trt = install(monkeypatch, "8.2.1", board=board).tensorrt
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        assert builder.platform_has_fast_fp16
        assert builder.platform_has_fast_int8 is (board is DISCRETE)
        assert builder.platform_has_tf32 is (board is DISCRETE)


def test_the_librarys_own_logger_keeps_what_is_severe_enough(double: Double) -> None:
    trt = double.tensorrt
    logger = trt.Logger(trt.Logger.ERROR)
    logger.log(trt.Logger.WARNING, "no")
    logger.log(trt.Logger.ERROR, "yes")
    assert [text for _, text in logger._lines] == ["yes"]
    with pytest.raises(TypeError):
        logger.min_severity = 3
