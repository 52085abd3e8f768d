"""Whatever arrives over a socket: no crash, no 5xx, no growth, and the right answer afterwards."""

from tests.fuzz.amount import cases
from tests.fuzz.daemon import Daemon
from tests.fuzz.requests import MAKERS, case
from tests.fuzz.sockets import fuzz

GROWTH_MB = 64.0


def test_no_client_harms_the_daemon_by_what_it_sends(daemon: Daemon) -> None:
    outcome = fuzz(daemon, cases(10 * len(MAKERS)))
    assert outcome.failures == []
    assert outcome.grown_mb <= GROWTH_MB
    assert outcome.statuses[200]
    assert outcome.statuses[400]


def test_a_case_is_the_same_ever_again_and_its_neighbour_another() -> None:
    for number in range(len(MAKERS)):
        assert case(1, number) == case(1, number)
        assert case(1, number) != case(2, number)
