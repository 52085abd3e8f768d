"""Settings become a scheduler, or a clear refusal to start."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

from tests.runtime.fakes import MEDIANS_MS, profile
from wenet_runtime.bundle import Bundle
from wenet_runtime.controller import Controller
from wenet_runtime.errors import EnergyUnavailable, SettingsError
from wenet_runtime.meters.base import MeterState
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.service.deciding import cascade_of, check_feasible, make_scheduler, power_budget
from wenet_runtime.service.options import Defaults
from wenet_runtime.settings import Settings


def controller(bundle: Bundle, energies_mj: Optional[Dict[str, float]] = None) -> Controller:
    profiles = {name: profile(p50_ms, (energies_mj or {}).get(name)) for name, p50_ms in MEDIANS_MS.items()}
    return Controller(bundle.modes, profiles, idle_w=2.0)


ENERGIES_MJ = {"m0": 5.0, "m1": 50.0, "m2": 500.0}


def budget(bundle: Bundle, idle_w: Optional[float] = 2.0, **settings: Any) -> Any:
    return power_budget(controller(bundle, ENERGIES_MJ), Settings(**settings), idle_w)


def test_without_a_power_budget_there_is_none(bundle: Bundle) -> None:
    assert budget(bundle) is None


def test_an_average_power_and_a_battery_are_budgets(bundle: Bundle) -> None:
    assert budget(bundle, power_w=5.0).state.power_w == pytest.approx(5.0)
    battery = budget(bundle, energy_wh=10.0, hours=2.0)
    assert battery.state.remaining_wh == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"power_w": 1.5}, "--power-w leaves 1.5 W, and the idle board alone draws 2 W"),
        ({"energy_wh": 1.0, "hours": 2.0}, "for --hours 2 leaves 0.5 W"),
    ],
)
def test_what_does_not_go_together_is_said(bundle: Bundle, settings: Dict[str, float], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        budget(bundle, **settings)


def test_without_the_idle_board_s_watts_no_average_can_be_held(bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match="give --idle-w"):
        budget(bundle, None, power_w=5.0)


def test_without_any_energy_no_average_can_be_held(bundle: Bundle) -> None:
    for idle_w in (2.0, None):  # the watts of the idle board would not help
        with pytest.raises(EnergyUnavailable, match="choose --meter"):
            power_budget(controller(bundle), Settings(power_w=5.0), idle_w)


def test_an_idle_board_that_draws_more_than_any_mode_leaves_nothing_to_plan_with(bundle: Bundle) -> None:
    known = controller(bundle, {"m0": 1.0, "m1": 1.0, "m2": 1.0})  # over 1, 10 and 100 ms: less than 2 W
    with pytest.raises(SettingsError, match="an idle board of 2 W is more than the modes themselves draw"):
        power_budget(known, Settings(power_w=5.0), 2.0)
    assert power_budget(controller(bundle, {"m0": 1.0, "m1": 1.0, "m2": 500.0}), Settings(power_w=5.0), 2.0)


def test_a_budget_is_handed_on_only_to_modes_that_it_can_be_held_with(bundle: Bundle) -> None:
    settings = Settings(energy_wh=10.0, hours=2.0)
    before = budget(bundle, energy_wh=10.0, hours=2.0)
    before.spent(None, 5.0 * 3.6e6, 1.0, 1.0)
    after = power_budget(controller(bundle, ENERGIES_MJ), settings, 2.0, before)
    assert after is not None
    assert after.state.remaining_wh == pytest.approx(5.0, rel=0.02)
    with pytest.raises(EnergyUnavailable, match="choose --meter"):
        power_budget(controller(bundle), settings, 2.0, before)
    with pytest.raises(SettingsError, match="more than the modes themselves draw"):
        power_budget(controller(bundle, {"m0": 1.0, "m1": 1.0, "m2": 1.0}), settings, 2.0, before)


class Stated(NoMeter):
    """A meter in some state."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self._status = status

    def state(self) -> MeterState:
        return MeterState(self._status)


@pytest.mark.parametrize("status", ["ok", "stale", "starting"])
def test_an_energy_budget_that_needs_a_meter_is_taken_where_there_is_one(bundle: Bundle, status: str) -> None:
    policy = Defaults(budget_mj=100.0, require_power=True)
    check_feasible(controller(bundle, ENERGIES_MJ), policy, {}, Stated(status))


def test_an_energy_budget_that_needs_a_meter_is_refused_where_there_is_none(bundle: Bundle) -> None:
    known = controller(bundle, ENERGIES_MJ)
    with pytest.raises(EnergyUnavailable, match="--budget-mj with --require-power needs a meter"):
        check_feasible(known, Defaults(budget_mj=100.0, require_power=True), {}, NoMeter())
    check_feasible(known, Defaults(budget_mj=100.0), {}, NoMeter())  # estimates will do
    check_feasible(known, Defaults(require_power=True), {}, NoMeter())  # no request is bound to have one


def test_the_scheduler_plans_where_it_is_told_to(bundle: Bundle) -> None:
    given: List[Callable[[], None]] = []
    scheduler = make_scheduler(controller(bundle), bundle, Settings(), None, None, given.append)
    assert scheduler._outlook._plan == given.append


def test_a_cascade_is_used_when_asked_for_and_must_be_there(bundle: Bundle) -> None:
    assert cascade_of(bundle, Settings()) is None
    with pytest.raises(SettingsError, match="carries no rules: calibrate it"):
        cascade_of(bundle, Settings(cascade=True))


def test_a_batch_is_never_larger_than_the_bundle_allows(bundle: Bundle) -> None:
    scheduler = make_scheduler(controller(bundle), bundle, Settings(max_batch_rows=1024), None, None)
    assert scheduler._batching._max_rows == bundle.manifest.max_batch


def test_a_daemon_with_a_meter_holds_a_power_budget(bundle_path: Path, tmp_path: Path) -> None:
    from wenet_runtime.service.daemon import open_daemon

    daemon = open_daemon(
        Settings(bundle=bundle_path, cache_dir=tmp_path / "cache", profile_rounds=10, meter="sim", power_w=4.0)
    )
    try:
        assert daemon.runtime.power is not None
        assert daemon.runtime.power.power_w == pytest.approx(4.0)
    finally:
        assert daemon.close(10.0)
