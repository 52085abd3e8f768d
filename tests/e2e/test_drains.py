"""SIGTERM under load: nobody who was there loses an answer, nothing is left, and the daemon says that all is well."""

from pathlib import Path

import pytest

from benchmarks.drains import Drain, drained, processes_of
from tests.fuzz.daemon import Daemon

DRAINS = 4  # `make bench` ends 200


@pytest.fixture(scope="module")
def drains(tmp_path_factory: pytest.TempPathFactory) -> "list[Drain]":
    """Daemons, each ended at another moment of its load."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not tell a session's processes")
    folder = tmp_path_factory.mktemp("drains")
    return [drained(folder, 0.05 + 0.1 * number) for number in range(DRAINS)]


@pytest.mark.slow
def test_every_request_that_was_sent_before_is_answered(drains: "list[Drain]") -> None:
    assert [one.lost for one in drains] == [0] * DRAINS
    assert all(one.answered for one in drains)
    assert sum(one.in_flight for one in drains) > 0  # some were under way at that moment


@pytest.mark.slow
def test_who_comes_later_is_turned_away_in_order(drains: "list[Drain]") -> None:
    for one in drains:
        assert set(one.after) <= {0, 200, 503}  # 0: the connection is not taken any more


@pytest.mark.slow
def test_the_daemon_ends_well_and_leaves_no_process(drains: "list[Drain]") -> None:
    assert [one.exit_code for one in drains] == [0] * DRAINS
    assert [one.orphans for one in drains] == [0] * DRAINS


def test_a_process_that_is_left_would_be_seen(tmp_path: Path) -> None:
    with Daemon(tmp_path, own_session=True) as daemon:
        assert processes_of(daemon.process.pid) == 1
    assert processes_of(daemon.process.pid) == 0
