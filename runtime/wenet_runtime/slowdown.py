"""The live filter: how much slower the device is than its profile right now, and how uncertain that is.

What slows a device does not slow every mode alike: a lower clock stretches whatever computes, another process
that streams through memory stretches whatever waits for memory. So modes are of two classes (`classes_of`), each
with its own factor, and what one class shows is carried over to the other until that one is seen again.
"""

import math
from collections import deque
from typing import Deque, Dict, List, Mapping, Optional, Tuple

from wenet_runtime.residuals import Residuals

# The longest run of observations that a change is looked for in.
RUN = 15
# Fewer say nothing about the noise: a change is then believed when four of five show it.
LEAST_NOISE = 15
# After so many runs it is looked at whether the stalls of before have ended.
LOOKS = (16, 32, 64)
# Half of what an idle device was slower is forgotten in this time: it drifts back to its profile.
HALF_LIFE_S = 20.0
# Nothing below a tenth or above a thousand times a profile is a speed: a clock has jumped.
FLOOR, CEILING = 0.1, 1000.0
COMPUTE, MEMORY = 0, 1


def classes_of(rates: Mapping[str, float]) -> Dict[str, int]:
    """The class of each mode, from the operations it does per millisecond on an idle device.

    A mode that does less than half of what the best one does per millisecond spends most of its time waiting for
    something else: `MEMORY`. The others are `COMPUTE`, and so is one whose rate is unknown (0, or not finite).
    """
    best = max((rate for rate in rates.values() if math.isfinite(rate)), default=0.0)
    return {name: MEMORY if 0 < rate < best / 2 else COMPUTE for name, rate in rates.items()}


