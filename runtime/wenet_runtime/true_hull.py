"""The hull of the modes' true energies: profiles corrected by what the meter taught, made anew only when they moved."""

from typing import Dict, Optional, Sequence, Tuple

from wenet_runtime.energy_plan import HullPoint, Point, known, upper_hull
from wenet_runtime.meter_trust import MeterTrust
from wenet_runtime.pareto import pareto_front

MOVED = 0.01  # of a factor: less is the meter's noise


class TrueHull:
    """Keeps the hull of the points that were last given.

    Attributes:
        asked_mj: a mode's energy as it was given, which is what a cap must say to ask for it.
        unknown: points without a possible energy or accuracy.
    """

    def __init__(self, trust: MeterTrust) -> None:
        self._trust = trust
        self._points: Optional[Tuple[Point, ...]] = None
        self._used: Dict[str, float] = {}
        self._hull: Tuple[HullPoint, ...] = ()
        self.asked_mj: Dict[str, float] = {}
        self.unknown = 0

    def of(self, points: Sequence[Point]) -> Tuple[HullPoint, ...]:
        """The hull, empty when no point is known; quickest when the same tuple comes again."""
        given = tuple(points)
        if given is not self._points and given != self._points:
            self._points = given
            self._trust.keep([one.mode_id for one in known(given)])
            self._make(given)
        elif self._moved():
            self._make(given)
        return self._hull

    def _moved(self) -> bool:
        factor_of = self._trust.factor_of
        return any(abs(factor_of(mode_id) - used) > MOVED * used for mode_id, used in self._used.items())

    def _make(self, points: Sequence[Point]) -> None:
        offered = known(points)
        # A mode that is dearer by its profile and no better than another cannot be asked for by a cap.
        usable = [offered[place] for place in pareto_front([(one.energy_mj, one.accuracy) for one in offered])]
        self.unknown = len(points) - len(offered)
        self.asked_mj = {one.mode_id: one.energy_mj for one in usable}
        self._used = {one.mode_id: self._trust.factor_of(one.mode_id) for one in usable}
        true = [HullPoint(one.mode_id, one.accuracy, one.energy_mj * self._used[one.mode_id]) for one in usable]
        self._hull = upper_hull(true)
