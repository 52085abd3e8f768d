"""The ledger on a board of three modes; its clock, meter and profiles misbehave as well."""

import math
import random
import threading
from typing import Callable, List, Optional

import pytest

from wenet_runtime.energy_plan import Point
from wenet_runtime.errors import BudgetError
from wenet_runtime.power_account import PowerAccount
from wenet_runtime.power_budget import PowerBudget

IDLE_W = 2.0
POINTS = (Point("small", 0.6, 100.0), Point("middle", 0.7, 400.0), Point("full", 0.72, 1600.0))
BUSY_S = {"small": 0.04, "middle": 0.1, "full": 0.2}
Meter = Callable[[float, float], Optional[float]]  # true energy of the whole board, its time → reading


def honest(energy_mj: float, end_s: float) -> Optional[float]:
    return energy_mj


def no_meter(energy_mj: float, end_s: float) -> Optional[float]:
    return None


class Board:
    """Serves `per_s` rows a second at even gaps, each with the most accurate mode within the cap."""

    def __init__(self, budget: PowerBudget, per_s: float, meter: Meter = honest, bias: float = 1.0) -> None:
        self.budget, self.per_s, self.meter, self.bias = budget, per_s, meter, bias
        self.rng = random.Random(0)
        self.now_s = 1000.0
        self.above_mj = 0.0
        self.modes: List[str] = []

    def serve(self, seconds: float, forced: Optional[str] = None, clock: float = 0.0) -> float:
        """Run for so long; returns the watts of the whole board. `clock` is how far the clock is off."""
        before_mj, end_s = self.above_mj, self.now_s + seconds
        while self.now_s < end_s:
            told_s = self.now_s + clock
            self.budget.arrived(1, told_s)
            self.budget.plan(POINTS, told_s)
            cap = self.budget.cap_mj(told_s)
            fitting = [one for one in POINTS if one.energy_mj is not None and one.energy_mj <= cap]
            chosen = next((one for one in POINTS if one.mode_id == forced), fitting[-1])
            assert chosen.energy_mj is not None
            busy_s = BUSY_S[chosen.mode_id] * self.rng.uniform(0.99, 1.01)
            true_mj = chosen.energy_mj * self.bias
            reading = self.meter(true_mj + IDLE_W * busy_s * 1e3, told_s + busy_s)
            self.budget.spent(reading, chosen.energy_mj, told_s, told_s + busy_s, mode_id=chosen.mode_id)
            self.above_mj += true_mj
            self.modes.append(chosen.mode_id)
            self.now_s += 1 / self.per_s
        return IDLE_W + (self.above_mj - before_mj) / 1e3 / seconds


@pytest.mark.parametrize("power_w", [2.8, 3.5, 4.5, 5.5])
@pytest.mark.parametrize("bias", [0.8, 1.0, 1.25])
def test_an_average_power_holds_though_the_profile_is_wrong(power_w: float, bias: float) -> None:
    board = Board(PowerBudget(power_w, 60.0, IDLE_W), 3.0, bias=bias)
    board.serve(120.0)
    for _ in range(5):
        assert board.serve(60.0) == pytest.approx(power_w, rel=0.03)
    assert board.budget.state.verdict == "binding"
    assert board.budget.state.factor == pytest.approx(bias, rel=0.01)
    assert board.budget.state.spent_w == pytest.approx(power_w, rel=0.05)


def test_only_two_neighbours_on_the_hull_are_asked_for() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0)  # 800 mJ a row: between middle and full
    board.serve(120.0)
    board.modes.clear()
    board.serve(600.0)
    assert set(board.modes) == {"middle", "full"}
    assert board.modes.count("full") / len(board.modes) == pytest.approx(1 / 3, abs=0.03)


