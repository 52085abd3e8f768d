"""The ledger that holds an average power, or makes a battery last: how much energy the next row may take.

No threads and no clocks: every call says what time it is, in seconds of one monotonic clock. Memory is bounded by
the number of modes. A budget never refuses work: where it cannot be held it asks for the cheapest mode and says so.

What was spent belongs to the board and is in its `PowerAccount`. What is planned, and learnt of modes, belongs to one
bundle: another one's modes are others, whatever their ids.
"""

import math
from typing import Optional, Sequence

from wenet_runtime.battery import Battery
from wenet_runtime.energy_plan import HullPoint, Mix, Point, mix
from wenet_runtime.errors import BudgetError
from wenet_runtime.meter_trust import MeterTrust
from wenet_runtime.power_account import STEPS, PowerAccount
from wenet_runtime.power_state import PowerState
from wenet_runtime.true_hull import TrueHull

# How soon a debt or a credit is to be gone, in windows. Found by simulation (`benchmarks.energy_budget`), as is the
# next: longer, bursts (CV² 4) take windows over budget by more than a tenth; shorter, the mix follows every burst
# and costs more than 5 % above the clairvoyant plan.
PAYBACK_SHARE = 0.4
# Which of the two modes is next depends on this share of the credit, too: between two neighbours on the hull it
# costs no accuracy to take the dearer ones when there is something saved.
NEXT_SHARE = 0.25


