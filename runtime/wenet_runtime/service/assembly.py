"""One bundle, ready to be served: settings → device → controller, scheduler, engine thread."""

from contextlib import ExitStack
from typing import Optional, Tuple

from wenet_runtime.canary import golden_inputs
from wenet_runtime.controller import Controller
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.deciding import cascade_of, check_feasible, make_scheduler
from wenet_runtime.service.decisions import Decisions
from wenet_runtime.service.images import warm_up
from wenet_runtime.service.metering import Lent
from wenet_runtime.service.opening import Device, Given, Progress, open_device, silent
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.planner import Planner
from wenet_runtime.service.serving import Serving
from wenet_runtime.settings import Settings


def open_serving(
    settings: Settings,
    log: DecisionLog,
    policy: Defaults,
    progress: Progress = silent,
    *,
    given: Optional[Given] = None,
) -> Tuple[Serving, Device]:
    """Open the settings' bundle and start its engine thread.

    Args:
        settings: which bundle, and how it is served.
        log: where decisions go.
        policy: what holds for requests that bring no options of their own.
        progress: told (what, done, total).
        given: what is there already, because another bundle is served.

    Returns:
        What serves it, and the device that it was opened on. The device's meter is the caller's to close, after
        what serves: several bundles may share it.

    Raises:
        BudgetImpossible: the policy is met by no mode on this device.
        EnergyUnavailable: it holds an energy budget and nothing knows the energy.
        BundleError, EngineError, MeterError, SettingsError, UnknownMode: what is wrong, and what to do.
    """
    with ExitStack() as failed:
        device = open_device(settings, progress, given=given)
        opened = failed.enter_context(ExitStack())  # closed by the runtime once there is one
        opened.callback(device.pool.close)
        if given is None:
            failed.callback(device.meter.close)
        meter = device.meter
        idle_w = meter.idle_w if settings.idle_w is None else settings.idle_w
        modes = [mode for mode in device.bundle.modes if mode.id in device.profiles]
        controller = Controller(modes, device.profiles, settings.attainment, idle_w=idle_w)
        loader = device.loader(settings)
        if loader is not None:
            opened.callback(loader.close)
        check_feasible(controller, policy, device.pool.residency.out, meter)
        cascade = cascade_of(device.bundle, settings)
        planner = Planner()
        failed.callback(planner.close)
        before = None if given is None else given.power
        scheduler = make_scheduler(controller, device.bundle, settings, idle_w, cascade, planner.plan, before)
        if device.bundle.manifest.preprocess is not None:
            warm_up(device.bundle.manifest.preprocess)
        runtime = Runtime(
            device.pool,
            scheduler,
            Lent(meter),
            loader=loader,
            cascade=cascade,
            warmup=golden_inputs(device.bundle, rows=1),
            engine_core=settings.engine_core,
        )
        opened.pop_all()
        failed.callback(runtime.close)
        serving = Serving(device.bundle, runtime, Decisions(log, controller), planner, device.cache, scheduler.power)
        failed.pop_all()
    return serving, device
