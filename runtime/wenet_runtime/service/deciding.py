"""Settings → the scheduler: what decides, what it may spend, and what it may try first."""

import time
from typing import Callable, Mapping, Optional

from wenet_runtime.answers import Ask
from wenet_runtime.batching import Batching
from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.cascade import Cascade
from wenet_runtime.controller import Controller
from wenet_runtime.errors import BudgetImpossible, EnergyUnavailable, SettingsError
from wenet_runtime.escalation import Escalation
from wenet_runtime.meters.base import UNAVAILABLE, Meter
from wenet_runtime.outlook import here_and_now
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.scheduler import Scheduler
from wenet_runtime.service.health import meter_state
from wenet_runtime.service.options import Defaults
from wenet_runtime.settings import Settings


def make_scheduler(
    controller: Controller,
    bundle: Bundle,
    settings: Settings,
    idle_w: Optional[float],
    cascade: Optional[Cascade],
    plan: Callable[[Callable[[], None]], None] = here_and_now,
    before: Optional[PowerBudget] = None,
) -> "Scheduler[Ask]":
    """The scheduler of a daemon; `plan` runs what may take some milliseconds; for `before` see `power_budget`.

    Raises:
        EnergyUnavailable, SettingsError: see `power_budget`.
    """
    rows = min(settings.max_batch_rows, bundle.manifest.max_batch)
    return Scheduler(
        controller,
        max_queue=settings.max_queue,
        batching=Batching(rows, settings.max_delay_ms),
        power=power_budget(controller, settings, idle_w, before),
        escalation=None if cascade is None else Escalation(cascade),
        plan=plan,
    )


def cascade_of(bundle: Bundle, settings: Settings) -> Optional[Cascade]:
    """The bundle's cascade, if it was asked for.

    Raises:
        SettingsError: it was, and the bundle carries none.
    """
    if not settings.cascade:
        return None
    cascade = Cascade.of(bundle.manifest)
    if not cascade.rules:
        raise SettingsError("--cascade: this bundle carries no rules: calibrate it with `wenet-trainer calibrate`")
    return cascade


def power_budget(
    controller: Controller, settings: Settings, idle_w: Optional[float], before: Optional[PowerBudget] = None
) -> Optional[PowerBudget]:
    """The average power or the battery that the settings ask for; None if for neither.

    Args:
        controller: its modes are to be asked for.
        settings: of the daemon.
        idle_w: what the idle board draws.
        before: that of a bundle which these settings served before: what it spent stays spent. None at the start.

    Raises:
        EnergyUnavailable: no mode's energy is known.
        SettingsError: the idle board's watts are unknown, or no less than the average or than what the modes draw.
    """
    if settings.power_w is None and settings.energy_wh is None:
        return None
    forecast = controller.forecast(1)
    if all(energy is None for energy in forecast.energies_mj):
        raise EnergyUnavailable("--power-w and --energy-wh need a source of energy: choose --meter")
    if idle_w is None:
        raise SettingsError("--power-w and --energy-wh count the idle board too: give --idle-w, or a --meter")
    if not any(forecast.prices_mj):
        raise SettingsError(
            f"an idle board of {idle_w:.3g} W is more than the modes themselves draw by their profiles: "
            "correct --idle-w, or profile again with a --meter of the whole board"
        )
    if settings.energy_wh is not None and settings.hours is not None:
        average_w = settings.energy_wh / settings.hours
        _check_above_idle(average_w, idle_w, f"--energy-wh {settings.energy_wh:g} for --hours {settings.hours:g}")
        if before is None:
            return PowerBudget.battery(
                settings.energy_wh, settings.hours, idle_w, time.monotonic(), window_s=settings.power_window_s
            )
    else:
        assert settings.power_w is not None
        _check_above_idle(settings.power_w, idle_w, "--power-w")
        if before is None:
            return PowerBudget(settings.power_w, settings.power_window_s, idle_w)
    return before.handed_on()


def _check_above_idle(average_w: float, idle_w: float, what: str) -> None:
    if average_w <= idle_w:
        raise SettingsError(f"{what} leaves {average_w:.3g} W, and the idle board alone draws {idle_w:.3g} W")


def check_feasible(controller: Controller, policy: Defaults, out: Mapping[str, str], meter: Meter) -> None:
    """Budgets that no mode meets even when idle would refuse every request: say so at the start.

    Raises:
        BudgetImpossible, EnergyUnavailable: such a budget.
    """
    options = RequestOptions(budget=Budget(min_accuracy=policy.min_accuracy), mode=policy.mode)
    allowed = controller.allowed(options, out)
    fastest = min(allowed, key=lambda mode: controller.profiles[mode.id].p50_ms)
    fastest_ms = controller.profiles[fastest.id].p50_ms
    if policy.on_miss != "late" and policy.budget_ms is not None and fastest_ms > policy.budget_ms:
        raise BudgetImpossible(
            f"no allowed mode meets --budget-ms {policy.budget_ms:g} on this device: "
            f"the fastest, {fastest.id}, takes {fastest_ms:.3g} ms"
        )
    if policy.budget_mj is not None:
        if policy.require_power and meter_state(meter).status == UNAVAILABLE:
            raise EnergyUnavailable(
                "--budget-mj with --require-power needs a meter, and this device has none: "
                "choose --meter (`wenet-runtime doctor` says what is here), or drop one of the two"
            )
        energies = [energy for energy in (controller.energy_mj(mode.id) for mode in allowed) if energy is not None]
        if not energies:
            raise EnergyUnavailable("--budget-mj needs a source of energy and this device has none: choose --meter")
        if policy.on_miss == "reject" and min(energies) > policy.budget_mj:
            raise BudgetImpossible(
                f"no allowed mode meets --budget-mj {policy.budget_mj:g}: the least takes {min(energies):.3g} mJ"
            )
