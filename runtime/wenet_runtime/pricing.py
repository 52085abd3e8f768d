"""What the power budget leaves a row, and what runs take from it."""

import math
from typing import Dict, Optional, Sequence, Tuple

from wenet_runtime.assignment import Part
from wenet_runtime.controller import Controller
from wenet_runtime.energy_plan import Point
from wenet_runtime.policy import Choice
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.prediction import Predictor


class Pricing:
    """A power budget over a controller's modes; without one nothing is held back.

    Args:
        controller: says what modes take.
        power: the average power, or the battery, that has to last.
    """

    def __init__(self, controller: Controller, power: Optional[PowerBudget]) -> None:
        self._controller = controller
        self._power = power
        self._predictor: Optional[Predictor] = None
        self._prices: Dict[str, Optional[float]] = {}
        self._points: Tuple[Point, ...] = ()

    @property
    def limited(self) -> bool:
        """Whether there is a power budget."""
        return self._power is not None

    def arrived(self, rows: int, now_s: float) -> None:
        """Take in rows that were accepted."""
        if self._power is not None:
            self._power.arrived(rows, now_s)

    def tick(self, now_s: float) -> None:
        """Let time pass although nobody asks for anything."""
        if self._power is not None:
            self._power.plan(self._known(), now_s)
            self._power.tick(now_s)

    def price_mj(self, now_s: float) -> float:
        """What the next row may take above idle, mJ; infinite where nothing binds."""
        if self._power is None:
            return math.inf
        if self._power.due(now_s):
            self._power.plan(self._known(), now_s)
        return self._power.cap_mj(now_s)

    def spent(
        self,
        choice: Choice,
        parts: Sequence[Part],
        rows: int,
        energy_mj: Optional[float],
        start_s: float,
        end_s: float,
    ) -> None:
        """Charge a run: by the meter's reading where there is one, otherwise by what its modes are said to take."""
        if self._power is None:
            return
        self._known()
        priced = [(self._prices[part.mode_id], part.rows) for part in parts]
        known_mj = [price * rows_run for price, rows_run in priced if price is not None]
        predicted_mj = sum(known_mj) if len(known_mj) == len(parts) else None
        # A cascade's reading says nothing of one mode.
        mode_id = choice.mode_id if choice.rule is None else None
        self._power.spent(energy_mj, predicted_mj, start_s, end_s, mode_id=mode_id, rows=rows)

    def _known(self) -> Tuple[Point, ...]:
        """What modes take by the profiles as they are: the same tuple until they change, so that its hull is kept."""
        predictor = self._controller.predictor
        if predictor is not self._predictor:
            forecast = predictor.forecast(1)
            self._prices = dict(zip(forecast.ids, forecast.prices_mj))
            self._points = tuple(map(Point, forecast.ids, forecast.accuracies, forecast.prices_mj))
            self._predictor = predictor
        return self._points
