"""Puts a daemon together: settings → bundle, engines, profile, runtime, application."""

import ipaddress
from dataclasses import dataclass
from typing import FrozenSet, Optional

from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs
from wenet_runtime.controller import Controller
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.errors import SettingsError
from wenet_runtime.loader import Loader
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.app import create_app
from wenet_runtime.service.deciding import cascade_of, check_feasible, make_scheduler
from wenet_runtime.service.decisions import Decisions
from wenet_runtime.service.device_watch import Callbacks, DeviceWatch
from wenet_runtime.service.envelope import LOOPBACK_NAMES, App
from wenet_runtime.service.images import warm_up
from wenet_runtime.service.inference import Service
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.service.opening import Progress, open_device, silent
from wenet_runtime.service.options import Defaults
from wenet_runtime.settings import Settings


@dataclass(frozen=True)
class Daemon:
    """A daemon ready to serve."""

    bundle: Bundle
    runtime: Runtime
    app: App
    log: DecisionLog
    watch: DeviceWatch
    chosen: str = ""  # why this engine, where it was chosen by measuring

    def close(self, timeout_s: float) -> bool:
        """Finish accepted work and free everything; False if that took longer."""
        self.watch.close()
        finished = self.runtime.close(timeout_s)
        self.log.close()
        return finished


def open_daemon(settings: Settings, progress: Progress = silent) -> Daemon:
    """Everything but the socket.

    Raises:
        BudgetImpossible: the settings' own budget is met by no mode on this device.
        EnergyUnavailable: the settings give an energy budget and nothing knows the energy.
        SettingsError: the bind address needs authentication; see `check_bind`.
    """
    check_bind(settings)
    device = open_device(settings, progress)
    modes = [mode for mode in device.bundle.modes if mode.id in device.profiles]
    idle_w = device.meter.idle_w if settings.idle_w is None else settings.idle_w
    controller = Controller(modes, device.profiles, settings.attainment, idle_w=idle_w)
    defaults = Defaults(
        settings.budget_ms,
        settings.budget_mj,
        settings.min_accuracy,
        settings.mode,
        settings.on_miss,
        settings.priority,
    )
    loader: Optional[Loader] = None
    try:
        loader = device.loader(settings)
        check_feasible(controller, settings, device.pool.residency.out)
        cascade = cascade_of(device.bundle, settings)
        scheduler = make_scheduler(controller, device.bundle, settings, idle_w, cascade)
        if device.bundle.manifest.preprocess is not None:
            warm_up(device.bundle.manifest.preprocess)
        runtime = Runtime(
            device.pool,
            scheduler,
            device.meter,
            loader=loader,
            cascade=cascade,
            warmup=golden_inputs(device.bundle, rows=1),
            engine_core=settings.engine_core,
        )
    except BaseException:
        if loader is not None:
            loader.close()
        device.close()
        raise
    metrics = Metrics(device.bundle, runtime)
    log = DecisionLog(path=settings.decision_log)
    service = Service(device.bundle, runtime, metrics, defaults, Decisions(log, controller))
    watch = DeviceWatch(
        Callbacks(
            clock_changed=lambda by: runtime.tell(lambda predictor: predictor.clock_changed(by)),
            throttled=lambda now: _throttled(runtime, metrics, now),
            power_setting_changed=lambda name: runtime.tell(lambda predictor: predictor.power_setting_changed()),
        )
    )
    watch.start()
    app = create_app(service, hosts=allowed_hosts(settings))
    return Daemon(device.bundle, runtime, app, log, watch, device.chosen)


def _throttled(runtime: Runtime, metrics: Metrics, now: bool) -> None:
    """Heat holds the device down, or does no longer."""
    runtime.controller.throttled = now
    metrics.throttled("thermal", now)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Refuse to open an unauthenticated daemon to a network. Raises `SettingsError`."""
    if not is_loopback(settings.host) and not settings.insecure_no_auth:
        raise SettingsError(
            f"--host {settings.host} is reachable from other machines and this version has no authentication: "
            "listen on 127.0.0.1 behind a proxy that has, or accept the risk with --insecure-no-auth"
        )


def allowed_hosts(settings: Settings) -> Optional[FrozenSet[str]]:
    """Names that `Host` may carry; None (any) when the address is not a loopback one."""
    if not is_loopback(settings.host):
        return None
    return LOOPBACK_NAMES | {name.lower() for name in settings.allowed_host} | {settings.host}
