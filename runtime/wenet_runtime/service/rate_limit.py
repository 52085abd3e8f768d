"""How many requests one client may send: a bucket of them that fills with time, one for each token or address."""

import hashlib
import math
import time
from collections import OrderedDict
from typing import Any, Callable, Mapping, Tuple

from wenet_runtime.service.problems import Problem

KEPT = 10_000  # clients; who has not asked for longest is forgotten first, and begins with a full bucket again


class RateLimit:
    """Counts on the event loop alone, so without a lock.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Tuple[float, float]] = OrderedDict()  # client: (requests left, seen at)

    def check(self, client: str, per_s: float) -> None:
        """Take one request out of a client's bucket, which holds what a second gives, one at least.

        Args:
            client: who asks.
            per_s: how many it may send a second.

        Raises:
            Problem: rate-limited, with the time until there is one again.
        """
        now_s = self._clock()
        most = max(1.0, per_s)
        left, seen_s = self._buckets.pop(client, (most, now_s))
        left = min(most, left + (now_s - seen_s) * per_s)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, now_s)
        if len(self._buckets) > KEPT:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_ms = max(1, math.ceil((1.0 - left) / per_s * 1e3))
            raise Problem(
                "rate-limited",
                f"this client may send {per_s:g} requests a second (--rate-limit): send the next in {wait_ms} ms",
                {"retry_after_ms": wait_ms, "executed": False},
            )


def client_of(scope: Mapping[str, Any]) -> str:
    """Who asks: its token where tokens are checked, else its address; "" where that is not known.

    Where tokens are not checked, anybody could be another client with every request.
    """
    for name, value in scope["headers"] if scope.get("wenet.by_token") else ():
        if name == b"authorization":
            return hashlib.sha256(value).hexdigest()
    client = scope.get("client")
    return str(client[0]) if client else ""
