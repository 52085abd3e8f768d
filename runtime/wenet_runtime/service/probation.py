"""Whether a bundle that has just begun to serve does worse than the one before: counts in, a verdict out."""

import math
from typing import Optional

from wenet_runtime.service.tally import Hits

WINDOW_S = 60.0
LEAST = 50  # requests with a budget before their share says anything
MARGIN = 0.02  # a share that is lower by less than this is no reason to go back
Z = 3.0  # both intervals hold with 99.9 %, so that looking every second for a minute finds little by chance
ERRORS = 3  # one may be that of a request; the bundle before served without


def fault(before: Hits, after: Hits, errors: int, trouble: Optional[str] = None) -> Optional[str]:
    """Why the new bundle must go, in a few words; None if nothing speaks against it so far.

    Args:
        before: of the old bundle's latest requests with a budget, in how many it held.
        after: the same of the new one's.
        errors: how often its engines failed, or answering did, since it serves.
        trouble: why it can answer nothing at all; None if it can.
    """
    if trouble is not None:
        return trouble
    if errors >= ERRORS:
        return f"{errors} failures of its engines"
    if min(before.of, after.of) < LEAST:
        return None
    was, now = before.met / before.of, after.met / after.of
    if now <= was - MARGIN and _highest(after) < _lowest(before):
        return f"budgets held in {now:.1%} of {after.of} requests, and in {was:.1%} of {before.of} before"
    return None


def _lowest(hits: Hits) -> float:
    """The least share that such counts are likely with (Wilson's interval)."""
    centre, half = _interval(hits)
    return centre - half


def _highest(hits: Hits) -> float:
    """The largest."""
    centre, half = _interval(hits)
    return centre + half


def _interval(hits: Hits) -> "tuple[float, float]":
    share, scale = hits.met / hits.of, 1 + Z * Z / hits.of
    centre = (share + Z * Z / (2 * hits.of)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / hits.of + Z * Z / (4 * hits.of * hits.of))
    return centre, half