def test_the_cap_is_infinite_where_the_budget_binds_nothing() -> None:
    board = Board(PowerBudget(10.0, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    assert board.budget.cap_mj(board.now_s) == math.inf
    assert board.budget.state.verdict == "free"
    assert set(board.modes) == {"full"}


@pytest.mark.parametrize("power_w", [2.1, 2.0, 1.0])
def test_where_even_the_cheapest_is_too_much_it_is_the_cap_and_the_state_says_so(power_w: float) -> None:
    board = Board(PowerBudget(power_w, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    assert board.budget.cap_mj(board.now_s) == 100.0
    assert board.budget.state.verdict == "unreachable"


def test_energy_that_deadlines_forced_is_paid_back() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    over = board.serve(20.0, forced="full")
    assert over > 6.0
    after = board.serve(100.0)
    assert (20.0 * over + 100.0 * after) / 120.0 == pytest.approx(4.4, rel=0.03)


def test_what_a_quiet_hour_left_is_not_spent_at_once() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    board.now_s += 3000.0
    assert board.serve(60.0) <= 4.4 * 1.1


def test_a_debt_is_no_more_than_a_window() -> None:
    board = Board(PowerBudget(3.0, 60.0, IDLE_W), 4.0)
    board.serve(1200.0, forced="full")
    assert board.budget.state.credit_mj >= -(3.0 - IDLE_W) * 60.0 * 1e3
    board.serve(240.0)
    assert board.serve(60.0) == pytest.approx(3.0, rel=0.03)


def test_the_power_holds_while_the_rate_rises_fourfold() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 2.0)
    board.serve(120.0)
    for _ in range(20):
        board.per_s *= 4 ** (1 / 20)
        assert board.serve(30.0) <= 4.4 * 1.1
    assert board.serve(120.0) == pytest.approx(4.4, rel=0.03)


@pytest.mark.parametrize(
    "meter",
    [
        lambda energy_mj, end_s: -energy_mj,
        lambda energy_mj, end_s: 0.0,
        lambda energy_mj, end_s: math.nan,
        lambda energy_mj, end_s: math.inf,
        lambda energy_mj, end_s: 10.0 * energy_mj,
        lambda energy_mj, end_s: 1e300,
    ],
    ids=["negative", "zero", "nan", "infinite", "tenfold", "absurd"],
)
def test_a_meter_that_lies_is_not_believed_and_the_estimate_holds_the_power(meter: Meter) -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0, meter=meter)
    board.serve(120.0)
    assert board.serve(120.0) == pytest.approx(4.4, rel=0.03)
    assert board.budget.state.distrusted == len(board.modes)


def test_a_meter_that_is_stuck_is_not_believed() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    board.meter = lambda energy_mj, end_s: 1000.0
    assert board.serve(240.0) == pytest.approx(4.4, rel=0.06)
    assert board.budget.state.distrusted > 600


@pytest.mark.parametrize("wrong", [0.3, 3.5])
def test_a_credible_but_wrong_meter_does_no_more_harm_than_its_error(wrong: float) -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0, meter=lambda energy_mj, end_s: wrong * energy_mj)
    board.serve(240.0)
    above_w = board.serve(120.0) - IDLE_W
    assert 2.4 / 4.5 <= above_w <= 2.4 * 4.5
    assert 0.5 <= board.budget.state.factor <= 2.0


def test_a_meter_that_drifts_to_tenfold_is_left_behind() -> None:
    scale = 1.0

    def drifting(energy_mj: float, end_s: float) -> Optional[float]:
        nonlocal scale
        scale = min(scale * 1.01, 10.0)
        return energy_mj * scale

    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0, meter=drifting)
    board.serve(600.0)
    trusted = len(board.modes) - board.budget.state.distrusted
    board.serve(60.0)
    assert len(board.modes) - board.budget.state.distrusted == trusted
    assert board.budget.state.factor <= 2.0


def test_without_a_meter_the_profile_is_charged() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0, meter=no_meter)
    board.serve(120.0)
    assert board.serve(120.0) == pytest.approx(4.4, rel=0.03)
    assert board.budget.state.distrusted == 0


def test_modes_without_energy_are_counted_and_never_asked_for() -> None:
    budget = PowerBudget(4.4, 60.0, IDLE_W)
    unknown = (Point("a", 0.7, None), Point("b", 0.8, 0.0), Point("c", 0.9, math.nan))
    budget.plan(unknown, 0.0)
    assert budget.cap_mj(0.0) == math.inf
    assert (budget.state.verdict, budget.state.unknown_modes) == ("unknown", 3)
    for second in range(1, 400):
        budget.arrived(3, float(second))
        budget.plan((*unknown, *POINTS), float(second))
        assert budget.cap_mj(float(second)) in (100.0, 400.0, 1600.0, math.inf)
        budget.spent(None, None, second, second + 0.1)  # nothing known of this run
    assert budget.state.unknown_modes == 3
    assert budget.state.unpriced == 399


def test_a_mode_dearer_and_worse_by_its_profile_is_not_planned() -> None:
    budget = PowerBudget(2.3, 60.0, IDLE_W)
    budget.plan((*POINTS, Point("worse", 0.65, 500.0)), 0.0)
    assert "worse" not in (budget.state.low, budget.state.high)


