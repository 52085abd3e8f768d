"""Doubles of libraries that meters read: small modules of their names, written from their documentation.

Nothing here is NVIDIA's or jetson-stats' code, and nothing that runs on it says anything of a board.
"""

import threading
from types import ModuleType
from typing import Any, Dict, List, Optional


class NvmlDouble(ModuleType):
    """Stands in for `pynvml`: GPUs whose counters a test sets. `None` is what a GPU does not support."""

    class NVMLError(Exception):
        """As the library's."""

    def __init__(self, *, driver: bool = True, energy_mj: Optional[int] = 0, power_mw: Optional[int] = 0) -> None:
        super().__init__("pynvml")
        self.driver, self.energy_mj, self.power_mw = driver, energy_mj, power_mw
        self.gpus = ["GPU-a", "GPU-b"]
        self.opened: List[str] = []
        self.users = 0  # begun and not shut down

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index >= len(self.gpus):
            raise self.NVMLError("Invalid Argument")
        self.opened.append(self.gpus[index])
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return self.nvmlDeviceGetHandleByIndex(self.gpus.index(uuid) if uuid in self.gpus else len(self.gpus))

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"double of a GPU"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self._known(self.energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return self._known(self.power_mw)

    def _known(self, value: Optional[int]) -> int:
        if not self.users:
            raise self.NVMLError("Uninitialized")
        if value is None:
            raise self.NVMLError("Not Supported")
        return value


class JtopDouble(ModuleType):
    """Stands in for `jtop` of jetson-stats: a service with rails that a test sets."""

    class JtopException(Exception):
        """As the library's."""

    def __init__(self, rails_mw: Dict[str, int], *, service: bool = True) -> None:
        super().__init__("jtop")
        self.rails_mw, self.service = rails_mw, service
        self.clients: List[Any] = []
        double = self

        class Client:
            def __init__(self, interval: float = 1.0) -> None:
                self.interval, self.closed = interval, threading.Event()
                double.clients.append(self)

            def start(self) -> None:
                if not double.service:
                    raise double.JtopException("jtop.service is not active")

            def ok(self) -> bool:
                self.closed.wait(self.interval)
                return double.service and not self.closed.is_set()

            @property
            def power(self) -> Dict[str, Any]:
                rails = {
                    name: {"volt": 5000, "curr": mw // 5, "power": mw, "avg": mw, "online": True}
                    for name, mw in double.rails_mw.items()
                }
                # Its own total counts rails twice where there is no input rail: it must not be used.
                return {"rail": rails, "tot": {"name": "ALL", "power": 10 * sum(double.rails_mw.values())}}

            def close(self) -> None:
                assert not self.closed.is_set(), "closed twice"
                self.closed.set()

        self.jtop = Client
