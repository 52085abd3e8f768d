"""How much is tried: little with every other test, as much as WENET_FUZZ_EXAMPLES says with `make fuzz`."""

import os


def cases(short: int) -> int:
    """The number of cases; `short` where nobody says more."""
    return int(os.environ.get("WENET_FUZZ_EXAMPLES", short))