class PowerBudget:
    """An average power of the whole board, held over every window.

    Args:
        power_w: the average, idle watts included.
        window_s: over which it holds; more than about a hundred rows shall fall in it.
        idle_w: what the board takes when nothing runs. It is charged for all time that passes.

    Raises:
        BudgetError: a value out of its range.
    """

    def __init__(self, power_w: float, window_s: float, idle_w: float) -> None:
        _check("power_w", power_w, 0.001, 100_000.0)
        _check("window_s", window_s, 1.0, 86_400.0)
        _check("idle_w", idle_w, 0.0, 100_000.0)
        self._given_w = power_w
        self._window_s = window_s
        self._idle_w = idle_w
        self._account = PowerAccount(power_w, window_s, idle_w)
        self._trust = MeterTrust(idle_w)
        self._hull = TrueHull(self._trust)
        self._mean_mj = self._bound_mj = 0.0  # per row, of the mix and of its dearer mode
        self._lead_mj = 0.0  # what the mix allowed the rows, less what they took
        self._points: Sequence[Point] = ()
        self._planned_s = -math.inf
        self._cap_low = self._cap_high = math.inf
        self._mix: Optional[Mix] = None
        self._verdict = "free"

    @classmethod
    def battery(
        cls, energy_wh: float, hours: float, idle_w: float, start_s: float, window_s: float = 60.0
    ) -> "PowerBudget":
        """A battery that shall last: what is left is spread over the rows expected in the hours that are left.

        Args:
            energy_wh: in the battery at `start_s`, or of it what may be used.
            hours: how long it shall last.
            idle_w: as above.
            start_s: the instant the hours begin.
            window_s: sets how quickly the rate is learnt and how often it is planned.

        Raises:
            BudgetError: a value out of its range.
        """
        _check("energy_wh", energy_wh, 0.001, 1e6)
        _check("hours", hours, 0.001, 100_000.0)
        _check("start_s", start_s, -1e15, 1e15)
        budget = cls(max(energy_wh / hours, 0.001), window_s, idle_w)
        battery = Battery(energy_wh * 3.6e6, hours * 3600.0)
        budget._account = PowerAccount(budget._given_w, window_s, idle_w, battery, start_s)
        return budget

    def handed_on(self) -> "PowerBudget":
        """The same power or battery for another bundle's modes: what was spent stays so, what was learnt of modes not.

        Both may be used at once, each on its own threads: either charges what its runs took.
        """
        other = PowerBudget(self._given_w, self._window_s, self._idle_w)
        other._account = self._account
        return other

    def arrived(self, rows: int, now_s: float) -> None:
        """Count rows that were accepted: they make the rate."""
        account = self._account
        with account.lock:
            account.advance(now_s)
            if rows > 0:
                account.rate.add(rows, account.clock.elapsed_s)

    def due(self, now_s: float) -> bool:
        """Whether `plan` would plan again; saves making its points."""
        return not 0.0 <= now_s - self._planned_s < self._window_s / STEPS

    def plan(self, points: Sequence[Point], now_s: float) -> None:
        """Choose the mix of modes for now on, at most once in a sixtieth of a window.

        Args:
            points: the modes that may run, with energies as the profile says; `cap_mj` answers in these. Quickest when
                the same tuple comes again.
            now_s: the time.
        """
        if not self.due(now_s):
            return
        self._planned_s = now_s
        self._points = points
        with self._account.lock:
            self._account.advance(now_s)
            self._account.note()
            self._choose(self._hull.of(points))
        if self._mix is not None and self._verdict != "free":
            asked = self._hull.asked_mj
            self._cap_low, self._cap_high = asked[self._mix.low.mode_id], asked[self._mix.high.mode_id]
        else:
            self._cap_low = self._cap_high = math.inf

    def tick(self, now_s: float) -> None:
        """Say that time passed though nothing was asked: an idle board draws power, and a battery's hours run.

        Plans with the points of the last `plan` when that is due. To be called every few seconds: a quiet time longer
        than an hour that is told in one step is taken for a jump of the clock.
        """
        with self._account.lock:
            self._account.advance(now_s)
        if self._points:
            self.plan(self._points, now_s)

    def cap_mj(self, now_s: float) -> float:
        """The most energy above idle that the next row may take; infinity when the budget binds nothing.

        It is the energy of one of the two planned modes, as `plan` was given it, so a caller who takes the most
        accurate mode within the cap takes a planned one. Which of them follows from what was spent until now: so
        the average holds whatever modes deadlines force in between.

        Args:
            now_s: the time; the answer is that of the last plan and run.
        """
        return self._cap_high if self._lead_mj + NEXT_SHARE * self._account.credit_mj >= 0.0 else self._cap_low

    def spent(
        self,
        energy_mj: Optional[float],
        predicted_above_idle_mj: Optional[float],
        start_s: float,
        end_s: float,
        *,
        mode_id: Optional[str] = None,
        rows: int = 1,
    ) -> None:
        """Charge one run.

        Args:
            energy_mj: what the meter read over the run, of the whole board; None without one.
            predicted_above_idle_mj: of the whole run, from the same profile as the points; None when unknown.
            start_s: when it began.
            end_s: and ended.
            mode_id: what ran: each mode learns how far its profile is from the meter.
            rows: of the run.
        """
        above = self._trust.charge_mj(energy_mj, predicted_above_idle_mj, (end_s - start_s) * 1e3, mode_id)
        with self._account.lock:
            self._account.advance(end_s)
            self._account.charge(above)
        if self._mix is not None and rows > 0:
            # What deadlines forced is the credit's business beyond one run: here it would count twice.
            lead, bound = self._lead_mj + self._mean_mj * rows - above, self._bound_mj * rows
            self._lead_mj = bound if lead > bound else lead if lead > -bound else -bound

    @property
    def state(self) -> PowerState:
        """As of the last call that said the time."""
        chosen, account = self._mix, self._account
        with account.lock:
            return PowerState(
                verdict=self._verdict,
                power_w=account.power_w,
                spent_w=account.spent_w,
                rate_per_s=account.rate.recent_per_s(account.clock.elapsed_s),
                credit_mj=account.credit_mj,
                remaining_wh=None if account.battery is None else account.battery.remaining_wh(account.total_mj),
                low=chosen.low.mode_id if chosen else None,
                high=chosen.high.mode_id if chosen else None,
                share=chosen.share if chosen else None,
                factor=self._trust.factor,
                distrusted=self._trust.distrusted,
                unpriced=self._trust.unpriced,
                clock_jumps=account.clock.jumps,
                unknown_modes=self._hull.unknown,
            )

    def _choose(self, hull: Sequence[HullPoint]) -> None:
        account, battery = self._account, self._account.battery
        elapsed_s = account.clock.elapsed_s
        self._mix = None
        if battery is not None and battery.left_s(elapsed_s) <= 0.0:
            self._verdict = "ended"
        elif not hull:
            self._verdict = "unknown"
        else:
            rate = account.rate.recent_per_s(elapsed_s)
            if battery is not None:
                account.power_w = battery.power_w(account.total_mj, elapsed_s)
                rate = battery.expected_per_s(rate, account.rate.usual_per_s(elapsed_s), elapsed_s)
            per_s_mj = (account.power_w - self._idle_w) * 1e3
            paid_mj = per_s_mj + account.credit_mj / (self._window_s * PAYBACK_SHARE)
            mean_mj = paid_mj / rate if rate > 0.0 else math.copysign(math.inf, paid_mj)
            self._mix = mix(hull, mean_mj)
            self._mean_mj, self._bound_mj = self._mix.energy_mj, self._mix.high.energy_mj
            cheapest_mj = hull[0].energy_mj
            if mean_mj >= hull[-1].energy_mj:
                self._verdict = "free"
            elif mean_mj < cheapest_mj and per_s_mj < cheapest_mj * rate:
                self._verdict = "unreachable"
            else:
                self._verdict = "binding"  # perhaps paying a debt with the cheapest


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise BudgetError(f"{name} is {value}: give a number from {low:g} to {high:g}")
