"""What follows from the daemon's own description: no 5xx. Runs where Schemathesis is, with `make fuzz`."""

from pathlib import Path

import pytest

from tests.fuzz.amount import cases
from tests.fuzz.daemon import Daemon
from tests.fuzz.openapi import fuzz, schemathesis

GROWTH_MB = 64.0


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_no_request_that_the_description_allows_harms_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    command = schemathesis()
    if command is None:
        pytest.skip("Schemathesis is not installed: `make fuzz` installs it into an environment of its own")
    outcome = fuzz(daemon, tmp_path, cases(4000), command=command)
    assert outcome.failures == []
    assert outcome.grown_mb <= GROWTH_MB
