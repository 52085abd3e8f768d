"""What every mode is predicted to take: the policy's view of a device."""

from typing import NamedTuple, Optional, Sequence


class Forecast(NamedTuple):
    """What every mode is predicted to take from now until its reply is handed over, most accurate first.

    Attributes:
        ids: of the modes; of equal accuracy the faster comes first. The other lists are in this order.
        accuracies: recorded validation accuracy, 0–1.
        medians_ms: half of such requests finish by then.
        bounds_ms: the share asked for (`--attainment`) finishes by then.
        idles_ms: the median on an idle, unthrottled device.
        energies_mj: per row; None when unknown.
        prices_mj: per row above what an idle device takes, for the power budget; None when unknown.
        reply_ms: what of the medians comes after the engine is free again: waking the server, encoding, sending.
    """

    ids: Sequence[str]
    accuracies: Sequence[float]
    medians_ms: Sequence[float]
    bounds_ms: Sequence[float]
    idles_ms: Sequence[float]
    energies_mj: Sequence[Optional[float]]
    prices_mj: Sequence[Optional[float]]
    reply_ms: float = 0.0
