"""Energy of a graphics card by NVIDIA's management library. It sees neither the processor nor the rest of the machine.

On a Jetson the library answers that it does not know: its rails are read by `ina3221` and `tegrastats`.
"""

import os
import time
from typing import Any, Callable, Mapping, Optional

from wenet_runtime.board import Board, read_board
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import MeterState
from wenet_runtime.meters.sampler import CounterReset, PolledMeter
from wenet_runtime.meters.trace import PowerTrace

INTERVAL_S = 0.1
NAMES = ("GPU-", "MIG-")  # what a name starts with where it is no number


class NvmlMeter(PolledMeter):
    """Energy of the first GPU that this process may use, by its counter; by its power where it has none.

    That power is a mean over the last second on many cards, so that only energies of windows of many seconds mean
    anything without a counter.

    Args:
        board: what this runs on; read if not given.
        environ: its `CUDA_VISIBLE_DEVICES` says which GPU; its `CUDA_DEVICE_ORDER`, whether CUDA counts as NVML does.
        interval_s: time between readings.
        clock: the monotonic clock.

    Raises:
        MeterError: this is a Jetson, the library or a GPU is missing, or the GPU tells neither energy nor power.
    """

    def __init__(
        self,
        *,
        board: Optional[Board] = None,
        environ: Mapping[str, str] = os.environ,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if (board or read_board()).tegra:
            raise MeterError("NVML tells no power of a Jetson: choose ina3221 or tegrastats")
        self._nvml = nvml = _started()
        try:
            handle = _device(nvml, environ)
            several = nvml.nvmlDeviceGetCount() > 1 and not _counted_alike(environ)
            counts = _answers(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            if not counts and not _answers(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)):
                raise MeterError("this GPU tells neither its energy nor its power")
            name = _text(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError as error:
            nvml.nvmlShutdown()
            raise MeterError(f"NVML cannot read a GPU ({error})") from None
        except MeterError:
            nvml.nvmlShutdown()
            raise
        self._by = "by its counter of energy" if counts else "by its power, which may be a mean over a second"
        if several:
            self._by += "; there are several: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or it may not be the one that computes"
        super().__init__(
            "nvml",
            name,
            EnergyCounter(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)).joules
            if counts
            else lambda: float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3,
            interval_s=interval_s,
            record=PowerTrace.add_energy if counts else PowerTrace.add,
            clock=clock,
        )

    def _told(self, status: str, detail: str) -> MeterState:
        return super()._told(status, detail or f"the GPU only, not the whole machine, {self._by}")

    def close(self) -> None:
        """Read no more and leave the library."""
        first = not self._closing.is_set()
        super().close()
        if first and not self._thread.is_alive():
            self._nvml.nvmlShutdown()


class EnergyCounter:
    """What a counter of mJ counted since it was last read."""

    def __init__(self, read_mj: Callable[[], int]) -> None:
        self._read_mj = read_mj
        self._last_mj: Optional[int] = None

    def joules(self) -> float:
        """Since the reading before, J; 0 at the first. Raises `CounterReset` where the counter was set back."""
        now_mj = self._read_mj()
        last_mj = now_mj if self._last_mj is None else self._last_mj
        self._last_mj = now_mj
        if now_mj < last_mj:
            raise CounterReset(f"the counter went back from {last_mj} to {now_mj} mJ")
        return (now_mj - last_mj) / 1e3


def _started() -> Any:
    try:
        import pynvml
    except ImportError:
        raise MeterError("nvidia-ml-py is not installed: pip install 'wenet-runtime[gpu]'") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MeterError(f"no NVIDIA driver answers ({error})") from None
    return pynvml


def _device(nvml: Any, environ: Mapping[str, str]) -> Any:
    """The first device that CUDA may use: by its number or its name."""
    first = _first_visible(environ)
    if first.startswith(NAMES):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def _counted_alike(environ: Mapping[str, str]) -> bool:
    """Whether the device is the one that CUDA takes first: NVML counts by bus, and CUDA puts the quickest first."""
    return _first_visible(environ).startswith(NAMES) or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"


def _first_visible(environ: Mapping[str, str]) -> str:
    return environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()


def _answers(nvml: Any, ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except nvml.NVMLError:
        return False
    return True


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
