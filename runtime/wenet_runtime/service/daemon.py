"""Puts a daemon together: settings → bundle, engines, profile, runtime, application."""

import dataclasses
import ipaddress
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, FrozenSet, List, Optional

from wenet_runtime.board import read_board
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.engines import ON_GPU
from wenet_runtime.errors import SettingsError
from wenet_runtime.meters.base import Meter
from wenet_runtime.prediction import Predictor
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.access_log import AccessLog
from wenet_runtime.service.admin import admin_routes
from wenet_runtime.service.admin_server import parts_of
from wenet_runtime.service.app import create_app, enveloped
from wenet_runtime.service.assembly import open_serving
from wenet_runtime.service.device_watch import Callbacks, DeviceWatch
from wenet_runtime.service.envelope import LOOPBACK_NAMES, App, Ended
from wenet_runtime.service.inference import Service
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.service.opening import Progress, silent
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.retiring import CLOSE_S
from wenet_runtime.service.serving import Serving
from wenet_runtime.service.signing import open_bundle
from wenet_runtime.service.swap import Bundles
from wenet_runtime.service.tokens import read_tokens
from wenet_runtime.service.tracing import Tracing, open_tracing
from wenet_runtime.settings import Settings

NO_CLOCK = "gpu"  # no device is named so: a graphics card's clocks are not in sysfs, and the processor's are not its


@dataclass(frozen=True)
class Daemon:
    """A daemon ready to serve.

    Attributes:
        service: what the routes serve from.
        bundles: changes what that is.
        app, admin_app: what is served, and what on an address of its own; None if there is none.
        meter: the source of energy, shared by all bundles.
        access, tracing: what is told of requests that are over; None if it is not wanted.
    """

    service: Service
    bundles: Bundles
    app: App
    admin_app: Optional[App]
    log: DecisionLog
    watch: DeviceWatch
    meter: Meter
    access: Optional[AccessLog]
    tracing: Optional[Tracing]
    chosen: str = ""  # why this engine, where it was chosen by measuring

    @property
    def bundle(self) -> Bundle:
        """What is served now."""
        return self.service.bundle

    @property
    def runtime(self) -> Runtime:
        """What answers now."""
        return self.service.runtime

    def refused(self, slug: str) -> None:
        """A problem was the answer before there was a request."""
        self.service.metrics.failed(slug)
        if self.access is not None:
            self.access.refused(slug)

    def close(self, timeout_s: float) -> bool:
        """Finish accepted work and free everything; False if that took longer."""
        with ExitStack() as stack:  # each is closed whatever the others do
            stack.callback(self.log.close)
            stack.callback(self.meter.close)
            if self.tracing is not None:
                stack.callback(self.tracing.close)
            self.watch.close()
            return self.bundles.close(timeout_s)


def open_daemon(settings: Settings, progress: Progress = silent) -> Daemon:
    """Everything but the socket.

    Raises:
        BudgetImpossible: the settings' own budget is met by no mode on this device.
        EnergyUnavailable: the settings give an energy budget and nothing knows the energy.
        SettingsError: the bind address needs authentication, see `check_bind`; or the token file is none.
    """
    check_bind(settings)
    tokens = None if settings.token_file is None else read_tokens(settings.token_file)
    access = AccessLog(settings.access_log_every) if settings.access_log_every else None
    tracing = open_tracing(settings)
    ended: List[Ended] = [one for one in (access, tracing) if one is not None]
    with ExitStack() as failed:
        if tracing is not None:
            failed.callback(tracing.close)
        log = DecisionLog(path=None if settings.decision_log is None else settings.decision_log.expanduser())
        failed.callback(log.close)
        policy = policy_of(settings)
        serving, device = open_serving(settings, log, policy, progress)
        failed.callback(device.meter.close)
        failed.callback(serving.close, CLOSE_S)
        watch = _watch(lambda: bundles.runtimes, _clock_device(settings.engine))
        failed.callback(watch.close)
        service = Service(serving, Metrics(serving.bundle, serving.runtime, log=log, watch=watch), policy)
        # Not the device, which would keep the first bundle's engines.
        given = dataclasses.replace(device.given, power=serving.power)

        def open_next(bundle: Bundle) -> Serving:
            def told(what: str, done: int, total: int) -> None:
                bundles.check_staying()  # so that a long opening ends of itself, with nothing half done

            opened, _ = open_serving(
                settings, log, service.defaults, told, given=dataclasses.replace(given, bundle=bundle)
            )
            return opened

        bundles = Bundles(
            service,
            verify=lambda place: open_bundle(settings.model_copy(update={"bundle": place})),
            open_next=open_next,
            root=bundle_root(settings),
        )
        admin = admin_routes(service, bundles)
        app = create_app(
            service,
            hosts=allowed_hosts(settings),
            watch=watch,
            tokens=tokens,
            meter_name=device.meter_name,
            more=() if settings.admin_bind else admin,
            ended=ended,
        )
        admin_app = None
        if settings.admin_bind:
            admin_app = enveloped(service, admin, hosts=admin_hosts(settings), tokens=tokens, ended=ended)
        watch.start()
        failed.pop_all()
    return Daemon(service, bundles, app, admin_app, log, watch, device.meter, access, tracing, device.chosen)


def bundle_root(settings: Settings) -> Path:
    """The folder that other bundles may come from while the server runs."""
    return settings.bundle.resolve().parent if settings.bundle_root is None else settings.bundle_root.expanduser()


def policy_of(settings: Settings) -> Defaults:
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
        rate_limit=settings.rate_limit,
    )


def _clock_device(engine: str) -> str:
    """Whose clocks count: the beginning of the names of what computes, as `DeviceWatch` takes it."""
    if engine not in ON_GPU:
        return "cpu"
    return read_board().gpu or NO_CLOCK


def _watch(runtimes: Callable[[], List[Runtime]], device: str) -> DeviceWatch:
    """What tells the runtimes how their device changes, and that time passes: also the one that may be back soon."""

    def tell(what: Callable[[Predictor], None]) -> None:
        for runtime in runtimes():
            runtime.tell(what)

    def throttled(now: bool) -> None:
        for runtime in runtimes():
            runtime.controller.throttled = now

    def ticked() -> None:
        for runtime in runtimes():
            runtime.tick()

    return DeviceWatch(
        Callbacks(
            clock_changed=lambda by: tell(lambda predictor: predictor.clock_changed(by)),
            throttled=throttled,
            power_setting_changed=lambda name: tell(lambda predictor: predictor.power_setting_changed()),
            ticked=ticked,
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
    return _names(settings.host, settings)


def admin_hosts(settings: Settings) -> Optional[FrozenSet[str]]:
    """The same on --admin-bind; None for a file, which no browser can be led to. Raises `SettingsError`."""
    address = settings.admin_bind or ""
    return None if address.startswith("unix:") else _names(parts_of(address)[0], settings)


def _names(host: str, settings: Settings) -> Optional[FrozenSet[str]]:
    if not is_loopback(host):
        return None
    return LOOPBACK_NAMES | {name.lower() for name in settings.allowed_host} | {host}
