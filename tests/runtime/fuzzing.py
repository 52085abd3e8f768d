"""How many cases a parser gets: few in every run, many where WENET_FUZZ_EXAMPLES says so."""

import os
from typing import Any

from hypothesis import HealthCheck, settings

# Read here, because the fixture that clears WENET_* variables runs later.
EXAMPLES = int(os.environ.get("WENET_FUZZ_EXAMPLES", "100"))


def examples(share: float = 1.0) -> Any:
    """A decorator: that many examples, or a share of them; never slow enough to fail."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)), deadline=None, suppress_health_check=list(HealthCheck)
    )
