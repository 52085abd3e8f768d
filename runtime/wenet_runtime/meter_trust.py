"""What a run is charged: the meter's reading where it is credible, otherwise the estimate, corrected by what credible
readings taught. So a meter that lies does bounded harm.
"""

import math
from typing import Collection, Dict, Optional

# A mode's true energy lies well within 4× of its profile on any clock a board offers (power falls at least as fast
# as time grows), and a decimal place, an idle reading or another rail lies outside.
BAND = 4.0
# What is learnt may move the middle of the band by 2×. Both together stay below 10×, so a reading that is wrong by
# a decimal place is never believed, however slowly a meter drifts there.
FACTOR = 2.0
PRIOR = 4  # runs that the profile itself counts for
HALVED = 512  # runs of other modes in which half of what a mode taught is forgotten
MEMORY = 32  # runs after which old readings fade: 5 % of noise becomes 1 %
# A live meter does not say the same to the last digit of runs that differ; a coarse one may do so a few times.
REPEATED = 5
DIFFERS = 1e-6  # of a run's time or estimate: less is the rounding of instants


class MeterTrust:
    """Turns meter readings and estimates into energy above idle.

    Attributes:
        factor: measured over estimated, of all modes; 1 until readings say otherwise.
        distrusted: readings that were not believed.
        unpriced: runs of which neither a credible reading nor an estimate was there, charged as a usual run.
    """

    def __init__(self, idle_w: float) -> None:
        self._idle_w = idle_w
        self._all = _Learnt(1.0)
        self._modes: Dict[str, _Learnt] = {}
        self._usual_mj = 0.0
        self._last_mj, self._last_estimate_mj, self._last_ms = math.nan, 0.0, 0.0
        self._repeated = 0
        self.factor = 1.0
        self.distrusted = 0
        self.unpriced = 0

    def keep(self, mode_ids: Collection[str]) -> None:
        """Learn about these modes from now on, and forget all others: it holds no more than these."""
        self._modes = {one: self._modes.get(one) or _Learnt(self.factor) for one in mode_ids}

    def factor_of(self, mode_id: str) -> float:
        """Measured over estimated of one mode; that of all modes where it has not run yet."""
        learnt = self._modes.get(mode_id)
        return self.factor if learnt is None else self._of(learnt)

    def _of(self, learnt: "_Learnt") -> float:
        """What one mode taught, the less the longer only others ran: a mode that is too dear would stay so for ever."""
        if not learnt.count:
            return self.factor
        kept: float = 0.5 ** ((self._all.count - learnt.at) / HALVED)
        return self.factor + (learnt.factor - self.factor) * kept

    def charge_mj(
        self, reading_mj: Optional[float], estimate_mj: Optional[float], busy_ms: float, mode_id: Optional[str] = None
    ) -> float:
        """What one run took above idle, mJ, finite and at least 0.

        Args:
            reading_mj: of the whole board over the run; None without a meter.
            estimate_mj: above idle, from the profile; None when unknown.
            busy_ms: how long the run took.
            mode_id: what ran, if it is one of those kept.
        """
        if estimate_mj is None or not 0.0 < estimate_mj < math.inf:
            # Nothing to hold a reading against.
            self.unpriced += 1
            self.distrusted += reading_mj is not None
            return self._usual_mj
        learnt = self._modes.get(mode_id) if mode_id is not None else None
        factor = self.factor if learnt is None else self._of(learnt)
        charged = expected = estimate_mj * factor
        if reading_mj is not None:
            above = reading_mj - self._idle_w * busy_ms
            # All false for NaN. Every reading is looked at, lest a stuck one be forgotten.
            stuck = self._stuck(reading_mj, estimate_mj, busy_ms)
            if not stuck and busy_ms >= 0.0 and expected <= above * BAND and above <= expected * BAND:
                charged = above
                ratio = above / estimate_mj
                self._all.learn(ratio)
                self.factor = self._all.factor
                if learnt is not None:
                    learnt.factor = self._of(learnt) if learnt.count else learnt.factor
                    learnt.learn(ratio)
                    learnt.at = self._all.count
            else:
                self.distrusted += 1
        self._usual_mj += (charged - self._usual_mj) / MEMORY
        return charged

    def _stuck(self, reading_mj: float, estimate_mj: float, busy_ms: float) -> bool:
        if reading_mj != self._last_mj:
            self._repeated = 0
        elif (
            abs(estimate_mj - self._last_estimate_mj) > DIFFERS * estimate_mj
            or abs(busy_ms - self._last_ms) > DIFFERS * busy_ms
        ):
            self._repeated += 1
        self._last_mj, self._last_estimate_mj, self._last_ms = reading_mj, estimate_mj, busy_ms
        return self._repeated >= REPEATED


class _Learnt:
    """A mean that begins at what was believed before, and after a while follows."""

    __slots__ = ("at", "count", "factor")

    def __init__(self, factor: float) -> None:
        self.count = 0
        self.at = 0  # runs of all modes by then
        self.factor = factor

    def learn(self, ratio: float) -> None:
        self.count = count = self.count + 1
        moved = self.factor + (ratio - self.factor) / (count + PRIOR if count + PRIOR < MEMORY else MEMORY)
        self.factor = FACTOR if moved > FACTOR else 1.0 / FACTOR if moved * FACTOR < 1.0 else moved
