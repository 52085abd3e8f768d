"""One interface over both bindings of CUDA, on their test doubles; and how tensors pass on which kind of GPU."""

import contextlib
import functools
import sys
import threading
from typing import Any, Iterator, List, Tuple

import numpy as np
import pytest

from tests.doubles.board import DISCRETE, NANO, ORIN_NANO
from tests.doubles.install import Double, install
from tests.runtime.fakes import PATIENCE_S
from wenet_runtime.engines.cuda import Gpu, open_gpu, transfer
from wenet_runtime.errors import EngineError

BINDINGS = {"pycuda": "PycudaGpu", "cuda-python": "RuntimeGpu"}


@pytest.mark.parametrize(
    ("integrated", "capability", "wanted"),
    [
        (False, (5, 3), ("pinned", "pinned")),
        (False, (8, 6), ("pinned", "pinned")),
        (True, (5, 3), ("mapped", "pageable")),  # Nano
        (True, (6, 2), ("mapped", "pageable")),  # TX2
        (True, (7, 2), ("mapped", "mapped")),  # Xavier
        (True, (8, 7), ("mapped", "mapped")),  # Orin
        (True, (11, 0), ("mapped", "mapped")),  # Thor
    ],
)
def test_how_tensors_pass(integrated: bool, capability: Tuple[int, int], wanted: Tuple[str, str]) -> None:
    assert transfer(integrated=integrated, compute_capability=capability) == wanted


@pytest.fixture(params=sorted(BINDINGS))
def double(request: Any, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(monkeypatch, "8.2.1", cuda=request.param)


@pytest.fixture
def gpu(double: Double) -> Iterator[Gpu]:
    one = open_gpu()
    yield one
    one.close()
    double.assert_all_freed()


class TestOpening:
    @pytest.mark.parametrize("binding", sorted(BINDINGS))
    @pytest.mark.parametrize("board", [NANO, ORIN_NANO, DISCRETE], ids=lambda board: str(board.name))
    def test_it_says_what_the_gpu_is(self, binding: str, board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", board=board, cuda=binding)
        one = open_gpu()
        assert type(one).__name__ == BINDINGS[binding]
        assert (one.name, one.compute_capability) == (board.name, board.compute_capability)
        assert one.integrated is board.integrated
        one.close()

    def test_pycuda_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", cuda="cuda-python")
        newer = {name: sys.modules[name] for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime")}
        install(monkeypatch, "8.2.1", cuda="pycuda")
        for name, module in newer.items():
            monkeypatch.setitem(sys.modules, name, module)
        one = open_gpu()
        assert type(one).__name__ == "PycudaGpu"
        one.close()

    def test_an_older_cuda_python_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", cuda="cuda-python")
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
        one = open_gpu()
        assert type(one).__name__ == "RuntimeGpu"
        one.close()

    def test_without_a_binding_it_says_which_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", cuda="none")
        with pytest.raises(EngineError, match=r"install pycuda .* or cuda-python"):
            open_gpu()

    @pytest.mark.parametrize("binding", sorted(BINDINGS))
    def test_without_a_gpu_it_says_so(self, binding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", board=None, cuda=binding)
        with pytest.raises(EngineError, match=r"cannot use the GPU: .*(no CUDA-capable device|InsufficientDriver)"):
            open_gpu()

    def test_a_driver_without_a_device_is_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", cuda="pycuda")
        monkeypatch.setattr(sys.modules["pycuda.driver"].Device, "count", staticmethod(lambda: 0))
        with pytest.raises(EngineError, match="no NVIDIA GPU is here"):
            open_gpu()
        install(monkeypatch, "8.2.1", cuda="cuda-python")
        runtime = sys.modules["cuda.bindings.runtime"]
        monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (runtime.cudaError_t.cudaSuccess, 0))
        with pytest.raises(EngineError, match="no NVIDIA GPU is here"):
            open_gpu()

    def test_a_driver_that_cannot_be_loaded_is_an_engine_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", cuda="cuda-python")

        def missing() -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")

        monkeypatch.setattr(sys.modules["cuda.bindings.runtime"], "cudaGetDeviceCount", missing)
        with pytest.raises(EngineError, match=r"cannot use the GPU: Failed to dlopen libcuda\.so\.1"):
            open_gpu()


class TestMemory:
    @pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
    def test_what_is_uploaded_is_downloaded(self, gpu: Gpu, shape: Tuple[int, ...]) -> None:
        value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        with gpu.current():
            address = gpu.allocate(value.nbytes)
            there, back = (gpu.allocate_host(value.nbytes, mapped=False) for _ in range(2))
            np.copyto(there.array.view(np.float32).reshape(shape), value)
            gpu.upload(address, there.array.view(np.float32))
            gpu.download(back.array.view(np.float32), address)
            gpu.synchronize()
            assert np.array_equal(back.array.view(np.float32).reshape(shape), value)
            fetched = np.empty_like(value)
            gpu.fetch(fetched, address)
            assert np.array_equal(fetched, value)
            gpu.free(address)
            gpu.free_host(there)
            gpu.free_host(back)

    def test_mapped_memory_has_an_address_on_the_gpu_and_pinned_memory_has_none(self, gpu: Gpu) -> None:
        with gpu.current():
            mapped, pinned = gpu.allocate_host(64, mapped=True), gpu.allocate_host(64, mapped=False)
            assert mapped.address
            assert not pinned.address
            mapped.array[:] = 7
            found = np.empty(64, np.uint8)
            gpu.fetch(found, mapped.address)
            assert (found == 7).all()
            gpu.free_host(mapped)
            gpu.free_host(pinned)

    def test_memory_is_taken_and_given_back(self, gpu: Gpu) -> None:
        with gpu.current():
            before = gpu.free_bytes()
            address = gpu.allocate(1 << 20)
            assert address % 256 == 0
            assert gpu.free_bytes() <= before - (1 << 20)
            gpu.free(address)
            assert gpu.free_bytes() == before

    @pytest.mark.parametrize("what", ["the GPU's memory", "pinned memory"])
    def test_too_much_is_an_engine_error(self, gpu: Gpu, what: str) -> None:
        take = gpu.allocate if what == "the GPU's memory" else functools.partial(gpu.allocate_host, mapped=False)
        with gpu.current(), pytest.raises(EngineError, match=f"cannot take {1 << 40} bytes of {what}: .*[mM]emory"):
            take(1 << 40)


class TestThreads:
    def test_a_thread_that_did_not_open_it_uses_it_and_gives_its_memory_back(self, gpu: Gpu) -> None:
        with gpu.current():
            address, memory = gpu.allocate(64), gpu.allocate_host(64, mapped=False)
        failures: List[BaseException] = []

        def work() -> None:
            try:
                with gpu.current():
                    gpu.upload(address, memory.array)
                    gpu.synchronize()
                    gpu.free(address)
                    gpu.free_host(memory)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test's thread must hear of it
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(PATIENCE_S)
        assert failures == []

    def test_it_may_be_current_within_itself_and_after_a_failure(self, gpu: Gpu) -> None:
        with gpu.current():
            with contextlib.suppress(EngineError), gpu.current():
                gpu.allocate(1 << 40)
            gpu.free(gpu.allocate(64))

    def test_closing_twice_is_harmless(self, gpu: Gpu) -> None:
        gpu.close()
        gpu.close()

    def test_pycuda_does_nothing_where_it_is_not_current(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, "8.2.1", cuda="pycuda")
        one = open_gpu()
        with pytest.raises(EngineError, match="no currently active context"):
            one.allocate(64)
        one.close()
