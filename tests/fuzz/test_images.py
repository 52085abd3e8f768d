"""Whatever an image is: decoded or refused, never a 5xx."""

from tests.fuzz.amount import cases
from tests.fuzz.daemon import Daemon
from tests.fuzz.images import MAKERS, fuzz

GROWTH_MB = 160.0  # what is decoded at once: 16.8 million pixels, and copies of them


def test_no_image_harms_the_daemon(daemon: Daemon) -> None:
    outcome = fuzz(daemon, cases(3 * len(MAKERS)))
    assert outcome.failures == []
    assert outcome.grown_mb <= GROWTH_MB
    assert outcome.statuses[200]
    assert outcome.statuses[400]