@pytest.mark.parametrize(("clock", "jumps"), [(-500.0, 1), (5e3, 2), (-5e3, 2), (1e9, 2)])
def test_a_clock_that_jumps_is_counted_and_the_power_holds_after_it(clock: float, jumps: int) -> None:
    """There and back: a step ahead of less than an hour is believed."""
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    assert board.serve(60.0, clock=clock) <= 4.4 * 1.1
    board.serve(60.0)
    assert board.serve(60.0) == pytest.approx(4.4, rel=0.03)
    assert board.budget.state.clock_jumps == jumps


def test_instants_that_are_no_numbers_are_counted_and_change_nothing() -> None:
    board = Board(PowerBudget(4.4, 60.0, IDLE_W), 3.0)
    board.serve(120.0)
    for now_s in (math.nan, math.inf, -math.inf):
        board.budget.arrived(1, now_s)
        board.budget.plan(POINTS, now_s)
        assert board.budget.cap_mj(now_s) in (400.0, 1600.0)
        board.budget.spent(500.0, 400.0, now_s, now_s)
    assert board.budget.state.clock_jumps >= 9
    board.serve(60.0)
    assert board.serve(60.0) == pytest.approx(4.4, rel=0.03)


def test_calls_a_little_out_of_order_are_no_jump() -> None:
    budget = PowerBudget(4.4, 60.0, IDLE_W)
    for now_s in (10.0, 9.99, 10.2, 10.1, 10.3):
        budget.arrived(1, now_s)
    assert budget.state.clock_jumps == 0


@pytest.mark.parametrize("per_s", [1.0, 3.0, 12.0])
def test_a_battery_lasts_its_hours_and_is_used_up_where_it_binds(per_s: float) -> None:
    energy_wh = 4.4 if per_s > 1.0 else 3.0
    board = Board(PowerBudget.battery(energy_wh, 1.0, IDLE_W, 1000.0), per_s, bias=1.2)
    taken_wh = board.serve(3600.0)
    assert 0.97 * energy_wh <= taken_wh <= energy_wh
    assert board.budget.state.remaining_wh == pytest.approx(energy_wh - taken_wh, abs=0.02)


def test_a_battery_that_cannot_last_asks_for_the_cheapest() -> None:
    board = Board(PowerBudget.battery(1.9, 1.0, IDLE_W, 1000.0), 3.0)
    board.serve(600.0)
    assert board.budget.cap_mj(board.now_s) == 100.0
    assert board.budget.state.verdict == "unreachable"


def test_after_its_hours_a_battery_binds_nothing() -> None:
    budget = PowerBudget.battery(4.4, 0.5, IDLE_W, 0.0)
    budget.plan(POINTS, 0.0)
    budget.plan(POINTS, 1801.0)
    assert (budget.state.verdict, budget.cap_mj(1801.0)) == ("ended", math.inf)


def test_a_clock_far_ahead_does_not_empty_a_battery() -> None:
    board = Board(PowerBudget.battery(4.4, 1.0, IDLE_W, 1000.0), 3.0)
    board.serve(600.0)
    before_wh = board.budget.state.remaining_wh
    board.serve(1.0, clock=1e9)
    after_wh = board.budget.state.remaining_wh
    assert before_wh is not None
    assert after_wh is not None
    assert 0.0 <= before_wh - after_wh < 0.05
    assert board.budget.state.verdict == "binding"


def test_a_battery_s_quiet_hours_count_when_the_clock_is_told_to_tick() -> None:
    budget = PowerBudget.battery(40.0, 10.0, IDLE_W, 0.0)
    for second in range(9 * 3600 + 1):
        if second == 0:
            budget.arrived(1, 0.0)
            budget.plan(POINTS, 0.0)
        budget.tick(float(second))
    state = budget.state
    assert state.remaining_wh == pytest.approx(40.0 - 9 * IDLE_W)
    assert state.power_w == pytest.approx((40.0 * 0.99 - 9 * IDLE_W) / 1.0)  # what is left, over the hour that is
    assert state.spent_w == pytest.approx(IDLE_W)
    assert (state.clock_jumps, state.rate_per_s) == (0, pytest.approx(0.0))


