"""A store of energy that shall last for some time, whatever rows come: what may be taken from now on, for how many."""

from dataclasses import dataclass

# An empty battery serves nobody. A hundredth covers what the last requests take and a meter's small bias.
RESERVE_SHARE = 0.01
# How long the present rate is expected to stay before it is as it was on average: a minute of an hour. Longer, nights
# are taken for quiet days; shorter, little changes (`benchmarks.energy_budget`).
PERSISTS_SHARE = 1 / 60


@dataclass(frozen=True)
class Battery:
    """What is in it and how long it shall last."""

    energy_mj: float
    seconds: float

    def left_s(self, elapsed_s: float) -> float:
        """Time that it has still to last; not above 0 when the time is over."""
        return self.seconds - elapsed_s

    def remaining_wh(self, spent_mj: float) -> float:
        """What is left, the reserve included."""
        return (self.energy_mj - spent_mj) / 3.6e6

    def power_w(self, spent_mj: float, elapsed_s: float) -> float:
        """The average of the whole board that it gives for the time left, 0 when nothing is left."""
        left_mj = self.energy_mj * (1.0 - RESERVE_SHARE) - spent_mj
        return max(left_mj / self.left_s(elapsed_s) / 1e3, 0.0)

    def expected_per_s(self, recent_per_s: float, usual_per_s: float, elapsed_s: float) -> float:
        """The mean rate over the time left: the present one for a while, then the usual one."""
        stays = min(1.0, self.seconds * PERSISTS_SHARE / self.left_s(elapsed_s))
        return usual_per_s + (recent_per_s - usual_per_s) * stays
