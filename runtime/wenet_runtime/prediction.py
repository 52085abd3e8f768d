"""What every mode takes now, for every batch size: its profile × the live slowdown, and what a reply takes after it."""

import math
from collections import deque
from typing import Deque, Dict, List, Mapping, Optional, Sequence, Set

from wenet_runtime.bundle import Mode
from wenet_runtime.forecast import Forecast
from wenet_runtime.meter_trust import MeterTrust
from wenet_runtime.profile import Profile
from wenet_runtime.residuals import Residuals, quantile
from wenet_runtime.slowdown import Slowdown, classes_of

OVERHEAD_WINDOW = 128
OVERHEAD_LEAST = 5  # fewer say nothing: the very first reply is slow on every machine
BATCH_WINDOW = 15
FORGOTTEN_S = 20.0  # without such a batch
KEPT_FORECASTS = 64  # batch sizes whose forecast is kept until something new is seen


class Predictor:
    """Predicts all modes of a bundle on this device. Clocks are passed in; not for several threads at once.

    Args:
        modes: those that can be served.
        profiles: what each costs on this device, by mode id; medians above 0.
        attainment: the share of requests that the bounds shall cover.
        idle_w: what the device draws when it does nothing, W; None if unknown (a mode's whole energy is its price).
    """

    def __init__(
        self,
        modes: Sequence[Mode],
        profiles: Mapping[str, Profile],
        attainment: float,
        idle_w: Optional[float] = None,
    ) -> None:
        ordered = sorted(modes, key=lambda mode: (-mode.accuracy.value, profiles[mode.id].p50_ms))
        self.ids = [mode.id for mode in ordered]
        self.index = {mode_id: at for at, mode_id in enumerate(self.ids)}
        self.accuracies = [mode.accuracy.value for mode in ordered]
        self.profiles = {mode_id: profiles[mode_id] for mode_id in self.ids}
        self.attainment = attainment
        self.slowdown = Slowdown(attainment)
        classes = classes_of({mode.id: mode.macs / profiles[mode.id].p50_ms for mode in ordered})
        self.classes = [classes[mode_id] for mode_id in self.ids]
        self._tails = [_tail(profiles[mode_id], attainment) for mode_id in self.ids]
        self._energies: List[Optional[float]] = [_energy(profiles[mode_id]) for mode_id in self.ids]
        self._prices = [_price(profiles[mode_id], idle_w) for mode_id in self.ids]
        self._trust = MeterTrust(idle_w or 0.0)
        self._trust.keep(self.ids)
        # A row takes what is above idle, as profiled or as a meter said, and the idle board's watts while it runs.
        self._active: List[Optional[float]] = [price_mj or None for price_mj in self._prices]
        self._metered: Set[int] = set()  # the modes of which a meter has said something
        self._idle_mj = [(idle_w or 0.0) * profiles[mode_id].p50_ms for mode_id in self.ids]
        # A batch's rows cost less each than a single one; what a profile does not tell of that is learned.
        self._batches: Dict[int, Deque[float]] = {}
        self._batched_s: Dict[int, float] = {}  # when they ran last
        self._overheads = Residuals(OVERHEAD_WINDOW)
        self._overhead_ms = (0.0, 0.0)  # in the median, at the attainment
        self._forecasts: Dict[int, Forecast] = {}
        self._profiled: Dict[int, List[float]] = {}

    def forecast(self, rows: int) -> Forecast:
        """All modes for a batch of `rows`, most accurate first; the same object until something new is seen."""
        found = self._forecasts.get(rows)
        if found is None:
            if len(self._forecasts) >= KEPT_FORECASTS:
                self._forecasts.clear()
            found = self._forecasts[rows] = self._forecast(rows)
        return found

    def _forecast(self, rows: int) -> Forecast:
        median, bound = self._overhead_ms
        idles = self._profiled.get(rows)
        if idles is None:
            idles = [self.profiles[mode_id].median_ms(rows) for mode_id in self.ids]
            if rows <= KEPT_FORECASTS:
                self._profiled[rows] = idles
        share = self._batch_share(rows)
        idle_share = min(1.0, share)
        filters = self.slowdown.classes
        usual = [one.factor * one.middle * share for one in filters]
        medians = [idle_ms * usual[which] + median for idle_ms, which in zip(idles, self.classes)]
        # A class of which too little was seen has the tail of each mode's own profile.
        most = [0.0 if one.spread is None else one.factor * one.spread * share for one in filters]
        more = [one.excess_ms + bound for one in filters]
        bounds = [
            idle_ms * (most[which] or filters[which].factor * share * tail) + more[which]
            for idle_ms, which, tail in zip(idles, self.classes, self._tails)
        ]
        return Forecast(
            ids=self.ids,
            accuracies=self.accuracies,
            medians_ms=medians,
            bounds_ms=bounds,
            # What an idle device takes is never more than its profile says: a batch may have been seen on a busy one.
            # And no reply is known to take time: what was seen may have been of larger ones.
            idles_ms=[idle_ms * idle_share for idle_ms in idles],
            energies_mj=self._energies_mj(usual),
            prices_mj=self._prices,
            reply_ms=median,
        )

    def _energies_mj(self, usual: Sequence[float]) -> List[Optional[float]]:
        """Per row: what a meter said of a mode, and the idle board's watts for as long as a row takes now."""
        return [
            energy_mj if active_mj is None else active_mj + idle_mj * usual[which]
            for energy_mj, active_mj, idle_mj, which in zip(self._energies, self._active, self._idle_mj, self.classes)
        ]

    def _batch_share(self, rows: int) -> float:
        seen = self._batches.get(rows)
        return 1.0 if seen is None or len(seen) < OVERHEAD_LEAST else quantile(sorted(seen), 0.5)

    def factor_of(self, mode_id: str) -> float:
        """How much slower than profiled the modes of its class are now."""
        return self.slowdown.classes[self.classes[self.index[mode_id]]].factor

    def observe(self, mode_id: str, infer_ms: float, rows: int, now_s: float) -> None:
        """Take in the time of one run. What is no possible time is ignored."""
        profiled_ms = self.profiles[mode_id].median_ms(rows)
        if not (math.isfinite(infer_ms) and infer_ms > 0):
            return
        which = self.classes[self.index[mode_id]]
        if rows > 1:
            seen = self._batches.setdefault(rows, deque(maxlen=BATCH_WINDOW))
            self._batched_s[rows] = now_s
            seen.append(infer_ms / (profiled_ms * self.factor_of(mode_id)))
            profiled_ms *= self._batch_share(rows)
        # A batch teaches the device's speed only once it is known what such a batch takes.
        if rows == 1 or len(self._batches[rows]) >= OVERHEAD_LEAST:
            self.slowdown.observe(which, infer_ms, profiled_ms, now_s)
        self._forecasts.clear()

    def observe_energy(self, mode_id: str, measured_mj: float, rows: int, ms: float) -> None:
        """Take in what a meter read over one run, of the whole board; what is not credible teaches nothing."""
        at = self.index[mode_id]
        price_mj = self._prices[at]
        if not price_mj:
            return
        distrusted = self._trust.distrusted
        self._trust.charge_mj(measured_mj, price_mj * rows, ms, mode_id)
        if self._trust.distrusted == distrusted:
            self._metered.add(at)
            for one in self._metered:  # what the others have taught fades meanwhile
                self._active[one] = (self._prices[one] or 0.0) * self._trust.factor_of(self.ids[one])
            self._forecasts.clear()

    def observe_overhead(self, overhead_ms: float) -> None:
        """Take in what a reply took after its inference: waking the server, encoding, sending."""
        if not math.isfinite(overhead_ms) or overhead_ms < 0:
            return
        seen = self._overheads
        seen.add(overhead_ms)
        if len(seen) >= OVERHEAD_LEAST:
            self._overhead_ms = (seen.quantile(0.5), seen.quantile(self.attainment))
            self._forecasts.clear()

    def doubt(self) -> None:
        """Forget what replies and batches took: it led to a refusal, and refusals bring nothing newer to learn from."""
        self._overheads.keep_latest(0)
        self._batches.clear()
        self._overhead_ms = (0.0, 0.0)
        self._forecasts.clear()

    def forget(self, now_s: float) -> None:
        """Let an idle device drift back to its profile; called before a decision."""
        if self.slowdown.forget(now_s):
            self._forecasts.clear()
        # A size that is refused is not run, and would never be seen to be quicker than it was.
        for rows in [rows for rows in self._batches if now_s - self._batched_s[rows] >= FORGOTTEN_S]:
            del self._batches[rows]
            self._forecasts.clear()

    def clock_changed(self, by: float) -> None:
        """The device's clock now runs `by` times as fast as before."""
        self.slowdown.clock_changed(by)
        self._forecasts.clear()

    def power_setting_changed(self) -> None:
        """The device's power setting is another one: its speed has to be learned anew."""
        self.slowdown.restart()
        self._forecasts.clear()


def _tail(profile: Profile, attainment: float) -> float:
    """How far the profile's own tail lies over its median, at the percentile next above `attainment`."""
    return max(1.0, (profile.p95_ms if attainment <= 0.95 else profile.p99_ms) / profile.p50_ms)


def _energy(profile: Profile) -> Optional[float]:
    """A profile's energy if it is a possible one."""
    energy_mj = profile.energy_mj
    return energy_mj if energy_mj is not None and math.isfinite(energy_mj) and energy_mj > 0 else None


def _price(profile: Profile, idle_w: Optional[float]) -> Optional[float]:
    """What a run takes above what the device would have taken idle: racing to idle saves no more than that."""
    energy_mj = _energy(profile)
    return None if energy_mj is None else max(0.0, energy_mj - (idle_w or 0.0) * profile.p50_ms)
