"""A battery is counted from the daemon's start, and an average held over every window, whatever bundle is served."""

import asyncio
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.runtime.fakes import PATIENCE_S
from tests.supernets import write_test_bundle
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.power_state import PowerState
from wenet_runtime.service.daemon import Daemon, open_daemon
from wenet_runtime.settings import Settings

WH = 3.6e6  # mJ


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    started = []
    write_test_bundle(tmp_path / "a")
    write_test_bundle(tmp_path / "b", seed=1, levels=(16, 1))

    def begin(**settings: Any) -> Daemon:
        known = {"bundle": tmp_path / "a", "cache_dir": tmp_path / "cache", "profile_rounds": 10, "power_window_s": 1.0}
        started.append(open_daemon(Settings(engine="sim", meter="sim", **{**known, **settings})))
        return started[-1]

    yield begin
    for one in started:
        assert one.close(PATIENCE_S)


def power(daemon: Daemon) -> PowerBudget:
    assert daemon.service.active.power is not None
    return daemon.service.active.power


def planned(daemon: Daemon) -> PowerState:
    time.sleep(1.1 / 60.0)  # its last plan may hold for so long
    daemon.runtime.tick()
    assert daemon.runtime.power is not None
    return daemon.runtime.power


def spend(daemon: Daemon, above_mj: float) -> None:
    now_s = time.monotonic()
    power(daemon).spent(None, above_mj, now_s, now_s)


def check_battery(state: PowerState, remaining_wh: float, hours: float) -> None:
    assert state.remaining_wh == pytest.approx(remaining_wh, abs=0.05)
    assert state.power_w == pytest.approx((remaining_wh - 100.0 * 0.01) / hours, rel=0.01)  # but for its reserve


def test_a_battery_and_its_hours_go_on_through_a_swap_and_a_rollback(start: Callable[..., Daemon]) -> None:
    daemon = start(energy_wh=100.0, hours=2.0, idle_w=2.0)
    spend(daemon, 20.0 * WH)
    power(daemon).tick(time.monotonic() + 1800.0)  # half an hour: 1 Wh for the idle board

    async def changed() -> None:
        check_battery(planned(daemon), 79.0, 1.5)
        await daemon.bundles.swap("b")
        check_battery(planned(daemon), 79.0, 1.5)
        spend(daemon, 30.0 * WH)
        check_battery(planned(daemon), 49.0, 1.5)
        await daemon.bundles.rollback()
        check_battery(planned(daemon), 49.0, 1.5)

    asyncio.run(changed())


def test_what_the_bundle_before_still_runs_is_charged_too_and_the_idle_board_once(start: Callable[..., Daemon]) -> None:
    daemon = start(energy_wh=100.0, hours=2.0, idle_w=2.0)

    async def changed() -> None:
        before = power(daemon)
        await daemon.bundles.swap("b")
        now_s = time.monotonic()
        before.spent(None, 10.0 * WH, now_s, now_s)
        for one in (before, power(daemon)):
            one.tick(now_s + 1800.0)
        check_battery(planned(daemon), 89.0, 1.5)

    asyncio.run(changed())


def test_a_debt_of_the_average_goes_on_through_a_swap_and_a_rollback(start: Callable[..., Daemon]) -> None:
    daemon = start(power_w=4.0, power_window_s=3600.0, idle_w=2.0)
    spend(daemon, 4e6)

    async def changed() -> None:
        await daemon.bundles.swap("b")
        assert planned(daemon).credit_mj == pytest.approx(-4e6, rel=0.03)  # 2 W for a minute at most
        spend(daemon, 2e6)
        await daemon.bundles.rollback()
        assert planned(daemon).credit_mj == pytest.approx(-6e6, rel=0.03)

    asyncio.run(changed())


def test_what_the_meter_taught_of_a_bundle_s_modes_stays_with_it(start: Callable[..., Daemon]) -> None:
    daemon = start(power_w=4.0, idle_w=2.0)
    planned(daemon)
    for number in range(40):
        now_s = time.monotonic()
        power(daemon).spent(150.0 + number, 100.0 + number, now_s, now_s, mode_id="m0")

    async def changed() -> None:
        learnt = planned(daemon).factor
        assert learnt > 1.2
        await daemon.bundles.swap("b")
        assert planned(daemon).factor == 1.0
        assert power(daemon)._trust.factor_of("m0") == 1.0
        await daemon.bundles.rollback()
        assert planned(daemon).factor == learnt

    asyncio.run(changed())
