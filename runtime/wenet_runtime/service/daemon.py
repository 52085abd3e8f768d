"""Puts a daemon together: settings → bundle, engines, profile, runtime, application."""

import ipaddress
from contextlib import ExitStack
from dataclasses import dataclass
from typing import FrozenSet, Optional

from wenet_runtime.board import read_board
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs
from wenet_runtime.controller import Controller
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.engines import ON_GPU
from wenet_runtime.errors import SettingsError
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
from wenet_runtime.service.planner import Planner
from wenet_runtime.service.serving import Serving
from wenet_runtime.service.tokens import read_tokens
from wenet_runtime.settings import Settings

NO_CLOCK = "gpu"  # no device is named so: a graphics card's clocks are not in sysfs, and the processor's are not its


@dataclass(frozen=True)
class Daemon:
    """A daemon ready to serve."""

    bundle: Bundle
    runtime: Runtime
    app: App
    log: DecisionLog
    watch: DeviceWatch
    planner: Planner
    chosen: str = ""  # why this engine, where it was chosen by measuring

    def close(self, timeout_s: float) -> bool:
        """Finish accepted work and free everything; False if that took longer."""
        with ExitStack() as stack:  # each is closed whatever the others do
            stack.callback(self.log.close)
            stack.callback(self.planner.close)
            self.watch.close()
            return self.runtime.close(timeout_s)


def open_daemon(settings: Settings, progress: Progress = silent) -> Daemon:
    """Everything but the socket.

    Raises:
        BudgetImpossible: the settings' own budget is met by no mode on this device.
        EnergyUnavailable: the settings give an energy budget and nothing knows the energy.
        SettingsError: the bind address needs authentication, see `check_bind`; or the token file is none.
    """
    check_bind(settings)
    tokens = None if settings.token_file is None else read_tokens(settings.token_file)
    with ExitStack() as failed:
        device = open_device(settings, progress)
        opened = failed.enter_context(ExitStack())  # closed by the runtime once there is one
        opened.callback(device.close)
        idle_w = device.meter.idle_w if settings.idle_w is None else settings.idle_w
        modes = [mode for mode in device.bundle.modes if mode.id in device.profiles]
        controller = Controller(modes, device.profiles, settings.attainment, idle_w=idle_w)
        loader = device.loader(settings)
        if loader is not None:
            opened.callback(loader.close)
        check_feasible(controller, settings, device.pool.residency.out)
        cascade = cascade_of(device.bundle, settings)
        planner = Planner()
        failed.callback(planner.close)
        scheduler = make_scheduler(controller, device.bundle, settings, idle_w, cascade, planner.plan)
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
        opened.pop_all()
        failed.callback(runtime.close)
        log = DecisionLog(path=None if settings.decision_log is None else settings.decision_log.expanduser())
        failed.callback(log.close)
        watch = _watch(runtime, _clock_device(settings.engine))
        failed.callback(watch.close)
        metrics = Metrics(device.bundle, runtime, log=log, watch=watch)
        serving = Serving(device.bundle, runtime, Decisions(log, controller))
        service = Service(serving, metrics, _defaults(settings))
        app = create_app(
            service, hosts=allowed_hosts(settings), watch=watch, tokens=tokens, meter_name=device.meter_name
        )
        watch.start()
        failed.pop_all()
    return Daemon(device.bundle, runtime, app, log, watch, planner, device.chosen)


def _defaults(settings: Settings) -> Defaults:
    """What holds for requests that bring no options of their own."""
    return Defaults(
        settings.budget_ms,
        settings.budget_mj,
        settings.min_accuracy,
        settings.mode,
        settings.on_miss,
        settings.priority,
        trust_proxy_headers=settings.trust_proxy_headers,
        require_power=settings.require_power,
    )


def _clock_device(engine: str) -> str:
    """Whose clocks count: the beginning of the names of what computes, as `DeviceWatch` takes it."""
    if engine not in ON_GPU:
        return "cpu"
    return read_board().gpu or NO_CLOCK


def _watch(runtime: Runtime, device: str) -> DeviceWatch:
    """What tells the runtime how its device changes, and that time passes."""

    def throttled(now: bool) -> None:
        runtime.controller.throttled = now

    return DeviceWatch(
        Callbacks(
            clock_changed=lambda by: runtime.tell(lambda predictor: predictor.clock_changed(by)),
            throttled=throttled,
            power_setting_changed=lambda name: runtime.tell(lambda predictor: predictor.power_setting_changed()),
            ticked=runtime.tick,
        ),
        device=device,
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
    if not is_loopback(settings.host) and settings.token_file is None and not settings.insecure_no_auth:
        raise SettingsError(
            f"--host {settings.host} is reachable from other machines and requests need no token: give --token-file "
            "(`openssl rand -hex 32` makes a token), listen on 127.0.0.1, or accept the risk with --insecure-no-auth"
        )


def allowed_hosts(settings: Settings) -> Optional[FrozenSet[str]]:
    """Names that `Host` may carry; None (any) when the address is not a loopback one."""
    if not is_loopback(settings.host):
        return None
    return LOOPBACK_NAMES | {name.lower() for name in settings.allowed_host} | {settings.host}
