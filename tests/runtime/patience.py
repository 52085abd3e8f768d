"""Waiting for what threads bring about: an event, never a time."""

import time
from typing import Callable

PATIENCE_S = 60.0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until it holds; fails after a time that no crowded machine needs."""
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, "it never came to hold"
        time.sleep(0.001)
