"""Puts a daemon together: settings → bundle, engines, profile, runtime, application."""

import ipaddress
from dataclasses import dataclass
from typing import FrozenSet, Mapping, Optional

from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs
from wenet_runtime.controller import Controller
from wenet_runtime.errors import BudgetImpossible, EnergyUnavailable, SettingsError
from wenet_runtime.loader import Loader
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.app import create_app
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
    chosen: str = ""  # why this engine, where it was chosen by measuring


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
    controller = Controller(modes, device.profiles, settings.attainment)
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
        _check_feasible(controller, settings, device.pool.residency.out)
        if device.bundle.manifest.preprocess is not None:
            warm_up(device.bundle.manifest.preprocess)
        runtime = Runtime(
            device.pool,
            controller,
            device.meter,
            loader=loader,
            max_queue=settings.max_queue,
            warmup=golden_inputs(device.bundle, rows=1),
            engine_core=settings.engine_core,
        )
    except BaseException:
        if loader is not None:
            loader.close()
        device.close()
        raise
    service = Service(device.bundle, runtime, Metrics(device.bundle, runtime), defaults)
    return Daemon(device.bundle, runtime, create_app(service, hosts=allowed_hosts(settings)), device.chosen)


def _check_feasible(controller: Controller, settings: Settings, out: Mapping[str, str]) -> None:
    """Budgets that no mode meets even when idle would refuse every request: say so at the start."""
    options = RequestOptions(budget=Budget(min_accuracy=settings.min_accuracy), mode=settings.mode)
    allowed = controller.allowed(options, out)
    fastest = min(allowed, key=lambda mode: controller.profiles[mode.id].p50_ms)
    fastest_ms = controller.profiles[fastest.id].p50_ms
    if settings.on_miss != "late" and settings.budget_ms is not None and fastest_ms > settings.budget_ms:
        raise BudgetImpossible(
            f"no allowed mode meets --budget-ms {settings.budget_ms:g} on this device: "
            f"the fastest, {fastest.id}, takes {fastest_ms:.3g} ms"
        )
    if settings.budget_mj is not None:
        energies = [energy for energy in (controller.energy_mj(mode.id) for mode in allowed) if energy is not None]
        if not energies:
            raise EnergyUnavailable("--budget-mj needs a source of energy and this device has none: choose --meter")
        if settings.on_miss == "reject" and min(energies) > settings.budget_mj:
            raise BudgetImpossible(
                f"no allowed mode meets --budget-mj {settings.budget_mj:g}: the least takes {min(energies):.3g} mJ"
            )


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