def test_two_threads_that_charge_one_battery_lose_nothing_of_it() -> None:
    one = PowerBudget.battery(40.0, 10.0, IDLE_W, 0.0)
    budgets = (one, one.handed_on())

    def charge(budget: PowerBudget) -> None:
        for number in range(5_000):
            now_s = number / 1e4  # the threads may be half a second apart
            budget.arrived(1, now_s)
            budget.plan(POINTS, now_s)
            budget.spent(None, 3600.0, now_s, now_s)

    threads = [threading.Thread(target=charge, args=(budget,)) for budget in budgets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for budget in budgets:
        assert budget.state.remaining_wh == pytest.approx(40.0 - 10.0 - IDLE_W * 0.4999 / 3600.0)


@pytest.mark.parametrize("name", ["advance", "charge", "note"])
def test_nobody_touches_the_account_without_its_lock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, calls = getattr(PowerAccount, name), []

    def watched(account: PowerAccount, *given: float) -> None:
        calls.append(account.lock.locked())
        method(account, *given)

    monkeypatch.setattr(PowerAccount, name, watched)
    budget = PowerBudget.battery(40.0, 10.0, IDLE_W, 0.0)
    for second in range(3):
        budget.arrived(1, float(second))
        budget.plan(POINTS, float(second))
        budget.spent(None, 3600.0, float(second), second + 0.5)
        budget.tick(second + 0.6)
    assert calls
    assert all(calls)


def test_an_idle_ledger_goes_on_from_its_first_tick_without_points() -> None:
    budget = PowerBudget(4.4, 60.0, IDLE_W)
    for second in range(100, 200):
        budget.tick(float(second))
    assert (budget.state.spent_w, budget.state.verdict) == (pytest.approx(IDLE_W), "free")
    assert budget.cap_mj(200.0) == math.inf


def test_ticking_between_requests_spends_no_other_power() -> None:
    board = Board(PowerBudget(3.5, 60.0, IDLE_W), 3.0)
    board.serve(180.0)
    before_mj, start_s = board.above_mj, board.now_s
    while board.now_s < start_s + 300.0:
        board.budget.tick(board.now_s)
        board.serve(1.0)
        board.budget.tick(board.now_s - 0.001)  # another thread read its clock just before
    above_w = (board.above_mj - before_mj) / 1e3 / (board.now_s - start_s)
    assert IDLE_W + above_w == pytest.approx(3.5, rel=0.03)
    assert board.budget.state.clock_jumps == 0


def test_it_plans_at_most_once_in_a_sixtieth_of_a_window() -> None:
    budget = PowerBudget(4.4, 60.0, IDLE_W)
    assert budget.due(5.0)
    budget.plan(POINTS, 5.0)
    assert not budget.due(5.9)
    budget.plan((), 5.9)
    assert budget.state.verdict == "free"
    assert budget.due(6.1)
    assert budget.due(4.0)  # the clock went back


def test_its_memory_does_not_grow() -> None:
    rng = random.Random(0)
    budget = PowerBudget(4.4, 60.0, IDLE_W)
    for number in range(5_000):
        now_s = number * 1.1
        budget.arrived(1, now_s)
        budget.plan([Point(f"m{rng.randrange(10**6)}", 0.7, 400.0)], now_s)
        budget.spent(600.0, 400.0, now_s, now_s + 0.1, mode_id=f"m{rng.randrange(10**6)}")
    assert sum(len(part) for part in _containers(budget)) < 200


def _containers(thing: object) -> List[List[object]]:
    found: List[List[object]] = []
    for part in vars(thing).values():
        if hasattr(part, "__len__") and not isinstance(part, str):
            found.append(list(part))
        elif hasattr(part, "__dict__") and type(part).__module__.startswith("wenet_runtime"):
            found.extend(_containers(part))
    return found


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("power_w", (0.0, 60.0, 2.0)),
        ("power_w", (math.nan, 60.0, 2.0)),
        ("window_s", (5.0, 0.0, 2.0)),
        ("idle_w", (5.0, 60.0, -1.0)),
    ],
)
def test_an_impossible_budget_is_refused_by_name(name: str, values: "tuple[float, float, float]") -> None:
    with pytest.raises(BudgetError, match=name):
        PowerBudget(*values)


@pytest.mark.parametrize(
    ("name", "values"), [("energy_wh", (0.0, 1.0, 2.0, 0.0)), ("hours", (1.0, math.inf, 2.0, 0.0))]
)
def test_an_impossible_battery_is_refused_by_name(name: str, values: "tuple[float, float, float, float]") -> None:
    with pytest.raises(BudgetError, match=name):
        PowerBudget.battery(*values)