class ClassFilter:
    """One class of modes: how much slower it is, and what comes on top of that.

    The factor holds until what is seen would be too unlikely under the noise seen before, then it is the median of
    what showed the change: the noise itself sets the hysteresis. Worsening is believed sooner than improving,
    because a missed deadline costs more than a point of accuracy.

    Args:
        attainment: the share of runs that `spread` and `excess_ms` together shall cover.

    Attributes:
        factor: time over profile since the last change.
        middle: half of the runs take at most this times factor × profile.
        spread: what a run takes at the most, over factor × profile, stalls apart; None: too little seen.
        excess_ms: what stalls add, in the share asked for.
        quietened: the last run showed that the stalls of before have ended.
    """

    def __init__(self, attainment: float) -> None:
        self._miss = 1.0 - attainment
        # Who allows many misses still wants no change believed that chance alone shows every few requests.
        self._rare = rare = min(self._miss, 0.01)
        # How far out the least striking of a run of k lies if k in a row are as rare as two misses, or three.
        self._worse = [rare ** (2 / length) for length in range(1, RUN + 1)]
        self._better = [rare ** (3 / length) for length in range(1, RUN + 1)]
        self._attainment = attainment
        size = int(min(4096, max(256, 4 / self._miss)))
        self._noise = Residuals(size)  # time over factor × profile
        self._excess = Residuals(size)
        self._run: Deque[Tuple[float, float]] = deque(maxlen=RUN)  # time over profile, and that profile, ms
        self._body = 1.0
        self._runs = 0
        self.quietened = False
        self.factor = 1.0
        self.middle = 1.0
        self.spread: Optional[float] = None
        self.excess_ms = 0.0

    def observe(self, ratio: float, profiled_ms: float) -> bool:
        """Take in a measured over a profiled time, and that profiled time; True if the factor moved."""
        self._run.append((ratio, profiled_ms))
        self._learn(ratio, profiled_ms)
        length = self._changed()
        if length:
            shown = list(self._run)[-length:]
            self._noise.forget_latest(length)
            self._excess.forget_latest(length)
            ordered = sorted(ratio for ratio, _ in shown)
            self.factor = min(CEILING, max(FLOOR, ordered[length // 2]))  # of two, the slower
            self._run.clear()
            for ratio, profiled_ms in shown:
                self._learn(ratio, profiled_ms)
        self._runs += 1
        self.quietened = self._runs % LOOKS[0] == 0 and self._forget_stalls()
        # What chance takes off on its lucky side it adds on the other; what comes on top of that is a stall.
        middle = self._noise.quantile(0.5)
        self._body = max(middle, 2 * middle - self._noise.quantile(self._miss))
        if len(self._noise) >= LEAST_NOISE:
            self.middle = middle
            self.spread = self._body
            self.excess_ms = self._excess.quantile(self._attainment)
        return length > 0

    def _learn(self, ratio: float, profiled_ms: float) -> None:
        relative = ratio / self.factor
        self._noise.add(relative)
        # A stall is as long for a quick mode as for a slow one, so it is kept in milliseconds.
        self._excess.add(max(0.0, (relative - self._body) * self.factor * profiled_ms))

    def _forget_stalls(self) -> bool:
        """Once it has become quiet, the stalls of before say nothing any more: keep only what came since.

        It has if the latest runs would hardly all have been so lucky under what is remembered. Otherwise requests
        would be refused for hundreds of runs after another process has ended.
        """
        for latest in (one for one in LOOKS if one < len(self._excess)):
            beyond = self._excess.at_least(max(self._excess.latest(latest)) * (1 + 1e-9) + 1e-9)
            if (1 - beyond / len(self._excess)) ** latest < self._rare:
                self._noise.keep_latest(latest)
                self._excess.keep_latest(latest)
                return True
        return False

    def _changed(self) -> int:
        """How many of the latest runs show that the factor is another one; 0 if none do.

        A run of k shows it when even the least striking of them lies so far out in the noise before them that k
        in a row are rarer than two misses in a row (worse) or three (better). A single one never does.
        """
        others = len(self._noise) - len(self._run)
        if others < LEAST_NOISE:
            return self._changed_early()
        worse, better, seen = self._worse, self._better, len(self._noise) + 1
        low, high = math.inf, 0.0
        for length, (ratio, _) in enumerate(reversed(self._run), 1):
            relative = ratio / self.factor
            low, high = min(low, relative), max(high, relative)
            up = (self._noise.at_least(low) - length + 1) / (seen - length)
            down = (self._noise.at_most(high) - length + 1) / (seen - length)
            if length > 1 and (up <= worse[length - 1] or down <= better[length - 1]):
                return length
            if up > worse[-1] and down > better[-1]:
                return 0
        return 0

    def _changed_early(self) -> int:
        if len(self._run) < 5:
            return 0
        last = sorted(ratio / self.factor for ratio, _ in list(self._run)[-5:])
        return 5 if last[1] > 1.1 or last[3] < 1 / 1.1 else 0

    def forget_noise(self) -> None:
        """What was seen of the noise is too long ago: each mode's profile gives its own again."""
        self._noise.keep_latest(0)
        self._excess.keep_latest(0)
        self._run.clear()
        self._body = self.middle = 1.0
        self.spread, self.excess_ms = None, 0.0

    def scale(self, by: float) -> None:
        """Something else says that everything takes `by` times as long from now on."""
        self.factor = min(CEILING, max(FLOOR, self.factor * by))
        self._run.clear()

    def restart(self) -> None:
        """What was learned of this device's speed is void; what was learned of its noise is kept."""
        self.factor = 1.0
        self._run.clear()


class Slowdown:
    """Both classes together. Clocks are passed in, monotonic seconds that may jump.

    Args:
        attainment: the share of runs that the bounds shall cover.
    """

    def __init__(self, attainment: float) -> None:
        self.classes: List[ClassFilter] = [ClassFilter(attainment), ClassFilter(attainment)]
        self._seen_s: List[Optional[float]] = [None, None]
        self._decayed_s: List[Optional[float]] = [None, None]
        self._alone = [0, 0]  # runs of each class since the other one's last
        self._carried = [1.0, 1.0]  # of each factor, what only the other class has shown

    @property
    def factor(self) -> float:
        """Of the class that is slowed more: what stands for the device."""
        return max(one.factor for one in self.classes)

    def observe(self, which: int, measured_ms: float, profiled_ms: float, now_s: float) -> None:
        """Take in one finished run of a class: its time and its profiled median."""
        ratio = measured_ms / profiled_ms
        if not (math.isfinite(ratio) and ratio > 0):
            return
        self.forget(now_s)
        one = self.classes[which]
        before = one.factor
        if one.observe(ratio, profiled_ms):
            self._carry(one.factor / before, which)
        self._alone[which], self._alone[1 - which] = self._alone[which] + 1, 0
        if one.quietened and self._alone[which] >= LOOKS[0]:
            # What stalled the one stalled the other, and that one has not been there to see it end.
            self.classes[1 - which].forget_noise()
        self._seen_s[which] = self._decayed_s[which] = now_s

    def _carry(self, by: float, which: int) -> None:
        """What slowed one class slows the other too, until that one is seen. What frees one frees the other, but not
        below its profile, and not for what had only been carried over to the one itself.
        """
        other = self.classes[1 - which]
        shown, self._carried[which] = self._carried[which], 1.0
        if by >= 1:
            other.scale(by)
            self._carried[1 - which] *= by
            return
        wanted = max(other.factor * min(1.0, by * shown), min(other.factor, 1.0))
        if wanted < other.factor:
            other.scale(wanted / other.factor)

    def forget(self, now_s: float) -> bool:
        """Let what was not seen for long drift back; called before a decision. True if anything changed.

        An idle device drifts back to its profile; a class of modes that is not run, to the class that is.
        """
        if not math.isfinite(now_s):
            return False
        changed = False
        for which, one in enumerate(self.classes):
            last = self._decayed_s[which]
            if last is None or now_s - last < HALF_LIFE_S / 2:
                continue
            other_s = self._seen_s[1 - which]
            idle = other_s is None or now_s - other_s >= HALF_LIFE_S / 2
            target = 1.0 if idle else self.classes[1 - which].factor
            kept = 0.5 ** ((now_s - last) / HALF_LIFE_S)
            one.scale((target + (one.factor - target) * kept) / one.factor)
            self._decayed_s[which] = now_s
            seen_s = self._seen_s[which]
            if seen_s is not None and now_s - seen_s >= HALF_LIFE_S:
                one.forget_noise()
                self._seen_s[which] = None
            changed = True
        return changed

    def clock_changed(self, by: float) -> None:
        """The clock now runs `by` times as fast (0.5: half): expect it at once instead of learning it by misses."""
        if math.isfinite(by) and by > 0:
            for one in self.classes:
                one.scale(1 / by)

    def restart(self) -> None:
        """Another power setting: what was learned of the speed says nothing any more."""
        for one in self.classes:
            one.restart()
